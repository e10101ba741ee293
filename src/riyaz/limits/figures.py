"""Figures that several suites make: a share with its interval, a paired difference with its test.

`clusters` are the numbers of the groups of the user's rows, where some share one: intervals are then over these.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from riyaz.metrics.intervals import interval
from riyaz.metrics.paired import paired_test
from riyaz.results import Figure


def source_of(path: Path) -> str:
    """A file as a report names it: its name and its folder's, not where they are on this machine."""
    return "/".join(path.parts[-2:])


def share_of(
    name: str, hits: Sequence[float] | np.ndarray, group: str = "all", even: float | None = None,
    p_value: float | None = None, clusters: np.ndarray | None = None,
) -> Figure:  # fmt: skip
    """The share of 0/1 rows (n,) that are 1."""
    values = np.asarray(hits, float)
    return Figure(name, float(values.mean()), *interval(values, clusters), len(values), "share", group, even, p_value)


def difference_of(
    name: str, after: np.ndarray, before: np.ndarray, group: str = "all", clusters: np.ndarray | None = None
) -> Figure:
    """The mean difference of two scores (n,) of the same rows."""
    test = paired_test(after, before, clusters)
    return Figure(name, test.difference, test.low, test.high, len(after), "score", group, 0.0, test.p_value)
