"""A pretraining run on disk.

run.json       what it is and how far it came; the first file to be written, so that the folder is known as a run's
plan.json      everything that was decided: what is in it never changes
metrics.jsonl  one line a step, samples.jsonl one a validation
work/          text as tokens, tokenizer, checkpoints; gone when the model stands in the folder itself
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riyaz.errors import RiyazError
from riyaz.sources.files import atomic_file, disk_error

LEFT = re.compile(r"\..+\.\d+\.tmp")  # what a killed write leaves, see `atomic_file`
RUN, PLAN, METRICS, SAMPLES, WORK = "run.json", "plan.json", "metrics.jsonl", "samples.jsonl", "work"


class RunFolder:
    """Paths and atomic files of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.work = path, path / WORK

    @contextlib.contextmanager
    def locked(self, resume: bool) -> Iterator[None]:
        """Keep other processes out; the lock dies with its holder. Raises RiyazError for a folder that holds anything
        but the run to resume. An error before there is a plan leaves the folder as it was."""
        new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            before = {path.name for path in self.path.iterdir()}
            others = {name for name in before - {".lock"} if not (LEFT.fullmatch(name) and name.startswith(f".{RUN}."))}
            handle = None if others and RUN not in before else (self.path / ".lock").open("w")
        except OSError as error:
            raise RiyazError(f"cannot write here ({error.strerror})", str(self.path), "choose another --out") from error
        if handle is None:
            raise RiyazError("this folder holds something else", str(self.path), "choose another --out")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RiyazError("another riyaz is working in this folder", str(self.path), "wait for it") from error
            if RUN in before and not resume:
                status = (self.read(RUN) or {}).get("status")
                hint = "choose another --out" if status == "done" else "add --resume to go on with it"
                raise RiyazError(f"this folder holds a run already ({status})", str(self.path), hint)
            self._sweep()
            try:
                yield
            except Exception:
                if RUN not in before and not (self.path / PLAN).exists():
                    self._restore(before, new)
                raise

    def _sweep(self) -> None:
        """Remove what killed writes left; nobody else writes here."""
        for path in [*self.path.iterdir(), *self.work.rglob(".*")]:
            if LEFT.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _restore(self, before: set[str], new: list[Path]) -> None:
        for path in self.path.iterdir():
            if path.name not in before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with contextlib.suppress(OSError):
            for folder in new:  # the deepest first
                folder.rmdir()

    def write(self, name: str, value: Any) -> None:
        """Write JSON so that a reader finds the old file or the whole new one."""
        with atomic_file(self.path / name) as file:
            file.write(json.dumps(finite(value), indent=2, allow_nan=False).encode() + b"\n")

    def read(self, name: str) -> Any:
        """The JSON mapping of a file, None when it is not there."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise damaged(str(path)) from error
        if not isinstance(value, dict):
            raise damaged(str(path))
        return value

    def keep(self, model: Path) -> None:
        """Move the files of a finished model into the folder, what names them last."""
        files = sorted(model.iterdir(), key=lambda path: (path.name == "config.json", path.name))
        for file in files:
            os.replace(file, self.path / file.name)
        model.rmdir()

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self.work, ignore_errors=True)


class Lines:
    """A file of JSON lines, each with its "step" and the numbers that are `needed`. What a killed run wrote beyond the
    step it goes on from, and a half line at the end, give way to the first line that is added."""

    def __init__(self, path: Path, *needed: str) -> None:
        self.path, self.needed = path, needed
        self.handle: Any = None

    def entries(self) -> list[dict[str, Any]]:
        """The whole lines of the file. Raises RiyazError naming a line that no run wrote."""
        if not self.path.exists():
            return []
        found = []
        with self.path.open(encoding="utf-8", errors="replace") as lines:
            for place, line in enumerate(lines, 1):
                entry = self._entry(line)
                if entry is not None:
                    found.append(entry)
                elif line.endswith("\n"):  # else it is the last, cut short by a kill
                    raise damaged(f"{self.path}:{place}")
        return found

    def _entry(self, line: str) -> dict[str, Any] | None:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                return entry if all(isinstance(entry.get(name), int | float) for name in self.needed) else None
        return None

    def add(self, entry: dict[str, Any]) -> None:
        """Append one line and hand it to the system. Raises RiyazError when the disk is full."""
        try:
            if self.handle is None:
                kept = [known for known in self.entries() if known["step"] < entry["step"]]
                with atomic_file(self.path) as file:
                    file.writelines(_line(known) for known in kept)
                self.handle = self.path.open("ab", buffering=0)
            line = _line(entry)
            if self.handle.write(line) < len(line):  # the next line would hang on to half of this one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise disk_error(error, self.path) from error

    def close(self) -> None:
        """Let the file go."""
        if self.handle is not None:
            self.handle.close()


def damaged(where: str) -> RiyazError:
    """What is said of a file from which no run can go on."""
    return RiyazError("is damaged or of another version", where, "choose another --out")


def finite(value: Any) -> Any:
    """The value with None for numbers that JSON cannot say."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(finite(entry), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
