"""Labels that are equally likely over the prompts (batch calibration: Zhou et al. 2024, arXiv 2309.17249).

From a label's score is taken the logarithm of its mean probability over the validation prompts, at the temperature at
which the scores fit best: a model that is too sure of a few labels shows little of the others.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from riyaz.methods.fitting.base import Context
from riyaz.methods.fitting.choices import Choice, label_scores
from riyaz.metrics.calibration import fit_temperature, log_losses, probabilities, right_probability
from riyaz.predictor import ModelPredictor
from riyaz.scoring import accepted_labels

LEAST_SHARE = 1e-6  # of a label among the prompts


@dataclass(frozen=True)
class EvenLabels:
    """What is added to the labels' scores, (L,), and the log-loss (n,) of each row, whose own prompt does not count
    there."""

    offsets: np.ndarray
    losses: np.ndarray

    @property
    def nats(self) -> float:
        """The mean log-loss."""
        return float(self.losses.mean())


def even_labels(scores: np.ndarray, accepted: np.ndarray) -> EvenLabels:
    """The offsets that make labels equally likely, from their scores (n, L) and which of them are right (n, L)."""
    temperature = fit_temperature(scores, accepted)
    p = probabilities(scores, temperature)
    others = (p.sum(0) - p) / max(1, len(p) - 1)  # (n, L) mean over the other prompts
    return EvenLabels(_offsets(p.mean(0), temperature), label_losses(scores + _offsets(others, temperature), accepted))


def _offsets(shares: np.ndarray, temperature: float) -> np.ndarray:
    offsets: np.ndarray = -temperature * np.log(np.maximum(shares, LEAST_SHARE))
    return offsets


def label_losses(scores: np.ndarray, accepted: np.ndarray) -> np.ndarray:
    """The log-loss (n,) of rows by the labels' scores (n, L) at the temperature at which it is lowest."""
    losses: np.ndarray = log_losses(
        right_probability(probabilities(scores, fit_temperature(scores, accepted)), accepted)
    )
    return losses


def lower(losses: np.ndarray, than: np.ndarray) -> tuple[float, float]:
    """By how much the losses (n,) are lower than those of the same rows, and the standard error of that."""
    apart = than - losses
    return float(apart.mean()), float(apart.std(ddof=1) / math.sqrt(len(apart))) if len(apart) > 1 else math.inf


@dataclass(frozen=True)
class Corrected:
    """A predictor whose labels are corrected and have a temperature, and its score on validation; `fields` are those of
    Fitted, `record` entries of what was chosen. For tasks without labels the predictor is the chosen one."""

    predictor: ModelPredictor
    score: float
    fields: dict[str, Any]
    record: dict[str, Any]


def corrected(context: Context, choice: Choice) -> Corrected:
    """The chosen predictor, of a closed set with even labels where the log-loss is lower so by more than a standard
    error."""
    predictor = choice.predictor
    if not predictor.has_labels:
        return Corrected(predictor, choice.score, {"calibrated": False}, {"calibrated": False})
    rows = context.valid[: context.valid_rows]
    accepted, scores = accepted_labels(context.task, rows), label_scores(predictor, rows)
    even, without = even_labels(scores, accepted), label_losses(scores, accepted)
    gain, error = lower(even.losses, without)
    points = choice.score
    if gain > error:
        offsets, scores = tuple((predictor.offsets + even.offsets).tolist()), scores + even.offsets
        predictor = replace(predictor, calibrated=False, label_offsets=offsets)
        points = float(accepted[np.arange(len(rows)), scores.argmax(1)].mean())
    fields = {"calibrated": predictor.calibrated, "label_offsets": predictor.label_offsets,
              "temperature": fit_temperature(scores, accepted)}  # fmt: skip
    record = {"calibrated": predictor.calibrated, "even_labels": gain > error,
              "label_nats": round(float(without.mean()), 6), "even_label_nats": round(even.nats, 6)}  # fmt: skip
    return Corrected(predictor, points, fields, record)
