"""One model in several precisions on the same rows: how likely its right answers are, and what it takes."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from riyaz import hardware
from riyaz.data import Example
from riyaz.data.judging import accepted_rows
from riyaz.data.task import Task
from riyaz.metrics.calibration import log_softmax
from riyaz.metrics.groups import clustered_error, group_numbers, quantile
from riyaz.metrics.intervals import CONFIDENCE
from riyaz.predictor import ModelPredictor
from riyaz.results import PrecisionScore
from riyaz.scoring import (
    accepted_labels,
    answer_log_probabilities,
    answers_alone,
    by_text,
    decided_log_p,
    score,
)

LABEL_ROWS, TEXT_ROWS = 128, 48  # rows that are compared, at most
TIMED_ROWS, TIMED_SECONDS = 16, 10.0  # rows that are answered alone, at most, and the seconds after which no more are
# the temperatures of a predictor's questions, or of its closed set as the only one, fitted to scores (n, L) of rows
FitTemperatures = Callable[[Sequence[np.ndarray], Sequence[Example]], Sequence[float]]


@dataclass(frozen=True)
class Measured:
    """A model in one precision: −log p (n,) of each row's right answer in nats, the number (n,) of its tokens (or
    labels), and what an answer takes."""

    precision: str
    served: str
    mb: float
    nats: np.ndarray
    tokens: np.ndarray
    ms_per_answer: float
    score: float | None


def compared_rows(task: Task, rows: Sequence[Example]) -> tuple[Example, ...]:
    """The rows whose right answers are compared: of those that have one the first."""
    if task.kind == "questions":
        return tuple(rows[:LABEL_ROWS])
    if task.kind != "closed":
        return tuple(accepted_rows(rows) or rows)[:TEXT_ROWS]
    known = accepted_labels(task, rows)
    return tuple(row for row, right in zip(rows, known) if right.any())[:LABEL_ROWS]


def weights_mb(predictor: ModelPredictor) -> float:
    """MB of a model's weights in memory, adapters aside; 0 by an engine that does not tell."""
    return float(getattr(predictor.lm.runner, "nbytes", 0)) / hardware.MB


def measure(
    precision: str, predictor: ModelPredictor, task: Task, rows: Sequence[Example], timed: Sequence[Example],
    fit: FitTemperatures | None = None,
) -> Measured:  # fmt: skip
    """A predictor whose model is in `precision` on these rows, and its answers to the `timed` ones, one at a time.
    `fit` fits the temperatures to the rows; without it they are the predictor's own."""
    nats, tokens = right_answer_nats(predictor, task, rows, fit)
    answers, milliseconds = answers_alone(predictor, timed, seconds=TIMED_SECONDS)
    points = score(by_text(task), answers, timed[: len(answers)]).mean
    ms, mb = statistics.median(milliseconds), weights_mb(predictor)
    return Measured(precision, predictor.served, mb, nats, tokens, ms, points)


def right_answer_nats(
    predictor: ModelPredictor, task: Task, rows: Sequence[Example], fit: FitTemperatures | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(−log p (n,) of each row's right answer in nats, the number (n,) of its tokens or labels): of labels calibrated,
    and of several right ones together."""
    conversations, where = [row.messages for row in rows], [row.where for row in rows]
    if predictor.has_questions:
        each = predictor.question_scores(conversations, where)
        parts = decided_log_p(task, each, fit(each, rows) if fit else predictor.temperatures, rows)
    elif predictor.has_labels:
        scores = predictor.label_scores(conversations, where)
        temperature = fit([scores], rows)[0] if fit else predictor.temperature or 1.0
        log_p = np.where(accepted_labels(task, rows), log_softmax(scores / temperature), -np.inf)
        return -np.logaddexp.reduce(log_p, axis=1), np.ones(len(rows))
    else:
        parts = answer_log_probabilities(predictor, rows)
    return -np.array([part.sum(dtype=np.float64) for part in parts]), np.array([len(part) for part in parts], float)


def compared(measured: Sequence[Measured], rows: Sequence[Example]) -> list[PrecisionScore]:
    """What was measured on these rows, each beside the first."""
    groups = group_numbers([row.group for row in rows])
    scores = []
    for each in measured:
        mean, bound = paired_bound(each.nats - measured[0].nats, each.tokens, groups)
        nats = float(each.nats.sum() / each.tokens.sum())
        scores.append(
            PrecisionScore(
                each.precision, each.served, each.mb, nats, mean, bound if math.isfinite(bound) else None, len(rows),
                each.ms_per_answer, each.score,
            )
        )  # fmt: skip
    return scores


def paired_bound(differences: np.ndarray, tokens: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """(the mean, its upper 95 % bound) of the differences (n,) of rows per token, of which they have `tokens` (n,):
    mean + t · error over rows, or over `groups` (n,); infinite for fewer than two."""
    values = differences * len(tokens) / tokens.sum()  # of whole answers, as the tokens of one are not independent
    groups = np.arange(len(values)) if groups is None else groups
    mean, error = float(values.mean()), clustered_error(values, groups)
    return mean, mean + quantile(groups, CONFIDENCE) * error if math.isfinite(error) else math.inf
