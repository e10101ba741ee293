"""What a language model adds to the best arm without one: over all test rows, on each slice, and at what cost."""

from collections.abc import Mapping, Sequence

import numpy as np

from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.worst_slice import FEWEST
from riyaz.metrics.groups import group_numbers, within
from riyaz.metrics.intervals import CONFIDENCE
from riyaz.metrics.paired import Paired, paired_test
from riyaz.results import PREDICTIONS, Answer, ArmResult, SliceLead, Worth


def worth(
    folder: ComparisonFolder, arms: Sequence[ArmResult], scores: Mapping[str, np.ndarray], parts: Sequence[str],
    by_label: bool, seed: int,
) -> Worth | None:  # fmt: skip
    """The best arm with a language model beside the best one without; None where one of them is missing.

    `scores` are those of `arm_row.row_scores`. Slices are the rows' own ones and, `by_label`, the accepted labels. One
    is named where the lead on its rows is beyond chance: p-values of the paired test in Holm's order (1979), below 5 %
    over all slices.
    """
    scored = [arm for arm in arms if arm.about and np.isfinite(scores.get(arm.name, np.array([np.nan]))).all()]
    best = [
        max(of, key=lambda arm: scores[arm.name].mean(), default=None)
        for of in ([arm for arm in scored if arm.about and arm.about.language_model is kind] for kind in (True, False))
    ]
    if best[0] is None or best[1] is None:
        return None
    model, plain = best[0], best[1]
    ours, theirs = scores[model.name], scores[plain.name]
    rows = [row for part in parts for row in Answer.read(folder.part(model.name, part) / PREDICTIONS)]
    rows.sort(key=lambda row: (row.where, row.score or 0.0))  # as `row_scores` sorts them
    groups = group_numbers([row.group for row in rows])
    overall = paired_test(ours, theirs, groups, seed=seed)
    kinds = [[row.slice or "" for row in rows], [row.answers[0] for row in rows] if by_label else []]
    tests: list[tuple[str, int, Paired]] = []  # a slice may have the name of a label
    for names in map(np.array, kinds):
        for name in sorted(set(names.tolist()) - {""}):
            at = names == name
            if FEWEST <= at.sum() < len(at):
                test = paired_test(ours[at], theirs[at], within(groups, at), seed=seed)
                tests.append((name, int(at.sum()), test))
    return Worth(
        model=model.name, plain=plain.name, difference=overall.difference, low=overall.low, high=overall.high,
        p_value=overall.p_value, more_ms=_more(model.ms_per_answer, plain.ms_per_answer),
        more_mb=_more(model.serving_mb, plain.serving_mb),
        slices=[
            SliceLead(name, count, test.difference, test.low, test.high, test.p_value)
            for name, count, test in _beyond_chance(tests)
            if test.difference > 0
        ],
    )  # fmt: skip


def _beyond_chance(tests: Sequence[tuple[str, int, Paired]]) -> list[tuple[str, int, Paired]]:
    """The tests that Holm's procedure rejects, the smallest p-value first."""
    ordered = sorted(tests, key=lambda entry: entry[2].p_value)
    for place, (_, _, test) in enumerate(ordered):
        if test.p_value * (len(ordered) - place) >= 1 - CONFIDENCE:
            return ordered[:place]
    return ordered


def _more(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs
