"""What the suites measure on: a predictor, sets of pairs and questions, the user's rows and documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from riyaz.config.limits import LimitsConfig
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.limits.bbq import Questions
from riyaz.limits.pairs import PairSet
from riyaz.limits.truths import ClaimSet
from riyaz.predictor import ModelPredictor, Predictor
from riyaz.retrieval.documents import Document

NO_MODEL = "no language model answers, so there are no log-probabilities to compare"
NO_ROWS = "no rows of your own: name a file with --rows"


@dataclass(frozen=True)
class Rows:
    """The user's rows: those that thresholds are set on, those that are measured, and the task that scores them."""

    task: Task
    calibrate: tuple[Example, ...]
    test: tuple[Example, ...]
    source: str


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that is measured on; `answering` answers the user's rows, and is the predictor where it has a task."""

    predictor: Predictor
    config: LimitsConfig
    pairs: Sequence[PairSet] = ()
    questions: Sequence[Questions] = ()
    claims: Sequence[ClaimSet] = ()
    answering: Predictor | None = None
    rows: Rows | None = None
    documents: Mapping[str, Document] = field(default_factory=dict)
    parameters: int | None = None
    training_seconds: float | None = None

    @property
    def model(self) -> ModelPredictor | None:
        """The predictor where it has a model."""
        return self.predictor if self.predictor.has_model else None


@dataclass(frozen=True)
class Work:
    """What a suite has to do: tokens to read, tokens to write, and own rows to answer."""

    read: float = 0.0
    written: float = 0.0
    rows: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.read + other.read, self.written + other.written, self.rows + other.rows)


@dataclass(frozen=True)
class Speed:
    """Tokens read and written per second, and seconds to answer one of the user's rows."""

    read: float
    written: float
    row: float = 0.0

    def seconds(self, work: Work) -> float:
        """How long the work takes."""
        return work.read / self.read + work.written / self.written + work.rows * self.row
