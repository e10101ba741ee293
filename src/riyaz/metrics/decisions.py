"""Scores of the answers to typed questions. n rows, Q questions, L choices of one of them; NaN: no answer is known.

A choice is right or wrong, a predicate too at a probability of one half, and a score is 1 − |error| ÷ (levels − 1),
where the error is that of the expected level.
"""

from collections.abc import Callable

import numpy as np

from riyaz.metrics.compact import Compact


def points(kind: str, probabilities: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The points (n,) in 0..1 of the answers to one question of this type, from the probabilities (n, L) of its choices
    and the place (n,) of the right one; NaN where that is negative, as it is not known."""
    p, places = np.asarray(probabilities, np.float64), np.asarray(places)
    if kind == "predicate":
        won = (p[:, 0] >= 0.5) == (places == 0)
    elif kind == "choice":
        won = p.argmax(1) == places
    else:
        won = 1 - np.abs(p @ np.arange(p.shape[1]) - places) / (p.shape[1] - 1)
    return np.where(places >= 0, won, np.nan).astype(float)


def row_means(each: np.ndarray) -> np.ndarray:
    """The mean of every row (n,) over the questions that it answers, from points (n, Q)."""
    return np.nanmean(each, axis=1)


def row_scores(each: np.ndarray) -> np.ndarray:
    """What every row (n,) adds to the mean over the questions, from points (n, Q): their mean is the mean over the
    questions of each one's mean over the rows that answer it, as in a ratio estimate. Without missing answers these are
    the means of the rows; with some a row's may be above 1."""
    answered = ~np.isnan(each)
    counts = answered.sum(0)
    has_rows = counts > 0
    weights = np.where(has_rows, len(each) / np.maximum(counts, 1), 0.0) / max(1, int(has_rows.sum()))  # (Q,)
    scores: np.ndarray = np.where(answered, each, 0.0) @ weights
    return scores


def auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """The area under the ROC curve of scores (n,) for `right` (n,): the chance that a right one is above a wrong one,
    ties half (Mann and Whitney 1947). None where all are alike."""
    right = np.asarray(right, bool)
    ours, others = np.sort(scores[right]), np.sort(scores[~right])
    if not len(ours) or not len(others):
        return None
    below = sum(int(np.searchsorted(others, ours, side).sum()) for side in ("left", "right")) / 2  # ties in one of both
    return below / (len(ours) * len(others))


def mean_auroc(kind: str, p: Compact, places: np.ndarray) -> float | None:
    """`auroc` of a predicate's truth by the probabilities (n, L) of its choices; else the mean over the choices, each
    against all others, or over the thresholds between a score's levels. `places` (n,) are known."""
    places = np.asarray(places)
    if kind == "predicate":
        return auroc(_column(p, 0), places == 0)
    above: Callable[[int], tuple[np.ndarray, np.ndarray]] = {
        "choice": lambda place: (_column(p, place), places == place),
        "score": lambda place: (np.concatenate([b[:, place + 1 :].sum(1) for b in p.blocks()]), places > place),
    }[kind]
    choices = next(p.blocks()).shape[1]
    each = [auroc(*above(place)) for place in range(choices - (kind == "score"))]
    known = [area for area in each if area is not None]
    return float(np.mean(known)) if known else None


def _column(p: Compact, place: int) -> np.ndarray:
    return np.concatenate([block[:, place] for block in p.blocks()])
