"""Compare arms on the same rows: exact McNemar test, paired bootstrap, and max-T bounds over all arms.

The bounds say how far each arm can be below the best arm, which is unknown. For each arm k taken as the best, one
critical value covers its leads over all other arms at once. The best arm is one of the k, so an arm's largest bound
over all k covers its shortfall (Hsu 1984, multiple comparisons with the best, with a bootstrap-t in place of
Student's t).

Where rows have groups, groups are resampled, and signs change for whole groups.
"""

from dataclasses import dataclass, replace
from math import ceil, floor, inf, log10, sqrt

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

from riyaz.metrics.groups import clustered_error, quantile
from riyaz.metrics.intervals import (
    CHUNK,
    CONFIDENCE,
    RESAMPLES,
    bca_bootstrap,
    is_binary,
    is_unbounded,
    resample_counts,
)

# The variance of every pair counts two won and two lost rows more than were seen, because arms that agree on all rows
# may differ on the next one. For few differing rows this is close to the exact Poisson bounds.
UNSEEN = 4
ROWS_CAP = 1_000_000  # largest answer of `Shortfall.rows_needed`
POWER = 0.8  # probability with which `rows_needed` rows suffice
TIE = 1e-9  # sums of scores that differ by less differ by rounding
ESTIMATES = 99  # resamples of the rows from which the range of `rows_needed` comes


@dataclass(frozen=True)
class Paired:
    """Mean difference a - b with its 95 % interval and two-sided p-value; `test` names the test."""

    difference: float
    low: float
    high: float
    p_value: float
    test: str


def paired_test(a: np.ndarray, b: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> Paired:
    """Compare the row scores (n,), (n,) of two arms: exact McNemar if all are 0/1, else paired bootstrap; for rows in
    `groups` (n,) a permutation test and Student's t over these."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if groups is not None:
        return _over_groups(a - b, groups, seed, inf if is_unbounded(a) or is_unbounded(b) else 1.0)
    if not (is_binary(a) and is_binary(b)):
        return paired_bootstrap(a, b, seed=seed)
    # Interval of Bonett and Price (2012): one row won and one lost added, then Wald.
    n, won, lost = len(a) + 2, int((a > b).sum()) + 1, int((a < b).sum()) + 1
    centre = (won - lost) / n
    half = ndtri((1 + CONFIDENCE) / 2) * sqrt(((won + lost) / n - centre**2) / n)
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Paired(float((a - b).mean()), float(low), float(high), mcnemar_exact(a, b), "mcnemar")


def _over_groups(gain: np.ndarray, groups: np.ndarray, seed: int, most: float) -> Paired:
    """Paired test of the differences (n,) of rows in groups. As in `_unseen` the variance counts two won and two lost
    groups more than were seen, so that its interval has a width where no row differs; it ends within ±`most`."""
    count, difference = int(groups.max()) + 1, float(gain.mean())
    totals = np.bincount(groups, gain) * count / len(groups)  # (G,), with the mean of the rows
    error = sqrt(clustered_error(gain, groups) ** 2 + float(_unseen(totals[:, None])[0]) / count**2)
    half = quantile(groups, (1 + CONFIDENCE) / 2) * error
    low, high = max(-most, difference - half), min(most, difference + half)
    return Paired(difference, low, high, sign_flips(gain, groups, seed=seed), "sign flips over groups")


def sign_flips(gain: np.ndarray, groups: np.ndarray, *, seed: int = 0, draws: int = RESAMPLES) -> float:
    """Two-sided p-value of the mean of `gain` (n,) by permutation: how often it is as far from 0 if the sign of every
    group is random. All signs are tried where these are no more than `draws`; then the test is exact."""
    sums = np.bincount(groups, gain)
    sums = sums[np.abs(sums) > TIE]  # the sign of 0 changes nothing
    least = abs(float(sums.sum())) - TIE
    if 2 ** len(sums) <= draws:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float((np.abs(signs @ sums) >= least).mean())
    generator, step, extreme = np.random.default_rng(seed), max(1, CHUNK // len(sums)), 0
    for start in range(0, draws, step):
        signs = 1 - 2 * generator.integers(0, 2, (min(step, draws - start), len(sums)))
        extreme += int((np.abs(signs @ sums) >= least).sum())
    return (extreme + 1) / (draws + 1)


def mcnemar_exact(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p-value of the exact McNemar test on the 0/1 row scores (n,), (n,) of two arms."""
    won, lost = int(np.sum(np.greater(a, b))), int(np.sum(np.less(a, b)))
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5))) if won + lost else 1.0


