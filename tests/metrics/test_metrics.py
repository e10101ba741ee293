"""Scores against sacrebleu and rouge-score, intervals against scipy, bounds against simulated truth."""

import string

import numpy as np
import pytest
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sacrebleu import sentence_chrf
from scipy import stats

from riyaz.data import Example
from riyaz.errors import RiyazError
from riyaz.metrics.intervals import bca_bootstrap, interval, standard_error, wilson
from riyaz.metrics.paired import (
    ROWS_CAP,
    mcnemar_exact,
    paired_bootstrap,
    paired_test,
    rows_needed_range,
    shortfall,
)
from riyaz.metrics.scores import (
    accuracy,
    chrf,
    exact_match,
    extras,
    longest_common_subsequence,
    macro_f1,
    normalise_squad,
    rouge_l,
    row_extras,
    score_rows,
    token_f1,
)

ASCII_TEXT = st.text(st.sampled_from("aAtheTHEn bcd 01.,!?'-_\t\n" + string.punctuation), max_size=40)
SIMULATIONS = 400
# 0.95 less 2.75 standard errors of 400 simulations.
COVERAGE_AT_LEAST = 0.92


# Scores


@pytest.mark.parametrize(
    "text, normal",
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("a cat, an owl", "cat owl"),
        ("U.S.A.", "usa"),
        ("theatre", "theatre"),
        ("", ""),
        ("A", "a"),
        ("A.", "a"),
        ("?!", "?!"),
    ],
)
def test_squad_normalisation(text: str, normal: str) -> None:
    assert normalise_squad(text) == normal


def test_answer_of_articles_only_is_not_the_empty_answer() -> None:
    assert exact_match("", ["A"]) == 0 and token_f1("", ["The"]) == 0
    assert exact_match("a.", ["A"]) == 1


def test_exact_match_and_token_f1_take_the_best_accepted_answer() -> None:
    answers = ["Barack Obama", "President Obama"]
    assert exact_match("the president  OBAMA.", answers) == 1
    assert exact_match("Obama", answers) == 0
    assert token_f1("Obama", answers) == pytest.approx(2 / 3)
    assert token_f1("obama obama", answers) == pytest.approx(1 / 2)  # a repeated word counts once
    assert token_f1("", answers) == 0


def test_accuracy_is_exact_but_for_outer_space() -> None:
    assert accuracy(" card lost\n", ["card lost"]) == 1
    assert accuracy("Card lost", ["card lost"]) == 0


def test_macro_f1_against_the_definition() -> None:
    generator = np.random.default_rng(0)
    true, predicted = generator.choice(list("abcd"), 200), generator.choice(list("abcde"), 200)
    expected = []
    for label in sorted(set(true)):
        hits = np.sum((true == label) & (predicted == label))
        precision, recall = hits / max(1, np.sum(predicted == label)), hits / np.sum(true == label)
        expected.append(2 * precision * recall / (precision + recall) if hits else 0)
    assert macro_f1(list(predicted), [[t] for t in true]) == pytest.approx(np.mean(expected))


@settings(max_examples=examples(200), deadline=None)
@given(ASCII_TEXT, ASCII_TEXT)
def test_rouge_l_equals_rouge_score(prediction: str, answer: str) -> None:
    expected = rouge_scorer.RougeScorer(["rougeL"]).score(answer, prediction)["rougeL"].fmeasure
    assert rouge_l(prediction, [answer]) == pytest.approx(expected)


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=90), st.lists(st.sampled_from("abcd"), max_size=90))
def test_longest_common_subsequence_equals_the_table(a: list[str], b: list[str]) -> None:
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if x == y else max(table[i - 1, j], table[i, j - 1])
    assert longest_common_subsequence(a, b) == table[-1, -1]


def test_rouge_l_reads_scripts_beyond_ascii() -> None:
    assert rouge_l("नमस्ते दुनिया", ["नमस्ते दुनिया"]) == 1
    assert rouge_l("नमस्ते दुनिया", ["नमस्ते भारत"]) == pytest.approx(1 / 2)
    assert rouge_l("猫が好き", ["犬が好き"]) == pytest.approx(3 / 4)
    assert rouge_l("café", ["caf"]) == 0


