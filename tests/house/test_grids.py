"""The samples of large grids: every value, or every pair of values, and the same cases each time."""

from itertools import combinations, product
from typing import Any

import grids
import pytest
from grids import drawn, examples, left_out, some

CASES = [tuple(map(str, places)) for places in product(range(11), range(6), range(3))]


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without WHOLE_GRID."""
    monkeypatch.setattr(grids, "WHOLE", False)


@pytest.mark.parametrize(("together", "most"), [(1, 11), (2, 80), (3, len(CASES))])
def test_what_stands_together_in_a_case_stands_together_in_one_that_is_drawn(together: int, most: int) -> None:
    places = drawn(CASES, together, "seed")
    held = {part for place in places for part in combinations(enumerate(CASES[place]), together)}
    assert held == {part for case in CASES for part in combinations(enumerate(case), together)}
    assert places == sorted(set(places)) and len(places) <= most


def test_cases_of_few_parameters_and_none_are_drawn_whole() -> None:
    assert drawn([(kind,) for kind in "abcde"], 2, "seed") == [0, 1, 2, 3, 4]
    assert drawn([], 1, "seed") == []
    assert drawn([("int4", "avx2")], 1, "seed") == [0], "a case that is asked for by name"


def test_a_seed_draws_the_same_cases_and_another_others() -> None:
    assert drawn(CASES, 1, "one") == drawn(CASES, 1, "one") != drawn(CASES, 1, "other")


def test_some_values_have_the_first_and_the_last(sampled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    few = some(range(1, 41), 8, "seed")
    assert len(set(few)) == 8 and few == sorted(few) and (few[0], few[-1]) == (1, 40)
    assert few == some(range(1, 41), 8, "seed") != some(range(1, 41), 8, "other")
    assert some("abc", 5, "seed") == ["a", "b", "c"]
    assert (examples(300), examples(40)) == (75, 25)
    monkeypatch.setattr(grids, "WHOLE", True)
    assert some(range(1, 41), 8, "seed") == list(range(1, 41)) and examples(300) == 300


GRID = """
import pytest
@pytest.mark.grid
@pytest.mark.parametrize("a", range(4))
@pytest.mark.parametrize("b", range(3))
def test_one(a, b): pass
@pytest.mark.parametrize("a", range(4))
def test_whole(a): pass
"""


def test_only_cases_of_marked_tests_are_left_out(sampled: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "test_grid.py").write_text(GRID)
    found: list[pytest.Item] = []

    class Collect:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            found.extend(session.items)

    options = [str(tmp_path), "-c", str(grids.ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "--collect-only",
               "-q", "-p", "no:cacheprovider"]  # fmt: skip
    assert pytest.main(options, plugins=[Collect()]) == 0
    out = {item.name for item in left_out(found)}
    assert len(found) == 16 and len(out) == 8 and all(name.startswith("test_one[") for name in out)
    monkeypatch.setattr(grids, "WHOLE", True)
    assert left_out(found) == set()
