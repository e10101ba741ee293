"""The regression beside scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from riyaz.classifiers import regression
from riyaz.classifiers.regression import fit_regression


def rows(labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """60 rows of 8 features and their labels, which the features say half of."""
    generator = np.random.default_rng(3)
    features = generator.normal(size=(60, 8)).astype(np.float32)
    return features, (features[:, :labels] + generator.normal(size=(60, labels))).argmax(axis=1)


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("strength", [0.1, 30.0])
def test_it_finds_the_optimum_of_scikit_learn(strength: float) -> None:
    features, targets = rows()
    weights, bias = fit_regression(features, targets, 3, strength)
    oracle = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(features, targets)
    ours = probabilities(features @ weights + bias)
    np.testing.assert_allclose(ours, oracle.predict_proba(features), atol=0.01)


def test_rows_in_parts_are_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = rows()
    whole = fit_regression(features, targets, 3, 1.0)
    monkeypatch.setattr(regression, "PART", 21)  # 7 rows of 3 labels
    for one, other in zip(whole, fit_regression(features, targets, 3, 1.0)):
        np.testing.assert_allclose(one, other, atol=0.01)


def test_a_label_without_rows_has_no_weight_beyond_its_bias() -> None:
    features, targets = rows()
    weights, bias = fit_regression(features, targets, 4, 1.0)
    assert bias.argmin() == 3 and probabilities(features @ weights + bias)[:, 3].max() < 0.01
