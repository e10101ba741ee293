"""Interval of a mean over a table whose rows and columns are both samples, such as names and adjectives."""

import numpy as np

from riyaz.metrics.intervals import CONFIDENCE

DRAWS = 4_000


def crossed_interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `values` (R, C) by the pigeonhole bootstrap (Owen 2007, arXiv 0712.1111): rows and
    columns are drawn independently, so cells that share one do not count as independent. It is rather too wide."""
    generator, (rows, columns) = np.random.default_rng(seed), values.shape
    drawn = generator.multinomial(rows, np.full(rows, 1 / rows), DRAWS) / rows  # (D, R)
    across = generator.multinomial(columns, np.full(columns, 1 / columns), DRAWS) / columns  # (D, C)
    means = ((drawn @ values) * across).sum(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)
