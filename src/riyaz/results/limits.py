"""limits.json: what a model or an artifact cannot do, as it was measured.

Every suite has parts, and every part has figures of one form, so that a terminal, a page and a card show them alike.
None means "not measured".
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from riyaz.json_files import OPTIONAL
from riyaz.results.documents import read_document

LIMITS = "limits.json"
SUITES = ("bias", "truth", "context", "cost", "fragile")
AGAIN = "remove it and run riyaz limits again"

Unit = Literal[
    "share", "score", "nats", "seconds", "ms", "tokens", "MB", "J", "FLOP", "money", "g", "count", "rows", ""
]


@dataclass(frozen=True)
class Figure:
    """One measured figure of a group, with its 95 % interval, from `n` measurements; `p_value` is two-sided.

    `even` is the value where nothing is found: 0.5 of a preference, or what guessing scores.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: Unit = "share"
    group: str = "all"
    even: float | None = field(default=None, metadata=OPTIONAL)
    p_value: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Curve:
    """A line of points (x, y) with the names of its axes; `unit` is that of y."""

    name: str
    x: str
    y: str
    points: list[tuple[float, float]]
    unit: Unit = "share"


@dataclass(frozen=True)
class Part:
    """One measurement: what was asked, of what it was asked, its figures, and what it cannot see."""

    name: str
    source: str
    what: str
    figures: list[Figure]
    blind: str
    notes: list[str] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)


@dataclass(frozen=True)
class Abstention:
    """How an answer's log-probability becomes a probability of being right, and which answers to withhold.

    The probability is exp(log-probability / temperature). `thresholds` are pairs of (probability, share of wrong
    answers among those at or above it) on the calibration rows, highest first.
    """

    temperature: float
    rows: int
    thresholds: list[tuple[float, float]]


@dataclass(frozen=True)
class Suite:
    """The parts of a suite, or what was left out and why."""

    name: str
    parts: list[Part] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    abstention: Abstention | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Limits:
    """limits.json: the suites of one model or artifact, and with what they were measured."""

    target: str
    sha256: str | None
    suites: list[Suite]
    served: str | None = None
    budget_seconds: float | None = None
    estimate_seconds: float | None = None
    seconds: float | None = None
    date: str | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    version: str = ""
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path) -> "Limits":
        """The limits in a limits.json. Raises RiyazError naming the invalid field."""
        return read_document(cls, path, AGAIN)

    @property
    def abstention(self) -> Abstention | None:
        """How answers are withheld, where that was measured."""
        return next((suite.abstention for suite in self.suites if suite.abstention), None)
