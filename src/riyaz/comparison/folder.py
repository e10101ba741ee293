"""A comparison on disk: what was asked, the rows of each part, and one folder for every arm.

settings.json   identity of the comparison: another one in the same folder is refused
split/          train.jsonl, valid.jsonl, test.jsonl; with folds one folder for each, and one for the artifact
collection.sqlite   the user's documents, when there are some
measured.json   speeds, plan.json what is done, base.json and base_kl.safetensors facts about the base
arms/METHOD/PART/   fit.json, artifact/, result.json, predictions.jsonl, log.txt
"""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz import files
from riyaz.artifact import COLLECTION, read_examples
from riyaz.data import Example
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.files import from_json, read_json, remove, write_json, write_lines
from riyaz.results import Documents

DAMAGED = "remove it, or choose another --out"
KEPT = "kept"  # the part whose artifact is the arm's: trained on all training rows


@dataclass(frozen=True)
class ModelFile:
    """The base model by its name, its place and the hash of its weights."""

    name: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Chosen:
    """Of the settings, those that fitting and evaluating an arm depend on."""

    seed: int
    general: str | None
    replay: float


@dataclass(frozen=True)
class Settings:
    """settings.json: what makes a comparison this one, as far as its work needs it."""

    model: ModelFile
    data: dict[str, str | None]  # hashes of the files
    task: Task
    reading: dict[str, Any]
    settings: Chosen
    methods: tuple[str, ...]
    documents: Documents | None = None


class ComparisonFolder:
    """Paths and atomic files of one comparison."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def locked(self) -> AbstractContextManager[set[str]]:
        """Keep other processes out; the lock dies with its holder. An error before there is a plan leaves the folder
        as it was, unless the measuring crashed and left a log to read."""
        return files.locked(self.path, self._ours, self._begun)

    def _ours(self, names: set[str]) -> bool:
        return "settings.json" in names or all(name.startswith(".") for name in names)

    def _begun(self) -> bool:
        log = self.path / "measure.log"
        return (self.path / "plan.json").exists() or (log.exists() and log.stat().st_size > 0)

    def settle(self, identity: dict[str, Any]) -> None:
        """Claim the folder for this comparison, or recognise it as its own. Raises RiyazError for another's."""
        known, asked = self.read("settings.json"), json.loads(json.dumps(identity))
        if known is None:
            self.write("settings.json", identity)
            return
        self.settings()  # which says what is wrong with it
        if known != asked:
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
        return read_json(path, DAMAGED) if path.exists() else None

    def settings(self) -> Settings:
        """What was asked. Raises RiyazError naming the place that is wrong."""
        path = self.path / "settings.json"
        return from_json(Settings, read_json(path, DAMAGED), str(path), DAMAGED, unknown=True)

    def save_split(self, split: Split) -> list[str]:
        """Write the rows of every part and return the parts' names; the kept one is the last."""
        parts = {f"fold-{i + 1}": fold for i, fold in enumerate(split.folds)} | {KEPT: split}
        for stale in {path.name for path in (self.path / "split").glob("*")} - set(parts):
            remove(self.path / "split" / stale)
        for name, part in parts.items():
            for rows in ("train", "valid", "test"):
                write_lines(
                    self.path / "split" / name / f"{rows}.jsonl", (row.to_record() for row in getattr(part, rows))
                )
        return list(parts)

    def collection(self) -> Path | None:
        """The index of the user's documents, None when there are none."""
        path = self.path / COLLECTION
        return path if path.exists() else None

    def rows(self, part: str, which: str) -> tuple[Example, ...]:
        """The rows of one part: which is train, valid or test."""
        return read_examples(self.path / "split" / part / f"{which}.jsonl", DAMAGED)

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


def megabytes(folder: Path) -> float:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
