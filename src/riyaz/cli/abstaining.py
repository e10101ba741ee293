"""`riyaz run --abstain`: withhold answers that are likely wrong, by what `riyaz limits` measured of the artifact."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from riyaz.data import Example
    from riyaz.predictor import Prediction, Predictor

CONFIDENCE = "confidence"


@dataclass(frozen=True)
class Abstaining:
    """Answers below this probability of being right are withheld;
    the threshold was set on so many rows."""

    temperature: float
    threshold: float
    rows: int
    served: str | None = None  # how weights were held when it was set

    @property
    def note(self) -> str:
        """One line on what a blank answer means."""
        return f"blank: less sure than {self.threshold:.3f}, a threshold set on {self.rows:,} rows"

    def sure(
        self, predictor: "Predictor", predictions: "Sequence[Prediction]", rows: "Sequence[Example]"
    ) -> "list[Prediction]":
        """The predictions, each with its log-probability."""
        from riyaz.limits.ask import nats_of

        assert predictor.has_model  # else nothing was calibrated
        nats = nats_of(predictor, predictions, [row.messages for row in rows], [row.where for row in rows])
        return [replace(each, log_probability=float(value)) for each, value in zip(predictions, nats, strict=True)]

    def probability(self, prediction: "Prediction") -> float:
        """How likely the answer is right, from 0 to 1."""
        import numpy as np

        from riyaz.metrics.selective import probability

        assert prediction.log_probability is not None
        return float(probability(np.array([prediction.log_probability]), self.temperature)[0])

    def text(self, prediction: "Prediction") -> str:
        """The answer, or nothing where it is withheld."""
        return prediction.text if self.probability(prediction) >= self.threshold else ""


def held_alike(predictor: "Predictor", withheld: Abstaining | None) -> "Predictor":
    """The predictor. Raises RiyazError where it holds its weights otherwise than when the threshold was set, as it is
    then more or less sure of the same answers."""
    if withheld is None:
        return predictor
    held = predictor.served
    if held != withheld.served:
        what = f"the threshold was set with weights as {withheld.served}, and they are held as {held} here"
        raise RiyazError(what, "--abstain", "give both commands the same --precision, or run riyaz limits again")
    return predictor


def abstaining(target: str, error: float | None) -> Abstaining | None:
    """How answers are withheld so that about this share of the others is wrong; None if none are. Raises RiyazError
    where that was not measured, or cannot be reached."""
    if error is None:
        return None
    if not 0 <= error < 1:
        raise RiyazError(
            f"{error:g} is no share of wrong answers", "--abstain", "give a number from 0 to 1, such as 0.05"
        )
    from riyaz.limits.limits_file import read_limits
    from riyaz.metrics.selective import threshold_for

    limits = read_limits(target)
    abstention = limits.abstention if limits else None
    if limits is None or abstention is None:
        hint = f"run riyaz limits {target} --suite truth --rows FILE first"
        raise RiyazError("the confidence of its answers was not measured", target, hint)
    threshold = threshold_for(abstention.thresholds, error)
    if threshold is None:
        least = min(risk for _, risk in abstention.thresholds)
        what = f"with any threshold at least {least:.0%} of its answers are wrong"
        raise RiyazError(what, target, f"give --abstain {least:.2f} or more, or train it further")
    return Abstaining(abstention.temperature, threshold, abstention.rows, limits.served)
