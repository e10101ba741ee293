"""What is tested when the budget is too short for all of it: one split instead of folds, then fewer rows."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from riyaz.comparison.plan import ComparisonPlan, Sizes, TooShort
from riyaz.data.data_report import DataReport
from riyaz.data.split import Split

WORTH = 0.25  # of its recipe that every trained arm must reach for folds, which train it six times, to be worth it
FAIR_ROWS = 20  # not fewer for the sake of an arm that takes too long to train,
LEAST_ROWS = 10  # and not fewer at all: they would say nothing

Cut = Callable[[bool, int | None], tuple[Split, DataReport]]  # (deal folds, most test rows) to the rows of each part


def plan_within(
    cut: Cut, limit_test: int | None, make: Callable[[Sizes], ComparisonPlan]
) -> tuple[ComparisonPlan, Split, DataReport]:
    """The plan with the most test rows under which every trained arm trains, and its rows.

    Where none is, the one with the most rows that the budget holds at all. Raises the TooShort of the fewest rows
    when there is none.
    """
    refused: TooShort
    held: tuple[ComparisonPlan, Split, DataReport] | None = None
    for deal_folds, limit in _ladder(cut, limit_test):
        parts, report = cut(deal_folds, limit)
        if held is not None and limit != limit_test and len(parts.tested) < FAIR_ROWS:
            break
        sizes = Sizes(len(parts.train), len(parts.valid), len(parts.tested), 1 + len(parts.folds))
        try:
            plan = replace(make(sizes), folds=deal_folds, limit_test=limit)
        except TooShort as error:
            refused = error
            continue
        if _trains(plan, WORTH if parts.folds else 0.0):
            return plan, parts, report
        held = held or (plan, parts, report)
    if held is None:
        raise refused
    return held


def narrowed(plan: ComparisonPlan, limit_test: int | None, tested: int) -> str:
    """What the plan tests less than was asked for, in a sentence; "" when it tests all of it."""
    if plan.folds and plan.limit_test == limit_test:
        return ""
    once = "" if plan.folds else ", held out once instead of in folds,"
    return f"the budget leaves time for {tested} test rows{once} only; raise --budget to test more"


def _ladder(cut: Cut, limit_test: int | None) -> Iterator[tuple[bool, int | None]]:
    """Ways to test, each cheaper than the one before."""
    yield True, limit_test
    parts, _ = cut(True, limit_test)
    few = bool(parts.folds)
    if few:
        yield False, limit_test
        parts, _ = cut(False, limit_test)
    rows = len(parts.tested)
    while rows > LEAST_ROWS:
        rows = max(LEAST_ROWS, rows // 2)
        yield not few, rows


def _trains(plan: ComparisonPlan, share: float) -> bool:
    """Whether every arm that can be trained is, and reaches this share of its recipe."""
    return all(arm.steps and arm.steps >= share * arm.recipe_steps for arm in plan.arms if arm.recipe_steps)
