"""The folder of a comparison: its settings, the rows of each part, and a folder for every arm.

settings.json   what was asked for; a command that asks for something else is refused
split/          train.jsonl, valid.jsonl, test.jsonl of each part: kept/, with folds also fold-1/, fold-2/, …
collection.sqlite   the index of the user's documents, if there are any; teacher/: what a teacher has answered
measured.json   speeds of this machine; base.json and base_kl.safetensors: facts about the base. Of several bases each
                has these in bases/NAME/
events.jsonl    what its commands told: phases, progress, arms, and how each command ended
problems.json   rows that may be wrong; the report writes them to problems.csv too
plan.json       estimated seconds and training steps; alone.json: methods asked again one row at a time
earlier.jsonl   test rows of the task of the artifact that training went on from; earlier.json: their scores
arms/ARM/PART/   fit.json, artifact/, result.json, predictions.jsonl, log.txt; learned.jsonl of a training
places.json     with --places: who did what when; places/: what each has measured, and the arms that it has not finished
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from riyaz import folders
from riyaz.artifact import COLLECTION, read_examples
from riyaz.config import CONFIGS, Lookup, Precision
from riyaz.data import Example, Reading
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.errors import RiyazError, shown
from riyaz.files import remove
from riyaz.json_files import from_json, read_json, write_json, write_lines
from riyaz.results import COMPARE, Documents, parted
from riyaz.results.problems import PROBLEMS
from riyaz.sources import Source, open_source
from riyaz.sources.source import open_path

DAMAGED = "remove it, or choose another --out"
TEACHER = "teacher"  # the folder of what a teacher has answered
PLACES = "places"  # the folder of what places have measured, and of what they have not finished
# what is in the folder before there is a plan: it is made anew for other settings
BEFORE_PLAN = ("settings.json", "split", COLLECTION, "index.log", "measured.json", "measure.log", "base.json",
               "base_kl.safetensors", "bases", PROBLEMS, TEACHER, "teach.log", PLACES)  # fmt: skip
FINAL = "kept"  # the part that is fitted on all training rows; its artifact is the arm's


@dataclass(frozen=True)
class ModelFile:
    """The base model: its name, its path and the hash of its weights. On a machine that has it elsewhere, `stored` is
    where, and `called` what home's workers call it."""

    name: str
    path: str
    sha256: str
    stored: str | None = None
    called: str | None = None


@dataclass(frozen=True)
class StartFile:
    """The artifact from which training goes on: what the user called it, its folder, and the hash of
    its riyaz.json, which holds those of all its files."""

    target: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Chosen:
    """The settings that fitting and evaluating an arm depend on."""

    seed: int
    general: str | None  # path of the general text; None: the topics of Python's documentation
    replay: float  # share of general text among the tokens that are learned from
    rank: int | None = None  # what the user chose in place of the methods' own values
    alpha: int | None = None
    beta: float | None = None
    length_normalised: bool = False
    epochs: int | None = None
    steps: int | None = None
    learning_rate: float | dict[str, float] | None = None  # of every trained method, or by method
    batch_size: int | None = None
    precision: Precision = "auto"  # in which the artifact is served, and so measured
    lookup: Lookup = "auto"  # whether its answers are looked up in their prompts; the text is the same, its time not
    instructions: tuple[str, ...] | None = None  # the user's own, to be tried
    replay_from: str | None = None  # path of that text; None or SELF: the base's own
    unlabelled: str | None = None  # path of the rows without answers


@dataclass(frozen=True)
class Settings:
    """settings.json, without the settings that only planning reads."""

    model: ModelFile  # of several the first
    data: dict[str, str | None]  # hashes of the files
    task: Task
    reading: dict[str, Any]  # a DataConfig, and as `columns` the Reading of the training rows
    settings: Chosen
    methods: tuple[str, ...]
    documents: Documents | None = None
    teacher: dict[str, str] | None = None  # `teach.identity`
    models: tuple[ModelFile, ...] = ()  # all of them by the names of their arms, where there are several
    artifact: StartFile | None = None  # from which training goes on

    def base_of(self, arm: str) -> str | None:
        """The base of an arm, the first for one that uses none; None where there is only one, which has no name."""
        return parted(arm)[1] or (self.models[0].name if self.models else None)

    def model_of(self, base: str | None) -> ModelFile:
        """The model of this base; None: the only one. Raises RiyazError for one that settings.json does not name."""
        if base is None:
            return self.model
        for model in self.models:
            if model.name == base:
                return model
        raise RiyazError(f"names no model {shown(base)}", "settings.json", DAMAGED)

    def source_of(self, base: str | None) -> Source:
        """The model of a base; None: the only one. Raises RiyazError if its file has changed since the comparison
        began."""
        model = self.model_of(base)
        source = open_source(model.path) if model.stored is None else open_path(Path(model.stored), model.called)
        if source.sha256() != model.sha256:
            raise RiyazError("the model has changed since the comparison began", model.path)
        return source