@settings(max_examples=examples(50), deadline=None)
@given(ASCII_TEXT, st.lists(ASCII_TEXT, min_size=1, max_size=3))
def test_chrf_equals_sacrebleu(prediction: str, answers: list[str]) -> None:
    assert chrf(prediction, answers) == pytest.approx(sentence_chrf(prediction, answers).score / 100)


def test_score_rows_and_extras() -> None:
    predictions, answers = ["red", "blue"], [["red"], ["green", "the blue"]]
    rows = [Example((), tuple(accepted)) for accepted in answers]
    assert score_rows("exact_match", predictions, rows).tolist() == [1, 1]
    assert score_rows("accuracy", predictions, rows).tolist() == [1, 0]
    assert set(extras("accuracy", predictions, answers, [{}, {}])) == {"macro_f1"}
    assert row_extras("accuracy", predictions, rows) == [{}, {}]
    each = row_extras("exact_match", predictions, rows)
    assert each == [{"token_f1": 1.0}] * 2 and extras("exact_match", predictions, answers, each) == {"token_f1": 1.0}
    assert set(row_extras("rouge_l", predictions, rows)[0]) == {"chrf", "length_ratio"}
    assert extras("rouge_l", [], [], []) == {} and extras("accuracy", [], [], []) == {"macro_f1": 0.0}
    some = extras("chrf", predictions, answers, [{"slots": 0.5}, {"rouge_l": 1.0}])
    assert some == {"slots": 0.5, "rouge_l": 1.0}, "a mean is over the rows that have the metric"
    with pytest.raises(RiyazError, match="unknown metric 'bleu'"):
        score_rows("bleu", predictions, rows)


# Intervals


@pytest.mark.parametrize("k, n", [(0, 1), (1, 1), (0, 20), (20, 20), (3, 20), (213, 300), (1, 100_000)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n, values", [(40, "exponential"), (200, "beta"), (300, "sparse")])
def test_bca_equals_scipy(n: int, values: str) -> None:
    generator = np.random.default_rng(1)
    sample = {
        "exponential": generator.exponential(size=n),
        "beta": generator.beta(0.5, 2, size=n),
        "sparse": generator.random(n) * (generator.random(n) < 0.1),
    }[values]
    ours = bca_bootstrap(sample, seed=2, resamples=40_000)
    oracle = stats.bootstrap((sample,), np.mean, n_resamples=40_000, method="BCa", rng=generator)
    noise = 0.06 * oracle.standard_error  # of quantiles of 40,000 draws
    assert ours == pytest.approx(tuple(oracle.confidence_interval), abs=noise)
    assert ours == bca_bootstrap(sample, seed=2, resamples=40_000)


def test_the_standard_error_of_a_weighted_mean() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.6])
    assert standard_error(values, np.full(4, 7)) == pytest.approx(stats.sem(values))
    draw = np.random.default_rng(1)
    weights = draw.integers(1, 9, size=(4000, 30)).astype(float)
    noise = draw.normal(size=(4000, 30))
    means = (noise * weights).sum(1) / weights.sum(1)
    found = [standard_error(row, weight) for row, weight in zip(noise, weights)]
    assert np.mean(found) == pytest.approx(means.std(), rel=0.05)
    assert standard_error(values[:1], np.ones(1)) is None


def test_interval_never_claims_certainty_from_equal_rows() -> None:
    assert interval(np.zeros(0)) == (0.0, 1.0)
    assert interval(np.ones(20)) == wilson(20, 20)
    low, high = interval(np.full(20, 0.5))
    assert low < 0.4 and high > 0.6
    assert bca_bootstrap(np.full(20, 0.5)) == (0.5, 0.5)
    low, high = interval(np.array([0.3, 0.4]))
    assert 0.3 <= low <= high <= 0.4


def test_coverage_of_wilson() -> None:
    generator = np.random.default_rng(3)
    for p, n in [(0.5, 30), (0.9, 50), (0.7, 300)]:
        bounds = np.array([wilson(k, n) for k in generator.binomial(n, p, SIMULATIONS)])
        assert np.mean((bounds[:, 0] <= p) & (p <= bounds[:, 1])) >= COVERAGE_AT_LEAST


