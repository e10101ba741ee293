"""The pick on rows in groups: bounds and tests over groups, and no certificate from a few of them."""

import numpy as np

from riyaz.comparison.pick import choose
from riyaz.results import ArmResult


def arm(method: str, ms: float) -> ArmResult:
    return ArmResult(method, "ok", metric="accuracy", ms_per_answer=ms, peak_rss_mb=500.0, forgetting_nats=0.0)


ARMS = [arm("good", 9), arm("poor", 1)]


def lead_in(groups: int, of: int, size: int = 10) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores of an arm that is right on all rows, and of one that is wrong in the first groups; and the groups."""
    numbers = np.repeat(np.arange(of), size)
    return {"good": np.ones(of * size), "poor": (numbers >= groups).astype(float)}, numbers


def test_a_lead_in_two_groups_certifies_nothing() -> None:
    scores, groups = lead_in(2, 30)
    assert choose(ARMS, scores).decision == "certified", "over 20 of 300 rows it is beyond chance"
    pick = choose(ARMS, scores, groups=groups)
    assert (pick.pick, pick.decision) == ("good", "undecided")
    assert "on 300 test rows in 30 groups" in pick.reason and "poor (0.933, 1 instead of 9 ms" in pick.reason
    assert pick.rows_needed is not None and pick.rows_needed[0] > 300, "in rows, not in groups"


def test_a_lead_in_many_groups_is_certified() -> None:
    scores, groups = lead_in(15, 30)
    pick = choose(ARMS, scores, groups=groups)
    assert (pick.pick, pick.decision) == ("good", "certified"), pick.reason


def test_fewer_than_ten_groups_certify_nothing() -> None:
    scores, groups = lead_in(8, 9, 40)
    assert choose(ARMS, scores).decision == "certified"
    pick = choose(ARMS, scores, groups=groups)
    assert (pick.pick, pick.decision, pick.rows_needed) == ("good", "undecided", None)
    assert "rows of fewer than 10 groups certify no method" in pick.reason


def test_without_limits_the_bounds_are_over_groups_too() -> None:
    scores, groups = lead_in(15, 30)
    pick = choose(ARMS, scores, limits={"max_ms": 5}, groups=groups)
    assert pick.pick == "poor" and "without --max-ms 5 good would be picked" in pick.reason.lower()
