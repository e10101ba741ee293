"""The folder of a pretraining run.

run.json       options, settings, status and results; written first, so that it marks the folder as a run
plan.json      every setting of the run; only changes of its length are added
metrics.jsonl  one line per step
samples.jsonl  one line per validation
learned.jsonl  one line per validation: losses of a fixed text, lens of a fixed sentence, gradients by layer
events.jsonl   phases and progress, and how each command ended
work/          tokens of the text, tokenizer, checkpoints; removed once the finished model is in the folder
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riyaz import files, folders, json_files
from riyaz.errors import RiyazError
from riyaz.files import TEMPORARY
from riyaz.json_files import write_json
from riyaz.results import ELSEWHERE, RUN

PLAN, WORK = "plan.json", "work"


class RunFolder:
    """Paths, lock and atomic writes of one run's folder."""

    def __init__(self, path: Path, document: str = RUN) -> None:
        self.path, self.work, self.document = path, path / WORK, document
        self.resumed = False  # whether the folder held a run when it was locked

    @contextlib.contextmanager
    def locked(self, resume: bool) -> Iterator[None]:
        """Lock the folder; the lock ends with the process. Raises RiyazError for a folder that holds anything but the
        run to resume. An error before plan.json is written leaves the folder as it was."""
        with folders.locked(self.path, self._ours, self._begun) as before:
            if self.document in before and not resume:
                status = (self.read(self.document) or {}).get("status")
                hint = ELSEWHERE if status == "done" else "add --resume to go on with it"
                raise RiyazError(f"this folder holds a run already ({status})", str(self.path), hint)
            for folder in (self.path, self.work, *self.work.rglob("*/")):
                files.sweep(folder)
            yield

    def _ours(self, names: set[str]) -> bool:
        self.resumed, begun = self.document in names, f".{self.document}."
        return self.resumed or all(TEMPORARY.fullmatch(name) and name.startswith(begun) for name in names)

    def _begun(self) -> bool:
        return self.resumed or (self.path / PLAN).exists()

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file atomically: a reader sees the old file or the whole new one."""
        write_json(self.path / name, value, ascii=True)

    def read(self, name: str) -> Any:
        """The JSON object in a file; None when the file does not exist. Raises RiyazError for a damaged file."""
        path = self.path / name
        if not path.exists():
            return None
        value = json_files.read_json(path, ELSEWHERE)
        if not isinstance(value, dict):
            raise damaged(str(path))
        return value

    def keep(self, model: Path) -> None:
        """Move the files of a finished model into the folder, config.json last: it marks the model as complete."""
        for file in sorted(model.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
            os.replace(file, self.path / file.name)
        model.rmdir()

    def clean(self) -> None:
        """Remove work/, which only an unfinished run needs."""
        shutil.rmtree(self.work, ignore_errors=True)


def damaged(where: str) -> RiyazError:
    """The error for a file from which a run cannot continue."""
    return RiyazError("is damaged or of another version", where, ELSEWHERE)
