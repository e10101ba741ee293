"""Confidence intervals of a mean score: Wilson's for 0/1 rows, BCa bootstrap otherwise, reproducible by seed.

Call `interval`: equal rows, for which a bootstrap interval has no width, get Wilson's too, and rows in groups one
over the groups.
"""

from collections.abc import Iterator
from math import sqrt

import numpy as np

from riyaz.metrics.groups import clustered_error, quantile

CONFIDENCE = 0.95  # of every interval, test and bound
RESAMPLES = 9_999
CHUNK = 500_000  # counts in memory at once: 4 MB, which stay in the cache


def interval(scores: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> tuple[float, float]:
    """Two-sided 95 % interval of the mean of `scores` (n,) in 0..1, or of any size below 0; (0, 1) without rows.
    `groups` (n,) are the numbers of the rows' groups, where some share one."""
    scores = np.asarray(scores, float)
    if is_unbounded(scores):
        return mean_interval(scores, groups)
    if groups is not None:
        return _over_groups(scores, groups)
    n, spread = len(scores), np.ptp(scores) if len(scores) else 0.0
    if is_binary(scores) or spread == 0:
        # Equal rows have no variance to resample; Wilson assumes p(1-p), the largest possible for a mean p.
        return wilson(float(scores.sum()), n)
    low, high = bca_bootstrap(scores, seed=seed)
    return max(0.0, low), min(1.0, high)


def mean_interval(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """95 % interval of the mean of `values` (n,) of any size: BCa bootstrap, or mean ± t · error over `groups` (n,)."""
    values = np.asarray(values, float)
    if groups is None:
        return bca_bootstrap(values)
    half = quantile(groups, (1 + CONFIDENCE) / 2) * clustered_error(values, groups)
    return float(values.mean()) - half, float(values.mean()) + half


def _over_groups(scores: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Wilson's interval for as many independent 0/1 rows as have the standard error over groups (Korn and Graubard
    1998), with Student's t in place of the normal distribution: unlike mean ± t·error it keeps its coverage near 0 and
    1."""
    count, mean, error = int(groups.max()) + 1, float(scores.mean()), clustered_error(scores, groups)
    if count < 2:
        return 0.0, 1.0
    rows = mean * (1 - mean) / error**2 if error else float(count)  # equal scores: a group tells as much as one row
    return wilson(mean * rows, rows, quantile(groups, (1 + CONFIDENCE) / 2))


def is_unbounded(scores: np.ndarray) -> bool:
    """Whether scores are log-probabilities, which have no lowest value: one is below 0."""
    return bool((np.asarray(scores) < 0).any())


def is_binary(scores: np.ndarray) -> bool:
    """Whether every score is exactly 0 or 1."""
    return bool(np.isin(scores, (0.0, 1.0)).all())


def wilson(k: float, n: float, z: float | None = None) -> tuple[float, float]:
    """Wilson's 95 % score interval for `k` successes in `n` rows (Wilson 1927, no continuity correction); `z` is a
    quantile in place of the normal distribution's."""
    if n == 0:
        return 0.0, 1.0
    from scipy.special import ndtri  # late: many processes need no interval

    z, p = float(ndtri((1 + CONFIDENCE) / 2)) if z is None else z, k / n
    centre, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    scale = 1 + z * z / n
    low = 0.0 if k == 0 else (centre - half) / scale
    return low, 1.0 if k == n else (centre + half) / scale


def bca_bootstrap(values: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % BCa bootstrap interval of the mean of `values` (n,) (Efron 1987); of no width if all are equal."""
    values = np.asarray(values, float)
    mean, n = float(values.mean()), len(values)
    if np.ptp(values) == 0:
        return mean, mean
    from scipy.special import ndtr, ndtri

    boot = np.concatenate([counts @ values for counts in resample_counts(n, resamples, seed)]) / n
    # Summed in another order the same rows differ in the last bits, so nearly equal means count as ties.
    near = np.isclose(boot, mean, rtol=1e-12, atol=1e-15)
    below = ((boot < mean) & ~near).mean() + near.mean() / 2
    bias = ndtri(np.clip(below, 1 / (resamples + 1), resamples / (resamples + 1)))
    deviation = values - mean
    acceleration = (deviation**3).sum() / (6 * (deviation**2).sum() ** 1.5)
    z = bias + ndtri(np.array([1 - CONFIDENCE, 1 + CONFIDENCE]) / 2)
    low, high = np.quantile(boot, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def standard_error(values: np.ndarray, weights: np.ndarray) -> float | None:
    """Standard error of the mean of `values` (n,) weighted by `weights` (n,); None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    deviation = weights * (values - np.average(values, weights=weights))
    return sqrt(n / (n - 1) * float((deviation**2).sum())) / float(weights.sum())


def resample_counts(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap draws as chunks (b, n): how often each of `n` rows is drawn, `resamples` draws in all."""
    generator, step = np.random.default_rng(seed), max(1, CHUNK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, n, size=(size, n))
        drawn += n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n)
        del drawn  # as many bytes as the counts
        yield counts.reshape(size, n).astype(float)
