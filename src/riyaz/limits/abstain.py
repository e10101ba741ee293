"""Knowing when not to answer, on the user's rows: a label's calibrated confidence, or an answer's log-probability.

A temperature and thresholds are set on the calibration rows (of a comparison its validation rows), and judged on the
others.
"""

from collections.abc import Sequence

import numpy as np

from riyaz.data import Example
from riyaz.limits.ask import answers_with_nats
from riyaz.limits.figures import share_of
from riyaz.limits.inputs import Rows
from riyaz.limits.sampled import sampled, short_of
from riyaz.metrics.calibration import error_interval, expected_calibration_error
from riyaz.metrics.groups import group_numbers, within
from riyaz.metrics.intervals import wilson
from riyaz.metrics.selective import (
    aurc,
    aurc_interval,
    curve_points,
    fit_temperature,
    probability,
    risk_coverage,
    threshold_for,
    thresholds,
)
from riyaz.predictor import ModelPredictor, Prediction
from riyaz.results import Abstention, Curve, Figure, Part
from riyaz.scoring import score

LEAST = 40
ERROR = 0.05  # share of wrong answers that is aimed at
RIGHT = 0.5  # an answer counts as right from this score on; 0/1 metrics are not changed by it
BLIND = (
    "Rows like the calibration rows. On other questions a model can be sure and wrong; the log-probability says how "
    "usual an answer is for the model, not why."
)


def measure(answering: ModelPredictor, data: Rows, share: float) -> tuple[Part, Abstention]:
    """Risk by coverage, coverage at 5 % error and the calibration error before and after a temperature."""
    parts = [sampled(rows, share, LEAST) for rows in (data.calibrate, data.test)]
    (set_nats, set_right), (nats, right) = (_sure(answering, data, rows) for rows in parts)
    temperature = fit_temperature(set_nats, set_right)
    limits = thresholds(probability(set_nats, temperature), ~set_right)
    p, wrong = probability(nats, temperature), ~right
    clusters = group_numbers([row.group for row in parts[1]])
    figures = [
        area_under_risk("area under risk–coverage (AURC)", p, wrong, clusters),
        _calibration("calibration error before temperature", probability(nats, 1.0), right, clusters),
        _calibration("calibration error after temperature", p, right, clusters),
        *_at_error(p, wrong, threshold_for(limits, ERROR), clusters),
    ]
    risk = risk_coverage(p, wrong)
    curve = Curve("risk by coverage", "share of answers given", "share of them wrong", curve_points(risk))
    figures.insert(0, share_of("right, when all are answered", right, clusters=clusters))
    what = (
        f"{len(parts[1]):,} of {len(data.test):,} of your rows, with a temperature of {temperature:.3g} and "
        f"thresholds from {len(parts[0]):,} others. Confidence: the calibrated one of a label, the log-probability of "
        "a span, and the mean per token of a written answer. AURC: the mean share of wrong answers over all coverages; "
        "guessing when to be sure gives the share of wrong answers."
    )
    notes = short_of(len(parts[1]), len(data.test), "rows")
    if data.task.metric not in ("accuracy", "exact_match"):
        notes.append(f"An answer counts as right from a {data.task.metric} of {RIGHT} on.")
    part = Part("when to abstain", data.source, what, figures, BLIND, notes, [curve])
    return part, Abstention(temperature, len(parts[0]), limits)


def _sure(answering: ModelPredictor, data: Rows, rows: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and whether each answer is right (n,)."""
    texts, nats = answers_with_nats(answering, [row.messages for row in rows], [row.where for row in rows])
    return nats, score(data.task, [Prediction(text) for text in texts], rows).rows >= RIGHT


def _at_error(p: np.ndarray, wrong: np.ndarray, threshold: float | None, clusters: np.ndarray | None) -> list[Figure]:
    name = f"answered, aiming at {ERROR:.0%} wrong"
    if threshold is None:
        return [Figure(name, 0.0, *wilson(0, len(p)), len(p))]
    above = p >= threshold
    return [
        share_of(name, above, clusters=clusters),
        *(
            [share_of("wrong among those", wrong[above], even=ERROR, clusters=within(clusters, above))]
            if above.any()
            else []
        ),
    ]


def _calibration(name: str, p: np.ndarray, right: np.ndarray, clusters: np.ndarray | None) -> Figure:
    """The expected calibration error, 15 bins of equal mass, with its interval."""
    ends = error_interval(p, right, clusters)
    return Figure(name, expected_calibration_error(p, right), *ends, len(p), "share")


def area_under_risk(name: str, confidence: np.ndarray, wrong: np.ndarray, clusters: np.ndarray | None) -> Figure:
    """The area under the risk–coverage curve, with its interval over rows or `clusters` (n,)."""
    ends = aurc_interval(confidence, wrong, clusters)
    return Figure(name, aurc(confidence, wrong), *ends, len(wrong), "score", even=float(wrong.mean()))
