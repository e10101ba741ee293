"""Answering only when sure: risk and coverage, temperature and thresholds of a confidence."""

from math import exp, log, sqrt

import numpy as np

from riyaz.metrics.groups import quantile
from riyaz.metrics.intervals import CONFIDENCE, resample_counts

DRAWS = 1_000
_COLDEST, _HOTTEST = log(0.01), log(1000.0)  # log of the temperatures that are searched
_SMALL = 1e-6


def risk_coverage(confidence: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The share of wrong answers among the k surest, for k = 1…n: (n,). Equally sure answers come in every order, so
    each has the mean of its group."""
    order = np.argsort(-confidence, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(confidence[order]) != 0])
    errors = wrong[order].astype(float)
    del order  # of millions of rows, as below
    sizes = np.diff(np.r_[starts, len(errors)])
    means = np.add.reduceat(errors, starts) / sizes
    del errors, starts
    risk = np.repeat(means, sizes)
    np.cumsum(risk, out=risk)
    risk /= np.arange(1, len(risk) + 1)
    return risk


def curve_points(risk: np.ndarray, most: int = 60) -> list[tuple[float, float]]:
    """(share of answers given, share of them wrong) at `most` places of a risk–coverage curve (n,), evenly spaced."""
    places = np.unique(np.linspace(0, len(risk) - 1, most).round().astype(int))
    return [((place + 1) / len(risk), float(risk[place])) for place in places.tolist()]


def aurc(confidence: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the risk–coverage curve (Geifman and El-Yaniv 2017): the mean risk over all coverages; a
    confidence that says nothing has the error rate."""
    return float(risk_coverage(confidence, wrong).mean())


def aurc_interval(confidence: np.ndarray, wrong: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """95 % interval of the area: percentiles of bootstrap samples, or, over `groups` (n,), the area ± Student's t times
    the jackknife error of leaving out each group once; (0, 1) for one group."""
    if groups is None:
        return percentiles(np.array([aurc(confidence[drawn], wrong[drawn]) for drawn in draws(len(wrong))]))
    count = int(groups.max()) + 1
    if count < 2:
        return 0.0, 1.0
    without = np.array([aurc(confidence[groups != group], wrong[groups != group]) for group in range(count)])
    error = sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    area, half = aurc(confidence, wrong), quantile(groups, (1 + CONFIDENCE) / 2) * error
    return max(0.0, area - half), min(1.0, area + half)


def probability(nats: np.ndarray, temperature: float) -> np.ndarray:
    """exp(log-probability / temperature), (n,)."""
    return np.exp(np.minimum(nats, 0.0) / temperature)


def fit_temperature(nats: np.ndarray, right: np.ndarray) -> float:
    """The temperature with which exp(nats / temperature) fits the answers that are right best, by log-likelihood."""
    from scipy.optimize import minimize_scalar  # late: whoever answers needs no fitting

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


def surest(confidence: np.ndarray, error: float) -> int:
    """How many of the surest answers may be given so that, by their calibrated confidences (n,), at most this share of
    them is expected to be wrong. Equally sure answers are given together or not at all."""
    falling = np.sort(confidence)[::-1]
    expected = np.cumsum(1 - falling) / np.arange(1, len(falling) + 1)
    ends = np.r_[np.diff(falling) != 0, True][: len(falling)]
    return int(np.flatnonzero(ends & (expected <= error + _SMALL)).max(initial=-1)) + 1


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
