"""Which unlabelled rows to label next: those that the classifier is unsure of and that differ from one another."""

from collections.abc import Sequence

import numpy as np

from riyaz.classifiers.regression import fit_regression
from riyaz.data import Dataset, Example
from riyaz.data.sampling import sample
from riyaz.data.task import Task
from riyaz.engine.opening import pulled_embedder
from riyaz.errors import RiyazError
from riyaz.metrics.calibration import probabilities
from riyaz.quality.examine import MOST_LABELS, MOST_ROWS
from riyaz.quality.features import beginnings, own_texts, prompt_vectors, term_blocks
from riyaz.quality.held_out import STRENGTH
from riyaz.results.problems import NextRow


def unlabelled_rows(train: Dataset, unlabelled: Dataset, task: Task) -> list[Example]:
    """The rows to choose from: those whose prompts are not labelled already, each prompt once. Raises RiyazError for a
    task without labels or with more than MOST_LABELS, and where no row is left."""
    where = str(unlabelled.path)
    if task.kind != "closed" or len(task.labels) > MOST_LABELS:
        what = "its answers are no labels" if task.kind != "closed" else f"{len(task.labels):,} labels are too many"
        raise RiyazError(f"cannot say what to label next: {what}", where, "leave --unlabelled out")
    known = {row.key for row in train.examples}
    rows = list({row.key: row for row in reversed(unlabelled.examples) if row.key not in known}.values())[::-1]
    if not rows:
        raise RiyazError("every prompt is among the labelled rows", where, "give rows that have no label yet")
    return rows


def label_next(train: Dataset, unlabelled: Dataset, task: Task, count: int) -> list[NextRow]:
    """At most `count` of the unlabelled rows, the first one first.

    Each next row has the largest product of its squared uncertainty (1 less the lead of the likeliest label over the
    second) and its squared distance to the nearest row chosen before it. Raises RiyazError as `unlabelled_rows`.
    """
    rows = unlabelled_rows(train, unlabelled, task)
    labelled = sample(train.examples, MOST_ROWS, by_label=True, seed=0, purpose="quality")
    rows = sample(rows, MOST_ROWS, by_label=False, seed=0, purpose="quality")
    vectors = _vectors([*labelled, *rows])
    places = {label: place for place, label in enumerate(task.labels)}
    labels = np.array([places[row.answer] for row in labelled])
    weights, bias = fit_regression(vectors[: len(labelled)], labels, len(task.labels), STRENGTH)
    chances = probabilities(vectors[len(labelled) :] @ weights + bias, 1.0)
    chosen = spread_choice(vectors[len(labelled) :], uncertainty(chances), count)
    best = chances.argmax(axis=1)
    return [
        NextRow(unlabelled.place(rows[i]), "\n".join(rows[i].turns), task.labels[best[i]], float(chances[i, best[i]]))
        for i in chosen
    ]


def uncertainty(chances: np.ndarray) -> np.ndarray:
    """(n,) from (n, L): 1 less the lead of the likeliest label over the second."""
    ordered = np.sort(chances, axis=1)
    second = ordered[:, -2] if chances.shape[1] > 1 else 0.0
    unsure: np.ndarray = 1 - (ordered[:, -1] - second)
    return unsure


def spread_choice(vectors: np.ndarray, unsure: np.ndarray, count: int) -> list[int]:
    """At most `count` rows, each the one with the largest squared uncertainty times squared distance to the nearest one
    chosen before; the first is the most uncertain."""
    weights, nearest = unsure**2, np.ones(len(vectors))
    chosen: list[int] = []
    free = np.ones(len(vectors), bool)
    while len(chosen) < min(count, len(vectors)):
        row = int(np.where(free, weights * nearest, -1.0).argmax())
        distance = ((vectors - vectors[row]) ** 2).sum(axis=1)
        nearest = distance if not chosen else np.minimum(nearest, distance)
        chosen.append(row)
        free[row] = False
    return chosen


def spread_texts(texts: Sequence[str], unsure: Sequence[float], count: int) -> list[int]:
    """The places of at most `count` of the texts, chosen as `label_next` does, with an uncertainty of each, (n,), that
    a model gave: 0 for sure, 1 for undecided between two answers."""
    rows = [Example(({"role": "user", "content": text},), ()) for text in texts]
    return spread_choice(_vectors(rows), np.asarray(unsure, np.float64), count)


def _vectors(rows: Sequence[Example]) -> np.ndarray:
    (texts, _), embedder = beginnings(own_texts(rows)), pulled_embedder()
    return prompt_vectors(term_blocks(texts), None if embedder is None else embedder.embed(texts))
