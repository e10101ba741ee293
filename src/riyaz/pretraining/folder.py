"""A pretraining run on disk.

run.json       what it is and how far it came; the first file to be written, so that the folder is known as a run's
plan.json      everything that was decided: what is in it never changes
metrics.jsonl  one line a step, samples.jsonl one a validation
work/          text as tokens, tokenizer, checkpoints; gone when the model stands in the folder itself
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riyaz import files
from riyaz.errors import RiyazError
from riyaz.files import LEFTOVER, write_json

DAMAGED = "choose another --out"
RUN, PLAN, METRICS, SAMPLES, WORK = "run.json", "plan.json", "metrics.jsonl", "samples.jsonl", "work"


class RunFolder:
    """Paths and atomic files of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.work = path, path / WORK
        self.resumed = False  # whether there was a run when the folder was locked

    @contextlib.contextmanager
    def locked(self, resume: bool) -> Iterator[None]:
        """Keep other processes out; the lock dies with its holder. Raises RiyazError for a folder that holds anything
        but the run to resume. An error before there is a plan leaves the folder as it was."""
        with files.locked(self.path, self._ours, self._begun) as before:
            if RUN in before and not resume:
                status = (self.read(RUN) or {}).get("status")
                hint = "choose another --out" if status == "done" else "add --resume to go on with it"
                raise RiyazError(f"this folder holds a run already ({status})", str(self.path), hint)
            files.sweep([*self.path.iterdir(), *self.work.rglob(".*")])
            yield

    def _ours(self, names: set[str]) -> bool:
        self.resumed = RUN in names
        return self.resumed or all(LEFTOVER.fullmatch(name) and name.startswith(f".{RUN}.") for name in names)

    def _begun(self) -> bool:
        return self.resumed or (self.path / PLAN).exists()

    def write(self, name: str, value: Any) -> None:
        """Write JSON so that a reader finds the old file or the whole new one."""
        write_json(self.path / name, value, ascii=True)

    def read(self, name: str) -> Any:
        """The JSON mapping of a file, None when it is not there."""
        path = self.path / name
        if not path.exists():
            return None
        value = files.read_json(path, DAMAGED)
        if not isinstance(value, dict):
            raise damaged(str(path))
        return value

    def keep(self, model: Path) -> None:
        """Move the files of a finished model into the folder, what names them last."""
        for file in sorted(model.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
            os.replace(file, self.path / file.name)
        model.rmdir()

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.work, ignore_errors=True)


def damaged(where: str) -> RiyazError:
    """What is said of a file from which no run can go on."""
    return RiyazError("is damaged or of another version", where, DAMAGED)