def test_coverage_and_width_of_bca() -> None:
    generator, n = np.random.default_rng(4), 100
    rows = generator.beta(1, 3, size=(SIMULATIONS, n))
    bounds = np.array([bca_bootstrap(row, seed=i, resamples=999) for i, row in enumerate(rows)])
    assert np.mean((bounds[:, 0] <= 0.25) & (bounds[:, 1] >= 0.25)) >= COVERAGE_AT_LEAST
    normal = 2 * 1.96 * rows.std(axis=1).mean() / np.sqrt(n)
    assert np.ptp(bounds, axis=1).mean() == pytest.approx(normal, rel=0.05)


# Pairs of arms


@pytest.mark.parametrize("won, lost", [(0, 0), (1, 0), (5, 0), (9, 4), (30, 30), (4, 22)])
def test_mcnemar_equals_the_binomial_test(won: int, lost: int) -> None:
    a = np.r_[np.ones(won), np.zeros(lost), np.ones(10), np.zeros(7)]
    b = np.r_[np.zeros(won), np.ones(lost), np.ones(10), np.zeros(7)]
    expected = stats.binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected)
    assert mcnemar_exact(b, a) == mcnemar_exact(a, b)


def test_paired_bootstrap_against_scipy() -> None:
    generator = np.random.default_rng(5)
    a = generator.beta(2, 2, size=150)
    b = np.clip(a - 0.02 + 0.1 * generator.normal(size=150), 0, 1)
    ours = paired_bootstrap(a, b)
    oracle = stats.bootstrap((a - b,), np.mean, n_resamples=9_999, method="BCa", rng=generator)
    assert (ours.low, ours.high) == pytest.approx(tuple(oracle.confidence_interval), abs=0.06 * oracle.standard_error)
    assert ours.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.01)


def test_paired_test_chooses_the_test_by_the_rows() -> None:
    a, b = np.array([1.0, 1, 0, 1] * 20), np.array([1.0, 0, 0, 1] * 20)
    binary = paired_test(a, b)
    assert binary.test == "mcnemar" and binary.p_value < 1e-5 and binary.low > 0
    assert binary.difference == pytest.approx(0.25)
    assert paired_test(a * 0.5, b).test == "paired bootstrap"
    same = paired_test(a, a)
    assert same.p_value == 1 and same.low < 0 < same.high  # agreeing rows leave some doubt
    assert paired_test(a * 0.5, a * 0.5).p_value == 1


# Simultaneous bounds


def _binary_arms(generator: np.random.Generator, truth: np.ndarray, n: int) -> np.ndarray:
    """0/1 rows (M, n) with means `truth` (M,), positively correlated as arms on the same rows are."""
    shared = generator.normal(size=n)
    own = generator.normal(size=(len(truth), n))
    return ((0.7 * shared + 0.51**0.5 * own) < stats.norm.ppf(truth)[:, None]).astype(float)


@pytest.mark.parametrize(
    "truth, n",
    [
        ([0.7, 0.68], 100),
        ([0.9, 0.6, 0.6, 0.6, 0.6], 40),
        ([0.97, 0.95, 0.95], 60),
        ([0.7, 0.6, 0.5, 0.3], 150),
    ],
)
def test_coverage_and_width_of_the_shortfall_bounds(truth: list[float], n: int) -> None:
    generator, means = np.random.default_rng(6), np.array(truth)
    true = means.max() - means
    covered, excess, normal = [], [], []
    for simulation in range(SIMULATIONS):
        rows = _binary_arms(generator, means, n)
        upper = shortfall(rows, seed=simulation, resamples=499).upper
        covered.append((true <= upper).all())
        excess.append((upper - true)[1:].mean())
        normal.append((rows[0] - rows[1:]).std(axis=1).mean() / np.sqrt(n))
    assert np.mean(covered) >= COVERAGE_AT_LEAST
    # Bonferroni over the rivals of one known best, plus what counts for the best being unknown.
    bonferroni = stats.norm.ppf(1 - 0.05 / (len(truth) - 1)) * np.mean(normal)
    assert np.mean(excess) <= 1.5 * bonferroni


def test_coverage_when_arms_differ_on_few_rows() -> None:
    generator, n, losses = np.random.default_rng(7), 100, 4
    covered = []
    for simulation in range(SIMULATIONS):
        rows = np.vstack([np.ones(n), generator.random((3, n)) >= losses / n])
        upper = shortfall(rows, seed=simulation, resamples=499).upper
        covered.append((losses / n <= upper[1:]).all())
    assert np.mean(covered) >= COVERAGE_AT_LEAST


