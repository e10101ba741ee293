"""What an arm's row says of other models: the teacher it learned from, and the artifact it goes on from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Teacher:
    """What an arm has learned from, and where both have answered `rows` test rows the teacher's score, the arm's own
    (`student`) and by how much it is higher, with the 95 % interval."""

    name: str
    prompts: int
    answered: int  # of the prompts, in a usable way
    soft: bool  # whether the arm has learned what the teacher predicted, and not only its texts
    seconds: float  # that the answers took
    ms_per_answer: float | None = None
    rows: int = 0
    score: float | None = None
    student: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class EarlierTask:
    """Mean scores on `rows` rows of an earlier task: of the artifact from which training went on, and of the new one,
    with the 95 % interval of the difference; and how many of the rows one of them has learned."""

    metric: str
    before: float
    after: float
    low: float
    high: float
    rows: int
    learned: int = 0
