"""Calibration: temperature, log-loss and Brier score against scikit-learn, and errors against simulated truth."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from riyaz.metrics import calibration, selective
from riyaz.metrics.intervals import mean_interval

SIMULATIONS = 200
# 0.95 less 2.75 standard errors of 200 simulations.
COVERAGE_AT_LEAST = 0.905


def drawn(n: int, labels: int = 5, factor: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, labels) `factor` times too far apart, and the right labels (n, labels) drawn from their softmax."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 2, (n, labels))
    p = calibration.probabilities(scores, 1.0).astype(float)
    right = (generator.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(max=labels - 1)
    return factor * scores, np.eye(labels, dtype=bool)[right]


def test_probabilities_add_up_to_one_and_keep_the_order() -> None:
    scores = np.array([[1.0, -3.0, 2.0], [-900.0, -901.0, -2000.0]])
    p = calibration.probabilities(scores, 2.0)
    assert p.dtype == np.float32 and p.sum(axis=1) == pytest.approx([1, 1])
    assert p[1, 0] / p[1, 1] == pytest.approx(np.exp(0.5), rel=1e-5)
    assert (p.argsort(axis=1) == scores.argsort(axis=1)).all()


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_takes_back_what_the_scores_are_too_far_apart(factor: float) -> None:
    scores, accepted = drawn(4000, factor=factor)
    assert calibration.fit_temperature(scores, accepted) == pytest.approx(factor, rel=0.05)


def test_few_rows_that_are_all_right_give_no_certainty() -> None:
    scores = np.tile([5.0, 0.0, -1.0], (20, 1))
    accepted = np.tile([True, False, False], (20, 1))
    p = calibration.probabilities(scores, calibration.fit_temperature(scores, accepted))
    assert 0.9 < p[0, 0] < 1 - 1 / 30


def test_rows_without_a_known_label_say_nothing_of_the_temperature() -> None:
    scores, accepted = drawn(300, factor=2.0)
    more, none = np.r_[scores, scores[:50]], np.r_[accepted, np.zeros((50, 5), bool)]
    assert calibration.fit_temperature(more, none) == calibration.fit_temperature(scores, accepted)
    assert calibration.fit_temperature(scores[:0], accepted[:0]) == 1.0
    assert calibration.fit_temperature(scores[:, :1], np.ones((300, 1), bool)) == 1.0  # one label


def test_log_loss_and_brier_score_are_scikit_learns() -> None:
    scores, accepted = drawn(200)
    p = calibration.probabilities(scores, 1.0)
    right = calibration.right_probability(p, accepted)
    labels = accepted.argmax(axis=1)
    assert calibration.log_losses(right).mean() == pytest.approx(log_loss(labels, p), rel=1e-5)
    whole = brier_score_loss(labels, p, labels=range(5), scale_by_half=False)
    assert calibration.brier_scores(p, right).mean() == pytest.approx(whole, rel=1e-5)


def test_a_right_label_that_is_no_label_costs_a_limited_log_loss() -> None:
    p, accepted = np.array([[0.7, 0.3], [1.0, 0.0]]), np.array([[False, False], [True, True]])
    right = calibration.right_probability(p, accepted)
    assert right.tolist() == [0.0, 1.0]  # of two accepted labels the likeliest is the right one
    assert calibration.log_losses(right).tolist() == [-np.log(calibration.LEAST), 0.0]
    assert calibration.brier_scores(p, right) == pytest.approx([0.49 + 0.09 + 1, 0.0])


def test_the_calibration_error_has_fifteen_bins_of_equal_mass() -> None:
    confidence = np.linspace(0.3, 0.9, 150)
    correct = np.arange(150) % 3 > 0
    bins = zip(np.split(confidence, calibration.BINS), np.split(correct, calibration.BINS), strict=True)
    wanted = np.mean([abs(sure.mean() - right.mean()) for sure, right in bins])
    assert calibration.BINS == 15
    assert calibration.expected_calibration_error(confidence, correct) == pytest.approx(wanted)
    shuffled = np.random.default_rng(0).permutation(150)
    assert calibration.expected_calibration_error(confidence[shuffled], correct[shuffled]) == pytest.approx(wanted)


def test_equally_sure_rows_may_come_in_any_order() -> None:
    confidence, correct = np.full(60, 0.5), np.arange(60) < 30
    assert calibration.expected_calibration_error(confidence, correct) == pytest.approx(0)
    assert calibration.expected_calibration_error(np.array([0.8]), np.array([True])) == pytest.approx(0.2)


def test_the_band_holds_what_a_calibrated_classifier_has_and_the_interval_the_truth() -> None:
    generator = np.random.default_rng(1)
    within = covered = 0
    for _ in range(SIMULATIONS):
        confidence = generator.beta(3, 1.5, 120)
        low, high = calibration.error_by_chance(confidence)
        calm = generator.random(120) < confidence
        within += low <= calibration.expected_calibration_error(confidence, calm) <= high
        shifted = generator.random(120) < np.clip(confidence - 0.2, 0, 1)  # in truth an error of 0.2, or a little less
        low, high = calibration.error_interval(confidence, shifted)
        covered += low <= 0.195 <= high
    assert COVERAGE_AT_LEAST <= within / SIMULATIONS <= 0.985, "the band is no wider than it must be"
    assert covered / SIMULATIONS >= COVERAGE_AT_LEAST


def test_rows_of_a_group_widen_the_intervals() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 10)
    confidence, shift = generator.beta(3, 1.5, 300), np.repeat(generator.normal(0, 0.3, 30), 10)
    correct = generator.random(300) < np.clip(confidence + shift, 0, 1)
    (low, high), (wider_low, wider_high) = (
        calibration.error_interval(confidence, correct, numbers) for numbers in (None, groups)
    )
    assert wider_low <= low and wider_high > high + 0.02
    (low, high), (wider_low, wider_high) = (mean_interval(correct * 2.5, numbers) for numbers in (None, groups))
    assert wider_low < low - 0.02 and wider_high > high + 0.02
    one = np.zeros(300, int)
    assert calibration.error_interval(confidence, correct, one) == (0.0, 1.0)


def test_as_many_answers_are_given_as_keep_the_expected_error() -> None:
    confidence = np.array([0.5, 0.9, 0.99, 0.9, 0.2])
    # the expected shares of wrong ones among the 1, 3, 4 and 5 surest are .01, .07, .1775 and .302
    counts = [selective.surest(confidence, error) for error in (0.0, 0.01, 0.06, 0.07, 0.2, 0.5)]
    assert counts == [0, 1, 1, 3, 4, 5]
    assert selective.surest(np.zeros(0), 0.5) == 0
