"""What label the other rows suggest for a row: a logistic regression that was fitted without the row.

The rows are dealt into folds, those of one group into the same one, and no copy of a row is fitted that is held out. A
temperature makes the probabilities those of the labels, under the assumption that a share of the labels is drawn at
random: else the wrong labels themselves would make every prediction look unsure.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax, softmax

from riyaz.classifiers.folds import folds_of, numbers, without_copies
from riyaz.classifiers.regression import fit_regression

SMALL = 50_000  # rows times labels up to which there are more folds, and two deals whose predictions are averaged
FOLDS = {True: 10, False: 5}  # of a small set, and of a larger one
DEALS = {True: 2, False: 1}
STRENGTH = 10.0  # C of the regression
TEMPERATURES = np.exp(np.linspace(np.log(0.3), np.log(5.0), 25))  # factors of the logits
NOISE_STEPS = 60  # of expectation-maximisation
FIRST_NOISE = 0.05  # share of random labels at which it begins


def out_of_fold(
    vectors: np.ndarray, labels: np.ndarray, keys: Sequence[str], units: Sequence[str] | None = None, seed: int = 0
) -> np.ndarray:
    """(n, L) probabilities from regressions that have not seen the row; 0 for labels that no other fold has.

    `vectors` (n, d), `labels` (n,) in 0..L-1. No row is judged by one with its key or, where there are two units or
    more, by one of its unit.
    """
    count = int(labels.max()) + 1
    if len(set(keys)) == 1:
        return np.zeros((len(labels), count))
    copies = numbers(keys)
    together = copies if units is None or len(set(units)) == 1 else numbers(units)
    small = len(labels) * count <= SMALL
    deals = [_deal(labels, together, FOLDS[small], seed + number) for number in range(DEALS[small])]
    logits = np.mean([_held_out_logits(vectors, labels, folds, copies, count) for folds in deals], axis=0)
    return _calibrated(logits, labels)


def _held_out_logits(
    vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray, copies: np.ndarray, count: int
) -> np.ndarray:
    """(n, L) log-probabilities, -inf for labels that the regression has not seen."""
    logits = np.full((len(labels), count), -np.inf)
    for fold in np.unique(folds):
        held = folds == fold
        kept = without_copies(copies, held)
        known, places = np.unique(labels[kept], return_inverse=True)
        weights, bias = fit_regression(vectors[kept], places, len(known), STRENGTH)
        logits[np.ix_(held, known)] = log_softmax(vectors[held] @ weights + bias, axis=1)
    return logits


def _deal(labels: np.ndarray, units: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each row: the rows of each label are dealt evenly, rows of one unit to the fold of the first."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return folds_of(units, order[np.argsort(labels[order], kind="stable")], folds)


def _calibrated(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, L) probabilities at the temperature, and with the share of random labels, that make the labels likeliest."""
    rows, others = np.arange(len(labels)), max(1, logits.shape[1] - 1)
    judged = np.isfinite(logits[rows, labels])
    best, chances = -np.inf, softmax(logits, axis=1)
    for factor in TEMPERATURES if judged.any() else ():
        each = softmax(logits * factor, axis=1)
        own = np.maximum(each[rows, labels][judged], 1e-300)
        share = FIRST_NOISE
        for _ in range(NOISE_STEPS):
            random, true = share / others * (1 - own), (1 - share) * own
            share = float((random / (random + true)).mean())
        likelihood = float(np.log(share / others * (1 - own) + (1 - share) * own).mean())
        if likelihood > best:
            best, chances = likelihood, each
    return chances
