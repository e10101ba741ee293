"""Limits on rows in groups: no group is in both halves, and intervals are over the groups."""

import numpy as np
import pytest
from tiny_comparison import closed_rows, write_rows

from riyaz.config import LimitsConfig
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.limits.figures import difference_of, share_of
from riyaz.limits.own_rows import own_rows
from riyaz.metrics.intervals import interval
from riyaz.predictor import CopyPredictor

TASK = Task("closed", ("billing", "delivery", "refund"), "accuracy", "Classify.", "")


def test_no_group_is_in_both_halves(model_folder, tmp_path) -> None:
    rows = [{**row, "doc_id": f"d{i % 12}"} for i, row in enumerate(closed_rows(60, "please"))]
    copying = CopyPredictor(examples=(Example(({"role": "user", "content": "a"},), ("billing",)),), task=TASK)
    config = LimitsConfig(rows=write_rows(tmp_path / "rows.jsonl", rows))
    held, _ = own_rows(str(model_folder), copying, config, lambda event: None)
    halves = [{row.group for row in half} for half in (held.calibrate, held.test)]
    assert all(halves) and not halves[0] & halves[1] and len(halves[0] | halves[1]) == 12


def test_figures_are_over_the_groups() -> None:
    hits, clusters = np.repeat([1.0, 0, 1, 1, 0, 1, 1, 1, 0, 1], 10), np.repeat(np.arange(10), 10)
    plain, grouped = share_of("right", hits), share_of("right", hits, clusters=clusters)
    assert (plain.low, plain.high) == interval(hits) and (grouped.low, grouped.high) == interval(hits, clusters)
    assert plain.value == grouped.value == pytest.approx(0.7) and grouped.high - grouped.low > 2 * (
        plain.high - plain.low
    )
    before = np.ones(100)
    assert (
        difference_of("lead", hits, before, clusters=clusters).p_value
        > 0.1
        > difference_of("lead", hits, before).p_value
    )
