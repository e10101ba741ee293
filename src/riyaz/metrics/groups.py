"""Scores of rows that are not independent, such as those of one customer: a group counts in place of its rows.

Standard errors over rows can be several times too small where rows of a group are right and wrong together (Miller
2024, arXiv 2411.00640). Groups are numbered 0…G-1, and `groups` (n,) is the number of each row.
"""

from collections.abc import Sequence
from math import inf, sqrt

import numpy as np


def group_numbers(names: Sequence[str | None]) -> np.ndarray | None:
    """The number (n,) of each row's group; a row without a name is a group alone. None where no two rows share one."""
    numbers: dict[str | int, int] = {}
    groups = [numbers.setdefault(row if name is None else name, len(numbers)) for row, name in enumerate(names)]
    return np.array(groups) if len(numbers) < len(groups) else None


def numbers_of(keys: np.ndarray) -> np.ndarray | None:
    """`group_numbers` of groups that have a key (n,) each in place of a name; a negative one is of a row alone."""
    alone = keys < 0
    if alone.any():
        keys = np.where(alone, -1 - np.arange(len(keys)), keys)
    distinct, first, places = np.unique(keys, return_index=True, return_inverse=True)
    if len(distinct) == len(keys):
        return None
    del distinct, alone
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    return numbers[places]


def within(groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """The group numbers of some rows, an index or a mask; None where no two of these share one."""
    return None if groups is None else numbers_of(groups[rows])


def group_means(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The mean of each group times its size over the mean size, (M, G) for scores (M, n): over the groups these have
    the mean that the rows have."""
    count = int(groups.max()) + 1
    return np.array([np.bincount(groups, row, count) for row in scores]) * count / len(groups)


def clustered_error(scores: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the mean of `scores` (n,), by leaving out each group once (jackknife, CR3); infinite for one
    group. For groups of equal size it is the standard error of the groups' means."""
    sizes, n = np.bincount(groups), len(scores)
    if len(sizes) < 2:
        return inf
    changes = (np.bincount(groups, scores) - sizes * np.mean(scores)) / (n - sizes)  # of the mean, without the group
    return sqrt((len(sizes) - 1) / len(sizes) * float((changes**2).sum()))


def quantile(groups: np.ndarray, p: float) -> float:
    """The quantile `p` of Student's t for an error over groups. Its degrees of freedom are one less than the number of
    groups of equal size that would weigh as much (Kish 1965): a few large groups decide the mean of unequal ones."""
    from scipy.special import stdtrit  # late: many processes need no interval

    sizes = np.bincount(groups)
    return float(stdtrit(max(1.0, sizes.sum() ** 2 / (sizes**2).sum() - 1), p))
