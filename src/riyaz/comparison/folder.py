"""A comparison on disk: what was asked, the rows of each part, and one folder for every arm.

settings.json   identity of the comparison: another one in the same folder is refused
split/          train.jsonl, valid.jsonl, test.jsonl; with folds one folder for each, and one for the artifact
collection.sqlite   the user's documents, when there are some
measured.json   speeds, plan.json what is done, base.json and base_kl.safetensors facts about the base
arms/METHOD/PART/   fit.json, artifact/, result.json, predictions.jsonl, log.txt
"""

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from riyaz.artifact import COLLECTION
from riyaz.data import Example
from riyaz.data.split import Split
from riyaz.errors import RiyazError

KEPT = "kept"  # the part whose artifact is the arm's: trained on all training rows


class ComparisonFolder:
    """Paths and atomic files of one comparison."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the lock dies with its holder. A RiyazError before there is a plan leaves the
        folder as it was, so that the corrected command finds it free."""
        new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            before = set(self.path.iterdir())
            if self.read("settings.json") is None and any(not path.name.startswith(".") for path in before):
                raise RiyazError("this folder holds something else", str(self.path), "choose another --out")
            handle = (self.path / ".lock").open("w")
        except OSError as error:
            raise RiyazError(f"cannot write here ({error.strerror})", str(self.path), "choose another --out") from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RiyazError("another riyaz is working in this folder", str(self.path), "wait for it") from error
            try:
                yield
            except RiyazError:
                if self.read("plan.json") is None and not self._crashed():
                    self._restore(before, new)
                raise

    def _crashed(self) -> bool:
        """Whether there is something to read in the log of the measuring."""
        log = self.path / "measure.log"
        return log.exists() and log.stat().st_size > 0

    def _restore(self, before: set[Path], new: list[Path]) -> None:
        """Remove what is not in `before`, then the `new` folders, the deepest first."""
        for path in set(self.path.iterdir()) - before:
            path.unlink() if path.is_file() else remove(path)
        with contextlib.suppress(OSError):
            for folder in new:
                folder.rmdir()

    def settle(self, identity: dict[str, Any]) -> None:
        """Claim the folder for this comparison, or recognise it as its own. Raises RiyazError for another's."""
        known, asked = self.read("settings.json"), json.loads(json.dumps(identity))
        if known is None:
            self.write("settings.json", identity)
        elif known != asked:
            differing = _differences(known, asked)
            if differing == ["budget"] and self.read("plan.json") is None:  # nothing was divided by it yet
                self.write("settings.json", identity)
                return
            differ = ", ".join(differing)
            raise RiyazError(
                f"this folder holds another comparison (other {differ})",
                str(self.path),
                "choose another --out or remove the folder",
            )

    def write(self, name: str, value: Any) -> None:
        """Write JSON so that a reader finds the old file or the whole new one."""
        write_json(self.path / name, value)

    def read(self, name: str) -> Any:
        """The JSON of a file, None when it is not there."""
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError as error:
            raise RiyazError(f"is damaged ({error})", str(path), "remove it, or choose another --out") from error

    def save_split(self, split: Split) -> list[str]:
        """Write the rows of every part and return the parts' names; the kept one is the last."""
        parts = {f"fold-{i + 1}": fold for i, fold in enumerate(split.folds)} | {KEPT: split}
        for stale in {path.name for path in (self.path / "split").glob("*")} - set(parts):
            remove(self.path / "split" / stale)
        for name, part in parts.items():
            for rows in ("train", "valid", "test"):
                write_rows(self.path / "split" / name / f"{rows}.jsonl", getattr(part, rows))
        return list(parts)

    def collection(self) -> Path | None:
        """The index of the user's documents, None when there are none."""
        path = self.path / COLLECTION
        return path if path.exists() else None

    def rows(self, part: str, which: str) -> tuple[Example, ...]:
        """The rows of one part: which is train, valid or test."""
        with (self.path / "split" / part / f"{which}.jsonl").open(encoding="utf-8") as lines:
            return tuple(Example.from_record(json.loads(line)) for line in lines)

    def run(self, method: str, part: str) -> Path:
        """The folder of one arm's part."""
        return self.path / "arms" / method / part


def _differences(known: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """What differs between two identities, in the words of the command line: data, model, methods, budget, …"""
    settings = [
        key for part in ("reading", "settings") for key in asked[part] if known[part].get(key) != asked[part][key]
    ]
    whole = [key for key in ("data", "documents", "model", "methods") if known.get(key) != asked.get(key)]
    found = whole + [key.replace("_", " ") for key in settings]
    return found or sorted(key for key in {*known, *asked} if known.get(key) != asked.get(key))


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary file and a rename; a number that is none becomes null."""
    _write(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_rows(path: Path, rows: Iterable[Example]) -> None:
    """Write examples as JSON lines."""
    _write(path, "".join(json.dumps(row.to_record(), ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise RiyazError(f"cannot be written ({error.strerror})", str(path), "free disk space") from error


def megabytes(folder: Path) -> float:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def remove(folder: Path) -> None:
    """Remove a folder that may not be there."""
    shutil.rmtree(folder, ignore_errors=True)
