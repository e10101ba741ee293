"""Answering only when sure: risk and coverage, calibration error, temperature and thresholds of a confidence."""

from math import exp, log

import numpy as np
from scipy.optimize import minimize_scalar

from riyaz.metrics.intervals import CONFIDENCE, resample_counts

BINS = 15  # of the calibration error, as Guo et al. 2017 (arXiv 1706.04599)
DRAWS = 1_000
_COLDEST, _HOTTEST = log(0.01), log(1000.0)  # log of the temperatures that are searched
_SMALL = 1e-6


def risk_coverage(confidence: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The share of wrong answers among the k surest, for k = 1…n: (n,). Equally sure answers come in every order, so
    each has the mean of its group."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, errors = confidence[order], wrong[order].astype(float)
    starts = np.flatnonzero(np.r_[True, np.diff(sorted_confidence) != 0])
    sizes = np.diff(np.r_[starts, len(errors)])
    means = np.add.reduceat(errors, starts) / sizes
    return np.cumsum(np.repeat(means, sizes)) / np.arange(1, len(errors) + 1)


def aurc(confidence: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the risk–coverage curve (Geifman and El-Yaniv 2017): the mean risk over all coverages; a
    confidence that says nothing has the error rate."""
    return float(risk_coverage(confidence, wrong).mean())


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over BINS equal bins, by rows."""
    places = np.minimum((p * BINS).astype(int), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sure, good = (np.bincount(places, weights=each, minlength=BINS) for each in (p, right.astype(float)))
    return float(np.abs(sure - good).sum() / counts.sum())


def probability(nats: np.ndarray, temperature: float) -> np.ndarray:
    """exp(log-probability / temperature), (n,)."""
    return np.exp(np.minimum(nats, 0.0) / temperature)


def fit_temperature(nats: np.ndarray, right: np.ndarray) -> float:
    """The temperature with which exp(nats / temperature) fits the answers that are right best, by log-likelihood."""
    good = right.astype(bool)

    def loss(log_temperature: float) -> float:
        p = np.clip(probability(nats, exp(log_temperature)), _SMALL, 1 - _SMALL)
        return -float(np.log(np.where(good, p, 1 - p)).mean())

    return exp(float(minimize_scalar(loss, bounds=(_COLDEST, _HOTTEST), method="bounded").x))


def thresholds(p: np.ndarray, wrong: np.ndarray, most: int = 200) -> list[tuple[float, float]]:
    """(probability, share of wrong answers at or above it), highest first, at every different one, at most `most`."""
    order = np.argsort(-p, kind="stable")
    values, risk = p[order], np.cumsum(wrong[order].astype(float)) / np.arange(1, len(p) + 1)
    ends = np.flatnonzero(np.r_[np.diff(values) != 0, True])
    if len(ends) > most:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, most).round().astype(int))]
    return [(float(values[i]), float(risk[i])) for i in ends]


def threshold_for(pairs: list[tuple[float, float]], error: float) -> float | None:
    """The lowest probability at or above which at most this share of answers was wrong; None where there is none."""
    fitting = [value for value, risk in pairs if risk <= error]
    return min(fitting, default=None)


def percentiles(statistic: np.ndarray) -> tuple[float, float]:
    """Both ends of the 95 % percentile interval of the resampled values of a statistic (D,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(statistic, (tail, 1 - tail))
    return float(low), float(high)


def draws(n: int, seed: int = 0) -> list[np.ndarray]:
    """DRAWS bootstrap samples of the indices 0…n-1."""
    return [
        np.repeat(np.arange(n), counts.astype(int)) for chunk in resample_counts(n, DRAWS, seed) for counts in chunk
    ]
