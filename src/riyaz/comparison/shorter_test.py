"""Tests less when the budget is too short: first one split instead of folds, then fewer test rows."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from riyaz.comparison.arm_seconds import Sizes
from riyaz.comparison.plan import ComparisonPlan, TooShort
from riyaz.data.data_report import DataReport
from riyaz.data.split import Split

FOLDS_SHARE = 0.25  # folds train six times: only if every trained arm then takes this share of its recipe's steps
FAIR_ROWS = 50  # test rows are not reduced below this for arms to fit; then arms are left out,
LEAST_ROWS = 10  # and only then rows down to this: fewer would say nothing

Divide = Callable[[bool, int | None], tuple[Split, DataReport]]  # (deal folds, most test rows) -> rows of each part


def plan_within(
    divide: Divide, limit_test: int | None, make: Callable[[Sizes, bool], ComparisonPlan]
) -> tuple[ComparisonPlan, Split, DataReport]:
    """The plan of all arms with the most test rows, at least FAIR_ROWS, and the rows; if none fits the budget, the plan
    of the arms that do with the fewest of these rows, and if not even two fit, with fewer.

    `make(sizes, leave_out)` makes a plan and may leave out arms. Raises TooShort if two arms fit in no way.
    """
    refused: TooShort | None = None
    rest: list[tuple[bool, int | None, Split, DataReport]] = []  # in which arms may be left out
    for deal_folds, limit in _reductions(divide, limit_test):
        parts, report = divide(deal_folds, limit)
        if limit == limit_test or len(parts.tested) >= FAIR_ROWS:
            with suppress(TooShort):
                plan = replace(make(sizes_of(parts), False), folds=deal_folds, limit_test=limit)
                if not parts.folds or _all_train(plan, FOLDS_SHARE):
                    return plan, parts, report
            rest.clear()
        rest.append((deal_folds, limit, parts, report))
    for deal_folds, limit, parts, report in rest:
        try:
            plan = make(sizes_of(parts), True)
        except TooShort as error:
            refused = error
        else:
            return replace(plan, folds=deal_folds, limit_test=limit), parts, report
    assert refused is not None
    raise refused


def sizes_of(parts: Split) -> Sizes:
    """The row counts of a split."""
    return Sizes(len(parts.train), len(parts.valid), len(parts.tested), 1 + len(parts.folds))


def reduction_note(plan: ComparisonPlan, limit_test: int | None, tested: int) -> str:
    """One sentence about what is tested less than was asked for; "" if everything is tested."""
    if plan.folds and plan.limit_test == limit_test:
        return ""
    once = "" if plan.folds else ", held out once instead of in folds,"
    return f"the budget leaves time for {tested} test rows{once} only; raise --budget to test more"


def _reductions(divide: Divide, limit_test: int | None) -> Iterator[tuple[bool, int | None]]:
    """(deal folds, most test rows), each cheaper to test than the one before."""
    yield True, limit_test
    parts, _ = divide(True, limit_test)
    had_folds = bool(parts.folds)
    if had_folds:
        yield False, limit_test
        parts, _ = divide(False, limit_test)
    rows = len(parts.tested)
    while rows > LEAST_ROWS:
        rows = max(LEAST_ROWS, rows // 2)
        yield not had_folds, rows


def _all_train(plan: ComparisonPlan, share: float) -> bool:
    """Whether every arm with a recipe trains, and takes at least this share of the recipe's steps."""
    return all(arm.steps and arm.steps >= share * arm.recipe_steps for arm in plan.arms if arm.recipe_steps)
