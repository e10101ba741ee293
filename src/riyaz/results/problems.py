"""problems.json: rows of the user's files that may be wrong, labels that are mixed up, and what was not checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from riyaz.json_files import OPTIONAL
from riyaz.results.documents import read_document

PROBLEMS, PROBLEMS_TABLE = "problems.json", "problems.csv"

ProblemKind = Literal[
    "wrong label",  # another label is far likelier by the other rows
    "other answer",  # an earlier row has the same prompt and another answer
    "near-duplicate",  # another row has nearly the same prompt and another label
    "spelling",  # the label is a rarer spelling of another one
    "unseen label",  # a test row whose label no training row has
    "test copy",  # a training row whose prompt is also in the test
    "repeat",  # an earlier row has the same prompt and the same answer
]


@dataclass(frozen=True)
class RowProblem:
    """One row that may be wrong, the row that it contradicts or repeats, and the label that others suggest."""

    problem: ProblemKind
    where: str  # path and line, "data/train.jsonl:17"
    prompt: str
    label: str
    suggested: str | None = field(default=None, metadata=OPTIONAL)
    probability: float | None = field(default=None, metadata=OPTIONAL)  # of the suggested label
    label_probability: float | None = field(default=None, metadata=OPTIONAL)  # of the row's own label
    other: str | None = field(default=None, metadata=OPTIONAL)  # path and line of the other row
    similarity: float | None = field(default=None, metadata=OPTIONAL)  # cosine of the two prompts


@dataclass(frozen=True)
class MixedLabels:
    """Two labels, the rows of both, and how many of them a classifier that has not seen the row gives to the other."""

    labels: tuple[str, str]
    mixed: int
    rows: int


@dataclass(frozen=True)
class RowProblems:
    """The output of `quality.examine`; `unchecked` says in a sentence each what was not looked at, and why."""

    rows: list[RowProblem] = field(default_factory=list)
    mixed_labels: list[MixedLabels] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    schema: Literal[1] = 1

    def of(self, kind: ProblemKind) -> list[RowProblem]:
        """The rows with one kind of problem, the likeliest first."""
        return [row for row in self.rows if row.problem == kind]

    @classmethod
    def read(cls, path: Path) -> "RowProblems":
        """The values of a problems.json. Raises RiyazError naming the invalid field."""
        return read_document(cls, path, "remove it and run riyaz compare again")


@dataclass(frozen=True)
class NextRow:
    """An unlabelled row that is worth a label: its likeliest label and that label's probability."""

    where: str
    prompt: str
    guess: str
    probability: float
