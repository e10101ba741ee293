"""The slice on which the pick scores lowest, and whether another arm is better there by more than chance."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from riyaz.comparison.folder import ComparisonFolder
from riyaz.metrics.groups import within
from riyaz.metrics.intervals import CONFIDENCE, interval
from riyaz.metrics.paired import paired_test
from riyaz.results import PREDICTIONS, Answer, WorstSlice

FEWEST = 5  # rows of a slice


def worst_slice(
    folder: ComparisonFolder,
    pick: str | None,
    scores: Mapping[str, np.ndarray],
    parts: Sequence[str],
    seed: int,
    groups: np.ndarray | None = None,
) -> WorstSlice | None:
    """The pick's worst slice of FEWEST rows or more; None without a pick, slices or their scores.

    `scores` and `groups` are those of `arm_row.row_scores` and `row_groups`. Another arm is named where its lead on
    these rows is beyond chance: p-values of the paired test, times the number of other arms (Bonferroni), below 5 %.
    """
    if pick is None or pick not in scores:
        return None
    rows = [row for part in parts for row in Answer.read(folder.part(pick, part) / PREDICTIONS)]
    rows.sort(key=lambda row: (row.where, row.score or 0.0))  # as `row_scores` sorts them
    names = np.array([row.slice or "" for row in rows])
    large = [name for name in sorted(set(names) - {""}) if (names == name).sum() >= FEWEST]
    if len(large) < 2 or not np.isfinite(scores[pick]).all():
        return None
    means = {name: float(scores[pick][names == name].mean()) for name in large}
    name = min(large, key=means.__getitem__)
    if means[name] == max(means.values()):  # it scores alike on all
        return None
    here, groups = scores[pick][names == name], within(groups, names == name)
    worst = WorstSlice(name, len(here), float(here.mean()), *interval(here, groups))
    others = {arm: rows[names == name] for arm, rows in scores.items() if arm != pick and np.isfinite(rows).all()}
    tests = {arm: paired_test(rows, here, groups, seed=seed) for arm, rows in others.items()}
    sure = {arm: test for arm, test in tests.items()
            if test.difference > 0 and test.p_value * len(tests) < 1 - CONFIDENCE}  # fmt: skip
    if not sure:
        return worst
    better = max(sure, key=lambda arm: sure[arm].difference)
    test = sure[better]
    return replace(
        worst, better=better, lead=test.difference, lead_low=test.low, lead_high=test.high, p_value=test.p_value
    )
