"""Large grids of cases: a sample of each in the suite, the same every time; all of them where WHOLE_GRID is set."""

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

ROOT = Path(__file__).parents[2]
WHOLE = os.environ.get("WHOLE_GRID", "") not in ("", "0")  # as `make torture-grid` sets it
Value = TypeVar("Value")


def drawn(cases: Sequence[Sequence[str]], together: int, seed: str) -> list[int]:
    """Places of the fewest cases a greedy draw finds that hold all values, or pairs of values where `together` is 2.

    A case is the names of its values, one of each parameter. What stands together in any case stands together in one
    that is drawn, so that code which is wrong for one of them is seen.
    """
    order = Random(seed).sample(range(len(cases)), len(cases))
    held = [set(combinations(enumerate(case), min(together, len(case)))) for case in cases]
    missing, kept = set[object]().union(*held), []
    while missing:
        best = max(order, key=lambda place: len(held[place] & missing))
        missing -= held[best]
        kept.append(best)
    return sorted(kept)


def some(values: Sequence[Value], count: int, seed: str) -> list[Value]:
    """So many of the values, in their order, the first and the last among them; all of them where WHOLE_GRID is set."""
    if WHOLE or len(values) <= count:
        return list(values)
    inner = Random(seed).sample(range(1, len(values) - 1), count - 2)
    return [values[place] for place in sorted({0, *inner, len(values) - 1})]


def examples(count: int) -> int:
    """How many examples hypothesis draws where `count` are a thorough test; all of them where WHOLE_GRID is set."""
    return count if WHOLE else max(25, count // 4)


def left_out(items: Sequence[pytest.Item]) -> set[pytest.Item]:
    """Of the tests marked `grid` those whose cases are not drawn."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not WHOLE and item.get_closest_marker("grid") and hasattr(item, "callspec"):
            functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    out: set[pytest.Item] = set()
    for function, cases in functions.items():
        marker = cases[0].get_closest_marker("grid")
        assert marker is not None
        names = [case.callspec._idlist for case in cases]  # type: ignore[attr-defined]
        kept = set(drawn(names, *(marker.args or (1,)), seed=function))
        out |= {case for place, case in enumerate(cases) if place not in kept}
    return out