def test_bounds_count_that_the_best_arm_is_unknown() -> None:
    """The best by score has no bound of 0 while another arm may be better."""
    generator = np.random.default_rng(8)
    upper = shortfall(_binary_arms(generator, np.array([0.6, 0.6]), 100)).upper
    assert (upper > 0.02).all()
    clear = shortfall(_binary_arms(generator, np.array([0.9, 0.3]), 100)).upper
    assert clear[0] == 0 and clear[1] > 0.4


def test_a_bound_reaches_further_on_the_side_of_the_long_tail() -> None:
    tails = np.random.default_rng(12).exponential(0.1, (5, 60))
    rare_losses, rare_wins = np.vstack([np.ones(60), 1 - tails]), np.vstack([np.zeros(60), tails])
    # A supposed best whose rivals rarely lose much may lead by more than the rows seen show.
    assert shortfall(rare_losses).critical[0] > shortfall(rare_wins).critical[0] + 0.3


def test_bounds_of_degenerate_arms() -> None:
    assert shortfall(np.ones((1, 5))).upper.tolist() == [0]
    few, many = shortfall(np.ones((2, 20))).upper, shortfall(np.ones((2, 400))).upper
    assert few.min() > 0.1 and many.max() < 0.02  # twenty agreeing rows prove little, four hundred enough
    apart = shortfall(np.vstack([np.ones(50), np.zeros(50)])).upper
    assert apart[0] == 0 and apart[1] == 1
    shifted = shortfall(np.vstack([np.full(50, 0.5), np.full(50, 0.4)])).upper
    assert shifted[0] == 0 and 0.1 <= shifted[1] < 0.12
    assert np.isfinite(shortfall(np.array([[1.0], [0.0]])).upper).all()


def test_bounds_do_not_depend_on_the_order_of_arms() -> None:
    rows = _binary_arms(np.random.default_rng(9), np.array([0.7, 0.6, 0.65, 0.2]), 120)
    order = [2, 0, 3, 1]
    assert shortfall(rows, seed=1).upper[order] == pytest.approx(shortfall(rows[order], seed=1).upper)


def test_rows_needed_decides_about_four_times_in_five() -> None:
    kinds = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    seen = np.repeat(kinds, [62, 8, 4, 26], axis=0).T
    bounds = shortfall(seen)
    assert bounds.upper.min() > 0.02  # not decided by these 100
    needed, generator = bounds.rows_needed(0.02), np.random.default_rng(10)
    decided = [
        (shortfall(seen[:, generator.integers(0, 100, needed)], seed=i, resamples=499).upper <= 0.02).any()
        for i in range(200)
    ]
    assert 0.65 <= np.mean(decided) <= 0.95


def test_rows_needed_is_more_than_there_are_and_capped() -> None:
    rows = _binary_arms(np.random.default_rng(11), np.array([0.6, 0.6]), 100)
    bounds = shortfall(rows)
    assert 100 < bounds.rows_needed(0.05) < bounds.rows_needed(0.02) <= ROWS_CAP
    swapped = np.vstack([rows[0], rows[0][::-1]])
    assert shortfall(swapped).rows_needed(0.0) == ROWS_CAP  # equal means: no number of rows tells them apart
    assert rows_needed_range(swapped, shortfall(swapped), 0.0)[1] == ROWS_CAP


def test_the_range_of_rows_needed_mostly_holds_the_truth() -> None:
    """Of three arms at .70, .68 and .68, 1,150 rows certify one with a probability of .8 (found by simulation)."""
    held = []
    for simulation in range(60):
        generator = np.random.default_rng(simulation)
        ability = np.sqrt(0.75) * generator.normal(size=150) + 0.5 * generator.normal(size=(3, 150))
        rows = (ability < stats.norm.ppf([[0.7], [0.68], [0.68]])).astype(float)
        bounds = shortfall(rows, resamples=299)
        if bounds.upper.min() > 0.02:
            low, high = rows_needed_range(rows, bounds, 0.02)
            assert low <= bounds.rows_needed(0.02) <= high
            held.append(low <= 1150 <= high)
    assert len(held) > 30 and np.mean(held) >= 0.8
