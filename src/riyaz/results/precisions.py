"""One model in several precisions, as result files have it, and the smallest whose right answers are as likely."""

from collections.abc import Sequence
from dataclasses import dataclass

BOUND = 0.01  # nats by which right answers may be less likely, at the upper 95 % bound


@dataclass(frozen=True)
class PrecisionScore:
    """A model with its weights in `precision` on validation rows: how much less likely its right answers are than the
    reference's, in nats, and what it takes. Nats are those of a label, or of a token of a text."""

    precision: str
    served: str  # as `ArmResult.served`
    mb: float  # of the weights in memory
    nats: float  # −log p of the right answers
    worse_by: float  # mean difference from the reference on the same rows
    at_most: float | None  # its upper 95 % bound; None for fewer than two rows
    rows: int
    ms_per_answer: float
    score: float | None = None  # by the task's metric, on the few rows that were timed


def in_words(served: str | None) -> str:
    """How a model's weights were held, for readers: `int4, as in its file` for the recorded `int4 as stored`."""
    return (served or "an unknown precision").replace(" as stored", ", as in its file")


def smallest_precision(scores: Sequence[PrecisionScore]) -> PrecisionScore:
    """The one with the smallest weights of those whose upper bound is at most BOUND; else the first, the reference."""
    return min([scores[0], *_passed(scores)], key=lambda each: each.mb)


def smallest_merged(scores: Sequence[PrecisionScore]) -> PrecisionScore | None:
    """The smallest of the merged models whose upper bound is at most BOUND; the first is the reference, which is not
    merged."""
    return min(_passed(scores), key=lambda each: each.mb, default=None)


def _passed(scores: Sequence[PrecisionScore]) -> list[PrecisionScore]:
    return [each for each in scores[1:] if each.at_most is not None and each.at_most <= BOUND]