class ComparisonFolder:
    """Paths of a comparison's files; writes and reads them."""

    def __init__(
        self, path: Path, made: Mapping[tuple[str, str], Path] | None = None, measured: Path | None = None
    ) -> None:
        self.path = path
        self._made = dict(made or {})  # (arm, part) -> the folder where another place makes it
        self._measured = measured or path  # the folder of what a place measures of itself

    def locked(self) -> AbstractContextManager[set[str]]:
        """Keep other processes out; the lock ends with its process. An error before there is a plan restores the
        folder as it was, unless the measuring process crashed and left a log to read."""
        return folders.locked(self.path, self._ours, self._begun)

    def _ours(self, names: set[str]) -> bool:
        return "settings.json" in names or all(name.startswith(".") for name in names)

    def _begun(self) -> bool:
        log, done = self.path / "measure.log", [self.path / "plan.json", *self.path.glob("bases/*/measured.json")]
        done.append(self.path / "measured.json")
        return any(path.exists() for path in done) or (log.exists() and log.stat().st_size > 0)

    def claim(self, settings: dict[str, Any], more: bool = False) -> None:
        """Write settings.json, or check that it holds these settings, with `more` of any budget.

        Where no arm has run yet, other settings take the place of the old ones; what was measured for another budget
        is kept. Raises RiyazError if arms have run with other settings.
        """
        stored, now = self.read("settings.json"), json.loads(json.dumps(settings))
        for each in (stored, now):  # what is left out beside the same documents changes nothing
            if isinstance(each, dict) and isinstance(each.get("documents"), dict):
                each["documents"].pop("notes", None)
        _add_new_options(stored, now)
        if stored is None:
            self.write("settings.json", settings)
            return
        self.settings()  # raises RiyazError for a damaged file
        if stored != now:
            differing = _differences(stored, now)
            if self.read("plan.json") is None and (differing == ["budget"] or not self._ran()):
                for name in BEFORE_PLAN if differing != ["budget"] else ():
                    remove(self.path / name)
                self.write("settings.json", settings)
                return
            if differing == ["budget"] and more:
                return
            differ = ", ".join(differing)
            raise RiyazError(
                f"this folder holds another comparison (other {differ})",
                str(self.path),
                "choose another --out or remove the folder",
            )

    def reads_last_turns(self) -> bool:
        """Whether arms have run on rows that were read when only the last answer of a conversation made a row, and its
        tools were text: to go on, the rows are read as then. Raises RiyazError for a damaged file."""
        stored = self.read("settings.json") if self._ran() else None
        columns = (stored.get("reading") or {}).get("columns") if isinstance(stored, dict) else None
        return isinstance(columns, dict) and "turns" not in columns

    def _ran(self) -> bool:
        return any((self.path / name).exists() for name in ("arms", COMPARE))

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        write_json(self.path / name, value)

    def read(self, name: str) -> Any:
        """The value in a JSON file, None if there is no such file. Raises RiyazError for a damaged one."""
        path = self.path / name
        return read_json(path, DAMAGED) if path.exists() else None

    def settings(self) -> Settings:
        """The settings of the comparison. Raises RiyazError naming the place that is wrong."""
        path = self.path / "settings.json"
        return from_json(Settings, read_json(path, DAMAGED), str(path), DAMAGED, unknown=True)

    def save_split(self, split: Split) -> list[str]:
        """Write the rows of every part; returns the parts' names, FINAL last."""
        parts = {f"fold-{i + 1}": fold for i, fold in enumerate(split.folds)} | {FINAL: split}
        for path in (self.path / "split").glob("fold-*"):
            if path.name not in parts:
                remove(path)
        for name, part in parts.items():
            for rows in ("train", "valid", "test"):
                write_lines(
                    self.path / "split" / name / f"{rows}.jsonl", (row.to_record() for row in getattr(part, rows))
                )
        return list(parts)

    def collection(self) -> Path | None:
        """The path of the document index, None if there is none."""
        path = self.path / COLLECTION
        return path if path.exists() else None

    def rows(self, part: str, which: str) -> tuple[Example, ...]:
        """The rows of one part; `which` is train, valid or test."""
        return read_examples(self.path / "split" / part / f"{which}.jsonl", DAMAGED)

    def part(self, name: str, part: str) -> Path:
        """The folder of one part of the arm of this name."""
        return self._made.get((name, part), self.path / "arms" / name / part)

    def base(self, base: str | None) -> Path:
        """The folder of what was measured of a base; None: of the only one."""
        return self._measured if base is None else self._measured / "bases" / base


def _add_new_options(stored: Any, now: dict[str, Any]) -> None:
    """Add the options to stored settings that riyaz did not have when it wrote them, with their defaults, so that the
    same command continues the comparison."""
    defaults = {option.name: option.default for config in CONFIGS for option in fields(config)}
    if isinstance(stored, dict) and isinstance(stored.get("task"), dict):
        stored["task"].setdefault("questions", [])
        for key in ("schema", "max_words", "max_new_tokens"):
            stored["task"].setdefault(key, getattr(Task, key))
    defaults.pop("lookup")  # drafts change no answer: whatever the command says now
    for part in ("reading", "settings"):
        if isinstance(stored, dict) and isinstance(stored.get(part), dict):
            for key in now[part].keys() - stored[part].keys():
                stored[part][key] = defaults.get(key, now[part][key])
            columns = stored[part].get("columns")
            if isinstance(columns, dict):
                for key, value in json.loads(json.dumps(asdict(Reading("")))).items():
                    columns.setdefault(key, value)


def _differences(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two settings, in the words of the command line: data, model, methods, budget, …"""
    settings = [key for part in ("reading", "settings") for key in now[part] if stored[part].get(key) != now[part][key]]
    sections = [
        key
        for key in ("data", "documents", "teacher", "model", "models", "methods", "artifact")
        if stored.get(key) != now.get(key)
    ]
    sections = [key for key in sections if key != "models" or "model" not in sections]
    names = sections + [key.replace("_", " ") for key in settings]
    return names or sorted(key for key in {*stored, *now} if stored.get(key) != now.get(key))


def megabytes(folder: Path) -> float:
    """Size of all files below a folder, in MB of 2**20 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
