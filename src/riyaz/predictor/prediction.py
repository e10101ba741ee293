"""A predictor's answer: a whole text, or a stream of its pieces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from riyaz.data.questions import answers_text
from riyaz.predictor.decided import Decided

if TYPE_CHECKING:
    import numpy as np

    from riyaz.retrieval.search import Hit


@dataclass(frozen=True)
class AnswerPair:
    """Log-probabilities of a better and a worse answer in nats, end token included, their tokens, and the same two of
    the base model, where the weights are others."""

    better: float
    worse: float
    better_tokens: int
    worse_tokens: int
    base: tuple[float, float] | None = None


@dataclass(frozen=True)
class Reward:
    """How much likelier than by the base, in nats, an answer is, end token included, and another row's answer to the
    same prompt; both 0 where the weights are the base's."""

    own: float
    other: float


@dataclass(frozen=True)
class Prediction:
    """An answer; `citations` names the documents whose passages were in its prompt.

    `log_probability` of a label or a span is in nats, with the end token and before calibration; None for a generated
    or copied answer. `confidence` is the calibrated probability that the answer is right, `runner_up` the label that
    comes next, `probabilities` (L,) float32 those of the task's labels in their order; None where they are not known.
    `decided` are the answers to the task's questions, which the text holds as JSON. `accepted_log_probability` is that
    of the row's accepted answer, where the metric needs it, `pair` what it needs of a better and a worse answer, and
    `reward` what it needs of one that is good or bad.
    """

    text: str
    log_probability: float | None = None
    citations: tuple[dict, ...] = ()
    confidence: float | None = None
    runner_up: str | None = None
    probabilities: "np.ndarray | None" = field(default=None, compare=False)
    decided: tuple[Decided, ...] = field(default=(), compare=False)
    accepted_log_probability: float | None = field(default=None, compare=False)
    pair: "AnswerPair | None" = field(default=None, compare=False)
    reward: "Reward | None" = field(default=None, compare=False)


def label_prediction(labels: Sequence[str], scores: "np.ndarray", probabilities: "np.ndarray") -> Prediction:
    """The prediction of the label with the highest of `scores` (L,), its calibrated probability in four decimals, and
    the label with the second highest."""
    best, *second = (-scores).argsort(kind="stable")[:2].tolist()
    confidence = round(float(probabilities[best]), 4)
    runner_up = labels[second[0]] if second else None
    return Prediction(labels[best], confidence=confidence, runner_up=runner_up, probabilities=probabilities)


def decided_prediction(decided: Sequence[Decided]) -> Prediction:
    """The prediction of the answers to a task's questions."""
    questions = [each.question for each in decided]
    places = [each.answer_place for each in decided]
    return Prediction(answers_text(questions, places), decided=tuple(decided))


@dataclass(frozen=True)
class Timing:
    """When the tokens of a generated answer came: `times` fills with the moments, in seconds, at which its prompt was
    queued and at which each token was there."""

    prompt_tokens: int
    times: list[float] = field(default_factory=list)

    @property
    def prompt_s(self) -> float | None:
        """Seconds until the first token; None before it."""
        return self.times[1] - self.times[0] if len(self.times) > 1 else None

    @property
    def tokens_s(self) -> float | None:
        """Tokens a second after the first one; None where there are none."""
        taken = self.times[-1] - self.times[1] if len(self.times) > 2 else 0.0
        return (len(self.times) - 2) / taken if taken > 0 else None


@dataclass(frozen=True, eq=False)
class Stream:
    """An iterator over the pieces of an answer's text, while it is generated; joined they are the answer.

    `passages`, those in the prompt, are available before the first piece. `tokens` and `timing` fill while a generated
    answer is made, up to `limit`; a copied or chosen answer has none.
    """

    pieces: Iterator[str]
    passages: "tuple[Hit, ...]" = ()
    tokens: Sequence[int] = ()
    limit: int = 0
    timing: Timing | None = None

    def __iter__(self) -> Iterator[str]:
        return self.pieces

    @property
    def cut(self) -> bool:
        """Whether the limit ended the answer; known after the last piece."""
        return 0 < self.limit <= len(self.tokens)

    @property
    def citations(self) -> tuple[dict, ...]:
        """The document and the position in it of each passage."""
        return citations(self.passages)


def citations(passages: "tuple[Hit, ...]") -> tuple[dict, ...]:
    """The document and the position in it of each passage."""
    if not passages:
        return ()
    from riyaz.retrieval.search import citation

    return tuple(map(citation, passages))
