"""measured.json: the measured speeds from which the plan estimates every arm."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from riyaz.comparison.folder import DAMAGED
from riyaz.errors import RiyazError
from riyaz.json_files import OPTIONAL, from_json, read_json

MEASURED = "measured.json"
LARGEST = 1e9  # seconds or MB; a larger number in a file is a mistake


@dataclass(frozen=True)
class AnswerSpeed:
    """Seconds that one method needs to answer and to be evaluated."""

    row_seconds: float  # one row in a batch
    answer_seconds: float  # one row alone
    loss_seconds: float  # the log-loss of one accepted answer
    choose_seconds: float  # all choices that `fit` makes on validation rows
    load_seconds: float  # opening the model, and the index if there is one
    look_seconds: float  # one test row of the evaluation of retrieval
    merge_seconds: float = 0.0  # measuring an adapter merged into the weights, in several precisions
    # of `fit` without a recipe, where it needs more than answering does
    rss_mb: float = 0.0
    disk_mb: float = 0.0

    def __post_init__(self) -> None:
        """Raises RiyazError for a number out of range."""
        _check_numbers(self)


JOINING = 2.0  # seconds of a fit that joins artifacts: it reads and copies files
COPIED = 0.25  # disk of the copies / disk that the fits took, whose checkpoints are larger


def joint_speed(parts: Iterable[AnswerSpeed]) -> AnswerSpeed:
    """The speed of a method whose every answer takes one of each of the `parts`, which are fitted already."""
    both = list(parts)
    names = ("row_seconds", "answer_seconds", "loss_seconds", "load_seconds", "disk_mb")
    row, alone, loss, load, disk = (sum(getattr(part, name) for part in both) for name in names)
    return AnswerSpeed(row, alone, loss, choose_seconds=JOINING, load_seconds=load, look_seconds=0.0,
                       disk_mb=COPIED * disk)  # fmt: skip


@dataclass(frozen=True)
class TrainSpeed:
    """Seconds, memory and disk that the training of one method needs."""

    step_seconds: float  # one step on rows of mean length
    validate_seconds: float
    build_seconds: float  # making the model with new trainable parameters
    rss_mb: float  # peak memory
    disk_mb: float  # all files that the training writes
    trainable: int  # parameters

    def __post_init__(self) -> None:
        """Raises RiyazError for a number out of range and for steps that take no time."""
        _check_numbers(self)
        if not self.step_seconds:
            raise RiyazError("0 is out of range", "step_seconds")


@dataclass(frozen=True)
class Speeds:
    """The speeds of this machine with this model on these rows."""

    threads: int
    compute: Literal["bfloat16", "float32"]
    rss_mb: float  # peak memory without training
    start_seconds: float  # starting a process that answers
    base_seconds: float  # comparing one arm with the base: log-loss of general text, distributions of answers
    predict: dict[str, AnswerSpeed]  # by method; on several bases by the arm's name, as all dictionaries below
    arms: dict[str, TrainSpeed]  # those that are trained
    unable: dict[str, str] = field(default_factory=dict)  # why a method could not be measured
    # methods whose speed was not measured, for want of time or where no plan depends on it, but derived from that of
    # another by the tokens of a prompt
    derived: tuple[str, ...] = ()
    torch_seconds: float = 0.0  # that a process takes longer to start if it trains
    # `base_seconds` of each base by name, where these are the speeds on several (`bases.merged`)
    base_seconds_of: dict[str, float] | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        """Raises RiyazError for a number out of range and for no threads."""
        _check_numbers(self)
        if not self.threads:
            raise RiyazError("0 is out of range", "threads")

    @classmethod
    def read(cls, path: Path, methods: Iterable[str], trained: Iterable[str]) -> "Speeds":
        """The speeds in a measured.json, which has all of `methods`, and the training of those in `trained`.

        Raises RiyazError naming the place that is wrong or missing.
        """
        speeds = from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED)
        needed: list[tuple[str, dict[str, Any], Iterable[str]]] = [
            ("predict", speeds.predict, methods),
            ("arms", speeds.arms, trained),
        ]
        for key, measured, names in needed:
            for name in names:
                if name not in measured and name not in speeds.unable:
                    raise RiyazError(f"{key}.{name} is missing", str(path), DAMAGED)
        return speeds


def _check_numbers(value: Any) -> None:
    for entry in fields(value):
        number = getattr(value, entry.name)
        if isinstance(number, int | float) and (number < 0 or (number > LARGEST and entry.name != "trainable")):
            raise RiyazError(f"{number:g} is out of range", entry.name)
