"""Intervals, paired tests and bounds over groups: against scipy, by leaving groups out, and against simulated truth."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from riyaz.metrics.groups import clustered_error, group_means, group_numbers, within
from riyaz.metrics.intervals import interval, wilson
from riyaz.metrics.paired import mcnemar_exact, paired_test, sign_flips

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import clusters


def unequal(seed: int, groups: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """0/1 scores of two arms and the numbers of unequal groups."""
    generator = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(groups), generator.integers(1, 9, groups))
    return (generator.random(len(numbers)) < 0.7), (generator.random(len(numbers)) < 0.5), numbers


def test_rows_are_numbered_by_group_and_one_without_a_group_stands_alone():
    assert group_numbers(["a", None, "b", "a", None]).tolist() == [0, 1, 2, 0, 3]
    assert group_numbers(["a", "b", None]) is None, "as many groups as rows: the rows are independent"
    numbers = np.array([0, 0, 1, 2, 2, 2])
    assert within(numbers, numbers > 0).tolist() == [0, 1, 1, 1]
    assert within(numbers, np.array([0, 2, 3])) is None and within(None, numbers > 0) is None


def test_group_means_have_the_mean_of_the_rows():
    a, b, numbers = unequal(0)
    means = group_means(np.array([a, b], float), numbers)
    assert means.shape == (2, 12) and means.mean(axis=1) == pytest.approx([a.mean(), b.mean()])
    rows = np.arange(12.0).reshape(1, -1)
    assert group_means(rows, np.repeat(np.arange(4), 3)).tolist() == [[1, 4, 7, 10]]


def test_the_error_is_that_of_leaving_out_every_group_once():
    scores, _, numbers = unequal(1)
    left_out = np.array([scores[numbers != group].mean() for group in range(12)])
    assert clustered_error(scores, numbers) == pytest.approx(np.sqrt(11 / 12 * ((left_out - scores.mean()) ** 2).sum()))
    equal = np.repeat(np.arange(10), 5)
    values = np.random.default_rng(2).random(50)
    assert clustered_error(values, equal) == pytest.approx(stats.sem(values.reshape(10, 5).mean(axis=1)))


def test_an_interval_over_groups_is_wilsons_with_the_rows_that_the_groups_are_worth():
    scores = np.repeat(np.arange(30) < 21, 10).astype(float)  # all ten rows of a group alike
    low, high = interval(scores, np.repeat(np.arange(30), 10))
    assert (low, high) == pytest.approx(wilson(0.7 * 29, 29, float(stats.t.ppf(0.975, 29))))
    assert high - low > 2.5 * np.diff(interval(scores))[0], "over the rows it would be far too narrow"
    assert interval(np.ones(60), np.repeat(np.arange(6), 10))[0] == pytest.approx(0.476, abs=0.01), "six rows' worth"
    assert interval(np.ones(60), np.zeros(60, int)) == (0.0, 1.0), "one group says nothing"


def test_signs_are_flipped_as_scipy_does():
    for seed in range(5):
        a, b, numbers = unequal(seed)
        gain = a.astype(float) - b
        sums = np.bincount(numbers, gain)
        known = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert sign_flips(gain, numbers) == pytest.approx(known.pvalue)
        assert sign_flips(gain, numbers, draws=4000) == pytest.approx(known.pvalue, abs=0.03), "drawn, not all"


def test_one_row_a_group_is_mcnemars_test():
    a, b = unequal(3, 6)[:2]
    assert sign_flips(a.astype(float) - b, np.arange(len(a))) == pytest.approx(mcnemar_exact(a, b), abs=0.02)
    assert sign_flips(np.zeros(9), np.repeat([0, 1, 2], 3)) == 1.0


def test_a_difference_in_one_group_only_is_no_evidence():
    numbers = np.repeat(np.arange(12), 10)
    a, b = np.ones(120), np.where(numbers == 0, 0.0, 1.0)
    over_rows, over_groups = paired_test(a, b), paired_test(a, b, numbers)
    assert over_rows.p_value < 0.01 and over_rows.low > 0
    assert over_groups.p_value == 1.0 and over_groups.low < 0 < over_groups.high
    assert over_groups.test == "sign flips over groups" and over_groups.difference == over_rows.difference


@pytest.mark.parametrize(("size", "equal"), [(5, True), (20, True), (5, False)])
def test_coverage_and_certificates_over_groups(size: int, equal: bool) -> None:
    """A small seeded run of benchmarks/clusters.py; three standard errors of 300 runs are 0.038 at 0.95."""
    shares = clusters.measure(40, size, equal, runs=300, seed=1)
    assert 0.912 <= shares["mean_groups"] <= 0.985 and shares["lead_groups"] >= 0.912
    assert shares["wrong_groups"] <= 0.088
    assert shares["mean_rows"] < shares["mean_groups"], "over rows the interval is too narrow"


def test_few_groups_certify_nothing() -> None:
    shares = clusters.measure(9, 20, True, runs=40, seed=1)
    assert shares["wrong_groups"] == 0 < shares["wrong_rows"]
