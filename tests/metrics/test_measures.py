"""Measures of a ranking: worked by hand, and against a slow definition."""

import pytest
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from riyaz.retrieval.measures import recall, reciprocal_rank

RANKED = [["a", "b", "c"], ["c", "a", "b"], ["b", "c"], []]
WANTED = [["b"], ["c", "z"], ("a",), {"a"}]


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 4), (2, 2 / 4), (3, 2 / 4), (10, 2 / 4)])
def test_recall_by_hand(k: int, expected: float) -> None:
    assert recall(RANKED, WANTED, k) == expected


def test_reciprocal_rank_by_hand() -> None:
    assert reciprocal_rank(RANKED, WANTED) == (1 / 2 + 1 + 0 + 0) / 4
    assert reciprocal_rank([["a", "a", "b"]], [["b"]]) == 1 / 3, "passages are counted, not documents"


def test_a_question_without_a_ranking_is_an_error() -> None:
    with pytest.raises(ValueError):
        recall(RANKED, WANTED[:3], 1)
    with pytest.raises(ValueError):
        reciprocal_rank(RANKED, WANTED[:3])


NAMES = st.sampled_from("abcdef")


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.tuples(st.lists(NAMES, max_size=8), st.sets(NAMES, max_size=3)), min_size=1, max_size=5))
def test_what_holds_for_every_ranking(rows: list[tuple[list[str], set[str]]]) -> None:
    ranked, wanted = [names for names, _ in rows], [gold for _, gold in rows]
    first = [min([names.index(g) for g in gold if g in names], default=None) for names, gold in rows]
    for k in range(1, 10):
        assert recall(ranked, wanted, k) == sum(f is not None and f < k for f in first) / len(rows)
    expected = sum(1 / (1 + f) for f in first if f is not None) / len(rows)
    assert reciprocal_rank(ranked, wanted) == pytest.approx(expected)
    assert recall(ranked, wanted, 1) <= reciprocal_rank(ranked, wanted) <= recall(ranked, wanted, 9)
