"""The scores of answers to typed questions: points, means with missing answers, AUROC beside pairs counted out."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from riyaz.metrics.compact import Compact
from riyaz.metrics.decisions import auroc, mean_auroc, points, row_means, row_scores
from riyaz.metrics.intervals import interval

NONE = np.nan


def counted_out(scores: np.ndarray, right: np.ndarray) -> float:
    """The share of pairs of a right and a wrong one in which the right one is above; ties half."""
    pairs = [(a > b) + (a == b) / 2 for a, b in product(scores[right], scores[~right])]
    return float(np.mean(pairs))


def rows(n: int, choices: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, L) with ties, and places (n,)."""
    generator = np.random.default_rng(seed)
    logits = generator.integers(0, 4, (n, choices)).astype(float)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return p, generator.integers(0, choices, n)


def test_points_by_type() -> None:
    p = np.array([[0.5, 0.5], [0.49, 0.51], [0.9, 0.1], [0.2, 0.8]])
    assert points("predicate", p, np.array([0, 1, 1, -1])).tolist() == pytest.approx([1, 1, 0, NONE], nan_ok=True)
    assert points("choice", p, np.array([0, 0, 0, 1])).tolist() == [1, 0, 1, 1]
    of_levels = np.array([[0, 0, 1.0], [1.0, 0, 0], [0.5, 0, 0.5], [0.25, 0.5, 0.25], [0, 1.0, 0]])
    found = points("score", of_levels, np.array([2, 2, 0, 1, -1]))
    assert found.tolist() == pytest.approx([1, 0, 0.5, 1, NONE], nan_ok=True)
    for kind in ("predicate", "choice", "score"):
        each = points(kind, *rows(50, 2 if kind == "predicate" else 5))
        assert each.min() >= 0 and each.max() <= 1


def test_the_mean_of_the_rows_is_the_mean_over_the_questions() -> None:
    full = np.random.default_rng(1).random((20, 3))
    assert np.allclose(row_scores(full), full.mean(1)) and np.allclose(row_means(full), full.mean(1))
    some = full.copy()
    some[3:, 0], some[::2, 1] = NONE, NONE  # 3 and 10 of 20 rows answer
    assert row_scores(some).mean() == pytest.approx(np.nanmean(some, axis=0).mean())
    assert row_scores(some).max() > 1, "a row may add more than a mean of points"
    assert row_means(some) == pytest.approx([np.nanmean(row) for row in some])
    some[:, 1] = NONE  # nobody answers it
    assert row_scores(some).mean() == pytest.approx((np.nanmean(some[:, 0]) + some[:, 2].mean()) / 2)
    perfect = np.where(np.isnan(some), NONE, 1.0)
    assert row_scores(perfect).mean() == pytest.approx(1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_interval_of_rows_stays_between_0_and_1(share: float) -> None:
    generator = np.random.default_rng(2)
    each = (generator.random((12, 2)) < share).astype(float)
    each[2:, 0] = NONE
    scores = row_scores(each)
    low, high = interval(scores)
    assert 0 <= low <= scores.mean() + 1e-12 and scores.mean() - 1e-12 <= high <= 1
    low, high = interval(scores, np.arange(12) // 2)
    assert 0 <= low <= high <= 1


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    p, places = rows(60, 2)
    assert auroc(p[:, 0], places == 0) == pytest.approx(counted_out(p[:, 0], places == 0))
    assert auroc(np.array([0.1, 0.2, 0.9]), np.array([False, False, True])) == 1
    assert auroc(np.ones(4), np.array([True, False, True, False])) == 0.5
    assert auroc(np.array([0.3, 0.4]), np.array([True, True])) is None


def test_auroc_of_a_question_is_a_mean_over_choices_or_thresholds() -> None:
    p, places = rows(60, 2, seed=3)
    assert mean_auroc("predicate", Compact(p), places) == pytest.approx(counted_out(p[:, 0], places == 0))
    p, places = rows(80, 4, seed=4)
    each = [counted_out(p[:, place], places == place) for place in range(4)]
    assert mean_auroc("choice", Compact(p), places) == pytest.approx(np.mean(each))
    untied = np.random.default_rng(6).dirichlet(np.ones(4), 80)
    thresholds = [counted_out(untied[:, place:].sum(1), places >= place) for place in (1, 2, 3)]
    assert mean_auroc("score", Compact(untied), places) == pytest.approx(np.mean(thresholds))
    seen = places % 2  # only the first two choices occur
    known = [counted_out(p[:, place], seen == place) for place in (0, 1)]
    assert mean_auroc("choice", Compact(p), seen) == pytest.approx(np.mean(known))
    assert mean_auroc("choice", Compact(p), np.zeros(80, int)) is None
    certain = np.eye(4)[places]
    assert mean_auroc("choice", Compact(certain), places) == mean_auroc("score", Compact(certain), places) == 1


def test_auroc_is_scikit_learns() -> None:
    p, places = rows(200, 5, seed=5)
    theirs = roc_auc_score(places, p, multi_class="ovr", average="macro")
    assert mean_auroc("choice", Compact(p), places) == pytest.approx(theirs)