def paired_bootstrap(a: np.ndarray, b: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Paired:
    """BCa interval of mean(a - b), and the p-value of a bootstrap of the differences centred on 0."""
    gain = np.asarray(a, float) - np.asarray(b, float)
    difference, n = float(gain.mean()), len(gain)
    low, high = bca_bootstrap(gain, seed=seed, resamples=resamples)
    noise = np.concatenate([counts @ (gain - difference) for counts in resample_counts(n, resamples, seed)])
    extreme = int((np.abs(noise / n) >= abs(difference) - 1e-12).sum())
    return Paired(difference, low, high, (extreme + 1) / (resamples + 1), "paired bootstrap")


@dataclass(frozen=True)
class Shortfall:
    """Simultaneous 95 % upper bounds on max_k mean_k - mean_i for each arm i of M, from `n` rows."""

    upper: np.ndarray  # (M,) at least 0, of scores in 0..1 at most 1
    lead: np.ndarray  # (M, M) observed mean_k - mean_i
    error: np.ndarray  # (M, M) standard error of the lead
    critical: np.ndarray  # (M,) critical value of arm k taken as the best
    n: int

    def rows_needed(self, margin: float) -> int:
        """Number of rows with which the bound of some arm falls within `margin` with probability POWER, if means and
        variances stay as observed: two significant digits, more than `n`, at most ROWS_CAP."""
        gap = margin - self.lead
        reach = (self.critical[:, None] + ndtri(POWER)) * self.error
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(gap > 0, (reach / gap) ** 2, inf)
        np.fill_diagonal(ratio, 0.0)
        rows = self.n * float(ratio.max(axis=0).min())
        if rows >= ROWS_CAP:
            return ROWS_CAP
        rows = max(rows, self.n + 1)
        unit = 10 ** max(0, floor(log10(rows)) - 1)
        return ceil(rows / unit) * unit


def shortfall(scores: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Shortfall:
    """Bounds on each arm's shortfall to the unknown best by max-T paired bootstrap, from row scores (M, n) in 0..1
    or of any size below 0."""
    gain, first, second = _gains(scores)
    n, arms = len(gain), len(scores)
    lead, unseen, error = _leads(gain)
    moments = np.hstack([gain, gain**2])
    worst = []
    for counts in resample_counts(n, resamples, seed):
        lead_drawn, square_drawn = np.hsplit(counts @ moments / n, 2)  # (b, P) each
        t = (lead_drawn - lead) / _standard_error(lead_drawn, square_drawn, unseen, n)
        # t of the lead of each other arm over k: it is large where k's own lead is understated.
        signed = [np.hstack([-t[:, first == k], t[:, second == k]]) for k in range(arms)]
        worst.append([t_k.max(axis=1, initial=0) for t_k in signed])
    quantile = np.quantile(np.hstack(worst), CONFIDENCE, axis=1, method="higher")
    critical = np.maximum(quantile, stdtrit(n + UNSEEN - 1, CONFIDENCE))
    lead_all, error_all = _square(lead, -lead, arms), _square(error, error, arms)
    most = inf if is_unbounded(scores) else 1.0
    upper = (lead_all + critical[:, None] * error_all).max(axis=0).clip(0, most)
    return Shortfall(upper, lead_all, error_all, critical, n)


def rows_needed_range(scores: np.ndarray, bounds: Shortfall, margin: float, *, seed: int = 0) -> tuple[int, int]:
    """The 10th and the 90th percentile of `rows_needed` over resamples of the rows of `scores` (M, n), wide enough to
    hold the estimate from all rows.

    `bounds` are those of all rows; their critical values are kept, because they vary much less than leads and errors.
    """
    gain, _, _ = _gains(scores)
    n, arms = len(gain), len(scores)
    estimates = []
    for drawn in np.random.default_rng(seed).integers(0, n, (ESTIMATES, n)):
        lead, _, error = _leads(gain[drawn])
        again = replace(bounds, lead=_square(lead, -lead, arms), error=_square(error, error, arms))
        estimates.append(again.rows_needed(margin))
    low, high = np.quantile(estimates, (0.1, 0.9), method="nearest")
    estimate = bounds.rows_needed(margin)
    return min(int(low), estimate), max(int(high), estimate)


def _gains(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences (n, P) of every pair of arms on every row, and the pairs' first and second arms (P,), (P,)."""
    scores = np.asarray(scores, float)
    first, second = np.triu_indices(len(scores), 1)
    return (scores[first] - scores[second]).T, first, second


def _leads(gain: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean lead of every pair, the sum of squares that the unseen rows add, and the standard error: (P,) each."""
    lead, unseen = gain.mean(axis=0), _unseen(gain)
    return lead, unseen, _standard_error(lead, (gain**2).mean(axis=0), unseen, len(gain))


def _square(upper: np.ndarray, lower: np.ndarray, arms: int) -> np.ndarray:
    """The (M, M) matrix with these values (P,) of the pairs above and below its diagonal of zeros."""
    first, second = np.triu_indices(arms, 1)
    values = np.zeros((arms, arms))
    values[first, second], values[second, first] = upper, lower
    return values


def _unseen(gain: np.ndarray) -> np.ndarray:
    """Sum of squares (P,) that the UNSEEN rows add to each pair, each the mean square of its differing rows."""
    differing = (gain != 0).sum(axis=0)
    pooled = (gain**2).sum() / differing.sum() if differing.any() else 1.0
    return UNSEEN * np.where(differing > 0, (gain**2).sum(axis=0) / np.maximum(differing, 1), pooled)


def _standard_error(mean: np.ndarray, square: np.ndarray, unseen: np.ndarray, n: int) -> np.ndarray:
    """Standard error of a mean from its mean, its mean square and the unseen rows' sum of squares."""
    return np.sqrt(np.maximum(square - mean**2, 0) * n + unseen) / n
