"""Results for each of a task's questions, in compare.json and predictions.jsonl."""

from dataclasses import dataclass, field

from riyaz.data.questions import QuestionType
from riyaz.json_files import OPTIONAL
from riyaz.results.calibration import Calibration


@dataclass(frozen=True)
class DecidedAnswer:
    """The answer of a row to one question: the place of the right choice and the points, None where it is not known,
    and the probability of every choice."""

    right: int | None
    points: float | None
    probabilities: list[float]


@dataclass(frozen=True)
class QuestionScore:
    """How an arm answers one question on the `n` test rows that have its answer: mean points with their 95 % interval,
    AUROC, and how true the probabilities are."""

    name: str
    type: QuestionType
    n: int
    score: float | None = None  # 0 to 1; None without such a row
    ci_low: float | None = None
    ci_high: float | None = None
    auroc: float | None = None
    calibration: Calibration | None = field(default=None, metadata=OPTIONAL)
