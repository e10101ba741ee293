"""`riyaz run --abstain`: withhold answers that are likely wrong, by their calibrated confidence; where answers have
none, by what `riyaz limits` measured of the artifact."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from typing import TYPE_CHECKING, ClassVar

from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from riyaz.data import Example
    from riyaz.predictor import Prediction, Predictor

FLAG = "--abstain"


@dataclass
class GivenAnswers:
    """Counts answers of which some may be withheld."""

    rows: int = 0
    answers: int = 0  # that are not blank
    confidence: float = 0.0  # sum over these
    highest: float = 0.0  # confidence of any row

    def add(self, prediction: "Prediction") -> None:
        """Count one answer, after it may have been withheld."""
        sure = prediction.confidence or 0.0
        self.rows, self.highest = self.rows + 1, max(self.highest, sure)
        if prediction.text:
            self.answers, self.confidence = self.answers + 1, self.confidence + sure


@dataclass(frozen=True)
class ByConfidence:
    """Answers are withheld, the least sure first, until at most the share `error` of the others is expected to be
    wrong: each has a calibrated confidence, so no rows with answers are needed."""

    needs_all: ClassVar[bool] = True  # how sure an answer must be depends on all of them

    target: str
    error: float

    def expect_alike(self, predictor: "Predictor") -> None:
        """Every predictor will do: its confidence is calibrated."""

    def with_confidence(
        self, predictor: "Predictor", predictions: "Sequence[Prediction]", rows: "Sequence[Example]"
    ) -> "list[Prediction]":
        """The predictions. Raises RiyazError where one has no confidence."""
        if any(each.confidence is None for each in predictions):
            raise _unmeasured(self.target)
        return list(predictions)

    def least(self, confidences: Iterable[float | None]) -> float:
        """How sure an answer must be, by the confidences of all; infinity where none is to be shown."""
        import numpy as np

        from riyaz.metrics.selective import surest

        confidence = np.fromiter((nan if each is None else each for each in confidences), float)
        count = surest(confidence, self.error)
        return float(np.sort(confidence)[::-1][count - 1]) if count else inf

    def withheld(self, prediction: "Prediction", least: float) -> "Prediction":
        """The prediction, blank where it is less sure than `least`."""
        return prediction if (prediction.confidence or 0) >= least else replace(prediction, text="")

    def note(self, counts: GivenAnswers) -> str:
        """One line on what a blank answer means."""
        blank = f"{counts.rows - counts.answers:,} of {counts.rows:,} answers are blank"
        if counts.answers:
            wrong = 1 - counts.confidence / counts.answers
            return f"{blank}: by their confidence about {wrong:.1%} of the others are wrong"
        highest = counts.highest
        return f"{blank}: the surest is right with probability {highest:.2f}; give {FLAG} {1 - highest:.2f} or more"


@dataclass(frozen=True)
class ByLimits:
    """Answers below this probability of being right are withheld;
    the threshold was set on so many rows."""

    needs_all: ClassVar[bool] = False

    temperature: float
    threshold: float
    rows: int
    served: str | None = None  # how weights were held when it was set

    def expect_alike(self, predictor: "Predictor") -> None:
        """Raises RiyazError for a predictor that holds its weights otherwise than when the threshold was set, as it is
        then more or less sure of the same answers."""
        from riyaz.results import in_words

        held = predictor.served
        if held != self.served:
            what = f"the threshold was set with weights in {in_words(self.served)}; here they are in {in_words(held)}"
            raise RiyazError(what, FLAG, "give both commands the same --precision, or run riyaz limits again")

    def with_confidence(
        self, predictor: "Predictor", predictions: "Sequence[Prediction]", rows: "Sequence[Example]"
    ) -> "list[Prediction]":
        """The predictions, each with how likely it is right, from 0 to 1."""
        from riyaz.limits.ask import nats_of
        from riyaz.metrics.selective import probability

        assert predictor.has_model  # else nothing was calibrated
        nats = nats_of(predictor, predictions, [row.messages for row in rows], [row.where for row in rows])
        sure = probability(nats, self.temperature)
        return [replace(each, confidence=float(p)) for each, p in zip(predictions, sure, strict=True)]

    def least(self, confidences: Iterable[float | None]) -> float:
        """How sure an answer must be: the threshold, whatever the others are."""
        return self.threshold

    def withheld(self, prediction: "Prediction", least: float) -> "Prediction":
        """The prediction, blank where it is less sure than `least`, with its confidence in four decimals."""
        sure = prediction.confidence or 0.0
        return replace(prediction, text=prediction.text if sure >= least else "", confidence=round(sure, 4))

    def note(self, counts: GivenAnswers) -> str:
        """One line on what a blank answer means."""
        return f"blank: less sure than {self.threshold:.3f}, a threshold set on {self.rows:,} rows"


def abstaining(target: str, error: float | None) -> ByConfidence | ByLimits | None:
    """How answers are withheld so that about this share of the others is wrong; None if none are. Raises RiyazError
    where that was not measured, or cannot be reached."""
    if error is None:
        return None
    if not 0 <= error < 1:
        raise RiyazError(f"{error:g} is no share of wrong answers", FLAG, "give a number from 0 to 1, such as 0.05")
    from riyaz.artifact import has_confidence
    from riyaz.limits.limits_file import read_limits
    from riyaz.metrics.selective import threshold_for

    if has_confidence(target):
        return ByConfidence(target, error)
    limits = read_limits(target)
    abstention = limits.abstention if limits else None
    if limits is None or abstention is None:
        raise _unmeasured(target)
    threshold = threshold_for(abstention.thresholds, error)
    if threshold is None:
        least = min(risk for _, risk in abstention.thresholds)
        what = f"with any threshold at least {least:.0%} of its answers are wrong"
        raise RiyazError(what, target, f"give {FLAG} {least:.2f} or more, or train it further")
    return ByLimits(abstention.temperature, threshold, abstention.rows, limits.served)


def _unmeasured(target: str) -> RiyazError:
    hint = f"run riyaz limits {target} --suite truth --rows FILE first"
    return RiyazError("the confidence of its answers was not measured", target, hint)
