"""How sure a classifier is, and how true that is: probabilities of labels at a temperature, and what they miss.

n rows, L labels; `accepted` (n, L) says which labels are right for a row, and may name none or several. Of several the
likeliest is the right one.
"""

from math import exp, log, sqrt

import numpy as np

from riyaz.metrics.groups import clustered_error, quantile
from riyaz.metrics.intervals import CONFIDENCE
from riyaz.metrics.selective import DRAWS, percentiles

BINS = 15  # of equal mass
WIDE = 1.96  # standard errors on each side of a 95 % interval
LEAST = 1e-6  # a lower probability of the right label counts as this in the log-loss
_CHUNK, _OUTCOMES = 50, 500_000  # simulated samples in memory at once, and at most their outcomes
_COLDEST, _HOTTEST = log(0.01), log(1000.0)  # log of the temperatures that are searched


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax of scores / temperature over the labels, (n, L) float32."""
    scaled = np.asarray(scores, np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """The logarithm of the softmax over the last axis, float64."""
    scores = np.asarray(scores, np.float64)
    log_p: np.ndarray = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    return log_p


def fit_temperature(scores: np.ndarray, accepted: np.ndarray) -> float:
    """The temperature with the lowest log-loss on held-out rows (Guo et al. 2017, arXiv 1706.04599); 1 without rows.

    Of each row 1 / (n + 2) counts as if the best other label were right (Platt 1999): a few rows that are all answered
    right would else give certainty.
    """
    from scipy.optimize import minimize_scalar  # late: whoever answers needs no fitting

    scores, accepted = np.asarray(scores, np.float64), np.asarray(accepted, bool)
    known = accepted.any(axis=1) & ~accepted.all(axis=1)
    scores, accepted = scores[known], accepted[known]
    if not len(scores):
        return 1.0
    right, other = (np.where(mask, scores, -np.inf).max(axis=1) for mask in (accepted, ~accepted))
    share = 1 / (len(scores) + 2)
    target = (1 - share) * right + share * other

    def loss(log_temperature: float) -> float:
        temperature = exp(log_temperature)
        return float((np.logaddexp.reduce(scores / temperature, axis=1) - target / temperature).mean())

    return exp(float(minimize_scalar(loss, bounds=(_COLDEST, _HOTTEST), method="bounded").x))


def right_probability(p: np.ndarray, accepted: np.ndarray) -> np.ndarray:
    """The probability of each row's right label, (n,); 0 where it is none of the labels."""
    return np.where(accepted, p, 0.0).max(axis=1, initial=0.0)


def log_losses(right: np.ndarray) -> np.ndarray:
    """Each row's log-loss in nats, (n,), from the probability of its right label."""
    return -np.log(np.maximum(right, LEAST))


def brier_scores(p: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Each row's squared distance of the probabilities (n, L) from 1 for the right label and 0 for the others (Brier
    1950), (n,) from 0 to 2; `right` (n,) is the probability of the right label."""
    return np.square(p, dtype=np.float64).sum(axis=1) - 2 * right + 1


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error, BINS bins of equal mass: the mean over rows of |mean confidence − accuracy| of their
    bin, where the rows are sorted by the confidence of the answer (Naeini et al. 2015; equal mass: Nixon et al. 2019,
    arXiv 1904.01685). Fewer bins than BINS for fewer rows."""
    return float(_Ties(confidence).errors(np.asarray(correct, np.float64)[None])[0])


def error_by_chance(confidence: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % band of the expected calibration error that a perfectly calibrated classifier has with these confidences:
    each answer is right with its own confidence, simulated DRAWS times."""
    generator, n, ties = np.random.default_rng(seed), len(confidence), _Ties(confidence)
    step = min(_CHUNK, max(1, _OUTCOMES // max(1, n)))
    sizes = [min(step, DRAWS - start) for start in range(0, DRAWS, step)]
    return percentiles(np.concatenate([ties.errors(generator.random((size, n)) < confidence) for size in sizes]))


def error_interval(
    confidence: np.ndarray, correct: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """95 % interval of the expected calibration error. Chance makes a sample's error larger, by at most what a
    calibrated classifier has by chance, or smaller, by at most the sampling error of the mean of correct − confidence;
    where rows share `groups` (n,), both grow with the standard error over groups. A bootstrap would add the chance of
    each resample: where the error is .03, its interval never held that."""
    error, (_, chance) = expected_calibration_error(confidence, correct), error_by_chance(confidence)
    gaps = np.asarray(correct, np.float64) - confidence
    alone = float(gaps.std()) / sqrt(len(gaps))
    spread, wide = alone, WIDE
    if groups is not None:
        spread, wide = max(alone, clustered_error(gaps, groups)), quantile(groups, (1 + CONFIDENCE) / 2)
    return max(0.0, error - chance * (spread / alone if alone else 1)), min(1.0, error + wide * spread)


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean confidence, share that is right, rows) of each bin of the expected calibration error, least sure first."""
    order = np.argsort(confidence, kind="stable")
    bins = np.split(order, _starts(len(order))[1:])
    return [(float(confidence[rows].mean()), float(correct[rows].mean()), len(rows)) for rows in bins]


def _starts(n: int) -> np.ndarray:
    """Where each bin of n sorted rows begins."""
    return np.unique(np.linspace(0, n, min(BINS, n) + 1).round().astype(int))[:-1]


class _Ties:
    """Rows sorted by their confidence (n,). Equally sure ones come in every order, so each counts as the mean of its
    group."""

    def __init__(self, confidence: np.ndarray) -> None:
        self.order = np.argsort(confidence, kind="stable").astype(np.int32)
        self.sure = np.asarray(confidence, np.float64)[self.order]
        self.starts = np.flatnonzero(np.r_[True, np.diff(self.sure) != 0])
        self.sizes = np.diff(np.r_[self.starts, len(self.sure)])

    def errors(self, correct: np.ndarray) -> np.ndarray:
        """The expected calibration error (D,) of each of D outcomes `correct` (D, n) of the rows."""
        gaps = correct[:, self.order] - self.sure
        means = np.add.reduceat(gaps, self.starts, axis=1)
        means /= self.sizes
        del gaps  # of millions of rows
        gaps = np.repeat(means, self.sizes, axis=1)
        return np.abs(np.add.reduceat(gaps, _starts(len(self.sure)), axis=1)).sum(axis=1) / len(self.sure)
