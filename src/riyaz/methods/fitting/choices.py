"""Choices on validation rows: the best of several prompts and the longest answer to allow."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from riyaz.data import Example
from riyaz.data.judging import accepted_rows
from riyaz.data.task import SMALLEST_LIMIT, limit_for
from riyaz.engine.opening import open_engine
from riyaz.errors import RiyazError
from riyaz.events import Progress
from riyaz.methods.fitting.base import HALVED, VALID_ROWS, Context, Rounds, instruction_only
from riyaz.metrics.calibration import fit_temperature, probabilities
from riyaz.metrics.decisions import row_scores
from riyaz.predictor import ClosedPredictor, DecisionModel, ModelPredictor, Prediction, predictor_for
from riyaz.scoring import (
    accepted_labels,
    answer_log_loss,
    answer_log_probabilities,
    answer_pairs,
    by_text,
    decided_log_p,
    decided_points,
    preferred,
    right_places,
    score,
    score_raw_and_calibrated,
)

# "Limit" is the number of tokens after which an answer is cut off.
FREE_QUANTILE = 0.95  # of the lengths of free-text training answers, in place of the longest
LIMIT_QUANTILES = (0.75, 0.5, 0.25)  # of these lengths: the limits of an untrained model's free text to choose from
# Standard errors by which one of many candidates must be better than the first: the best of two dozen is 1.4 above it
# by chance, and was worse on quickstart's test rows (docs/log.md).
SURE = 2.0
LIMIT_ROWS = 16  # validation rows on which one of them is chosen


@dataclass(frozen=True)
class Choice:
    """The chosen predictor and the scores of all candidates."""

    predictor: ModelPredictor
    calibrated: bool  # always False for open answers
    score: float  # on validation: accuracy for a closed set, else the negative log-loss of the answers
    record: list[dict[str, Any]]  # the settings and the score of every candidate, and the rows it was scored on
    seconds: float
    log_p: np.ndarray  # (n,) of the validation rows' answers, end token included; NaN where it was not read

    def log_loss(self, rows: Sequence[Example]) -> float:
        """`answer_log_loss` of the predictor on these rows, the first of the validation rows."""
        log_p = self.log_p[: len(rows)]
        if len(log_p) < len(rows) or np.isnan(log_p).any():
            return answer_log_loss(self.predictor, rows)
        return -float(log_p.sum()) / sum(map(len, self.predictor.tokenizer.answer_ids([row.said for row in rows])))


def choose(
    context: Context, candidates: Sequence[ModelPredictor], rounds: Rounds = HALVED, *,
    notes: Sequence[dict[str, Any]] = (), first_stays: bool = False,
) -> Choice:  # fmt: skip
    """The candidate with the highest score on the validation rows; of equal ones the first, so list cheap ones first.

    For a closed set the score is accuracy, measured without and with calibration. For other tasks it is the negative
    log-loss of the accepted answers, which needs no generation and is finer than the share of matches. In each of the
    `rounds` the best candidates on so many rows are left (successive halving: Jamieson & Talwalkar 2016), and in the
    last one those on all rows are compared. Candidates whose prompts do not fit the context are left out. `notes` has
    entries of the record for each candidate. With `first_stays` the first candidate is in every round, the record has
    the others' differences from it, and one of them is chosen only if its difference is above SURE standard errors.
    Raises RiyazError if none fits.
    """
    rows, began = context.valid[: context.valid_rows], time.perf_counter()
    record, left, seen = list[dict[str, Any]](), list(range(len(candidates))), 0
    tried: dict[tuple[int, bool], Tried] = {}
    for until, keep in stages(len(candidates), len(rows), rounds):
        more = {(each.place, each.calibrated): each for each in _tried(context, candidates, left, rows[seen:until])}
        tried = {key: tried[key].and_of(each) if seen else each for key, each in more.items()}
        first = _best(each for each in tried.values() if each.place == 0) if first_stays else None
        record += [_record(each, until, first) | (notes[each.place] if notes else {}) for each in tried.values()]
        best_first = sorted(tried.values(), key=Tried.score, reverse=True)  # of equal ones the first
        ranked = dict.fromkeys([*([0] if first else []), *(each.place for each in best_first)])
        left, seen = sorted(list(ranked)[:keep]), until
    chosen = _best(tried.values())
    assert chosen is not None
    if first is not None and not _is_better(chosen, first):
        chosen = first
    seconds = time.perf_counter() - began
    return Choice(chosen.predictor, chosen.calibrated, chosen.score(), record, seconds, chosen.log_p)


def reworded(context: Context, choice: Choice) -> Choice:
    """The choice, or the same prompts with the instruction that another arm has chosen, where they score higher."""
    text = choice.predictor.text
    if context.wording is None or context.wording == text.instruction:
        return choice
    try:
        other = choose(context, [replace(choice.predictor, text=replace(text, instruction=context.wording))])
    except RiyazError:  # it does not fit the context
        return choice
    best = other if other.score > choice.score else choice
    return replace(best, record=[*choice.record, *(each | {"instruction": context.wording} for each in other.record)])


def stages(candidates: int, rows: int, rounds: Rounds = HALVED) -> list[tuple[int, int]]:
    """The rounds that so many candidates take on so many validation rows: (rows until there, candidates left)."""
    rows = min(VALID_ROWS, rows)
    needed = [(until, keep) for until, keep in rounds if candidates > keep and rows > until]
    return [*needed, (rows, 1)]


class Tried(NamedTuple):
    """A candidate on some rows."""

    place: int  # among the candidates
    predictor: ModelPredictor
    calibrated: bool
    points: np.ndarray  # of which the mean is its score
    log_p: np.ndarray  # (n,) of the rows' answers, as in Choice

    def score(self) -> float:
        """The mean of the points."""
        return float(self.points.mean(dtype=np.float64))

    def and_of(self, more: "Tried") -> "Tried":
        """The same on these rows and those of `more`."""
        points, log_p = (np.concatenate(pair) for pair in ((self.points, more.points), (self.log_p, more.log_p)))
        return self._replace(points=points, log_p=log_p)


def _tried(
    context: Context, candidates: Sequence[ModelPredictor], places: Sequence[int], rows: Sequence[Example]
) -> list[Tried]:
    """The points of the candidates at these places on the rows. Raises the last error if none could be scored."""
    tried: list[Tried] = []
    last_error = None
    for done, place in enumerate(places):
        context.listen(Progress("choose", done, len(places)))
        try:
            tried += [Tried(place, *scored) for scored in candidate_points(context, candidates[place], rows)]
        except RiyazError as error:
            last_error = error
    if not tried:
        assert last_error is not None
        raise last_error
    return tried


def _best(tried: Iterable[Tried]) -> Tried | None:
    """The one with the highest score; of equal ones the first; None of none."""
    return max(tried, key=Tried.score, default=None)


def _is_better(one: Tried, other: Tried) -> bool:
    """Whether the scores of the same rows differ by more than SURE standard errors."""
    difference, error = _difference(one, other)
    return difference > SURE * error


def _difference(one: Tried, other: Tried) -> tuple[float, float]:
    """The mean difference between the scores of the same rows, and its standard error. Of texts it is that of the
    log-probabilities of whole answers, as their tokens are not independent, in nats per token."""
    closed = len(one.points) == len(one.log_p)
    apart = one.points - other.points if closed else (one.log_p - other.log_p) * len(one.log_p) / len(one.points)
    return float(apart.mean()), float(apart.std(ddof=1) / math.sqrt(len(apart))) if len(apart) > 1 else math.inf


def _record(tried: Tried, rows: int, first: Tried | None) -> dict[str, Any]:
    text = asdict(tried.predictor.text)
    settings = {key: text[key] for key in ("list_labels", "examples", "k", "passages")}
    record = settings | {"calibrated": tried.calibrated, "validation": round(tried.score(), 6), "rows": rows}
    if first is None:
        return record
    difference, error = _difference(tried, first)
    return record | {"difference": round(difference, 6), "error": round(error, 6) if math.isfinite(error) else None}


def fitted_temperature(context: Context, predictor: ModelPredictor) -> float | None:
    """The temperature with which a predictor's probabilities fit the validation rows of a closed set; None for other
    tasks."""
    if not predictor.has_labels:
        return None
    rows = context.valid[: context.valid_rows]
    return fit_temperature(label_scores(predictor, rows), accepted_labels(context.task, rows))


def label_scores(predictor: ClosedPredictor, rows: Sequence[Example]) -> np.ndarray:
    """The labels' scores (n, L) of rows, whose softmax at a temperature is the probability of each label."""
    return predictor.label_scores([row.messages for row in rows], [row.where for row in rows])


def rows_scored(candidates: int, rows: int, rounds: Rounds = HALVED) -> int:
    """How many times `choose` scores a row, for at most this many candidates and validation rows."""
    scored, seen = 0, 0
    for until, keep in stages(candidates, rows, rounds):
        scored += candidates * (until - seen)
        candidates, seen = keep, until
    return scored


def candidate_points(
    context: Context, predictor: ModelPredictor, rows: Sequence[Example]
) -> list[tuple[ModelPredictor, bool, np.ndarray, np.ndarray]]:
    """(predictor, calibrated, points, log p of each row's answer) of a candidate, whose score is the mean of its
    points: the rows' scores for a closed set, of a search without and with calibration, in one pass; else log p of the
    answers' tokens."""
    if predictor.has_questions:
        return [(predictor, False, *question_points(predictor, rows))]
    if context.task.metric == "preferred":
        pairs = answer_pairs(predictor, rows)
        return [(predictor, False, preferred(pairs), np.array([pair.better for pair in pairs]))]
    if not predictor.has_labels:
        rows = accepted_rows(rows)
        parts = answer_log_probabilities(predictor, rows)
        log_p = np.array([part.sum(dtype=np.float64) for part in parts])
        return [(predictor, False, np.concatenate(parts), log_p)]
    if predictor.head is not None:
        scores = label_scores(predictor, rows)
        likeliest = [Prediction(predictor.task.labels[i]) for i in scores.argmax(1)]
        own = [predictor.task.labels.index(row.answer) for row in rows]
        return [(predictor, False, score(context.task, likeliest, rows).rows, scores[np.arange(len(rows)), own])]
    *both, log_p = score_raw_and_calibrated(predictor, rows)
    return [(replace(predictor, calibrated=on), on, points, log_p) for on, points in zip((False, True), both)]


def question_points(predictor: DecisionModel, rows: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """The score (n,) of every row that answers questions, and the sum (n,) of log p of their right choices."""
    task = predictor.task
    scores = predictor.question_scores([row.messages for row in rows], [row.where for row in rows])
    temperatures = predictor.temperatures or [1.0] * len(scores)
    p = [probabilities(part, temperature) for part, temperature in zip(scores, temperatures)]
    log_p = decided_log_p(task, scores, temperatures, rows)
    return row_scores(decided_points(task, p, right_places(task, rows))), np.array([part.sum() for part in log_p])


def answer_limit(context: Context) -> int:
    """The limit of an answer in tokens, as `limit_for` has it for the longest training answer; for free text without a
    schema for the FREE_QUANTILE of their lengths: an untrained model writes up to the limit, so one very long training
    answer would make every answer slow. What an artifact could write, from which training goes on, stays possible."""
    if context.task.max_new_tokens is not None:
        return context.task.max_new_tokens
    quantile = FREE_QUANTILE if context.task.kind == "free" and not context.task.schema else 1.0
    limit = limit_for(context.task, _answer_length(context, quantile))
    return limit if context.start is None else max(limit, context.start.document.max_new_tokens)


def answer_limits(context: Context) -> list[int]:
    """The limits in tokens to choose from for a model that is not trained on the answers, the largest first; one limit
    for a task without free text, and for one that has its limit or a schema.

    Such a model has not learned where to end: it writes up to the limit, and text beyond the usual length is seldom
    right.
    """
    if context.task.kind != "free" or context.task.max_new_tokens is not None or context.task.schema:
        return [answer_limit(context)]
    return sorted({max(SMALLEST_LIMIT, _answer_length(context, share)) for share in LIMIT_QUANTILES}, reverse=True)


def choose_answer_limit(context: Context, predictor: ModelPredictor) -> tuple[int, dict[str, Any]]:
    """The limit of `answer_limits` with the highest validation score, and the entries of the record: that limit and the
    score of each (empty if there was no choice).

    Answers are generated once, to the largest limit; the smaller limits cut them off.
    """
    longest, *shorter = answer_limits(context)
    rows = context.valid[: min(LIMIT_ROWS, context.valid_rows)]
    if not shorter or not rows:
        return longest, {}
    prepared = predictor.prepare([row.messages for row in rows], [row.where for row in rows], room=longest)
    answers = predictor.lm.generate([each.request for each in prepared])
    scores = {}
    for limit in (longest, *shorter):
        texts = [Prediction(predictor.text_of(ids[:limit], limit, each.tools)) for ids, each in zip(answers, prepared)]
        scores[limit] = score(by_text(context.task), texts, rows).mean
    best = max(scores, key=scores.__getitem__)  # of equal ones the largest limit
    rounded = {str(limit): round(points, 6) for limit, points in scores.items()}
    return best, {"max_new_tokens": best, "rooms": rounded}


def _answer_length(context: Context, quantile: float) -> int:
    """The `quantile` of the lengths of the training answers, in tokens."""
    lengths = sorted(map(len, context.tokenizer.answer_ids([example.said for example in context.train])))
    return lengths[int(quantile * (len(lengths) - 1))]


def base_predictor(context: Context) -> ModelPredictor:
    """A predictor of the base model whose prompts hold only the task's instruction and the question."""
    model = instruction_only(context.task).read_by(context.tokenizer, open_engine(context.source, context.precision))
    return predictor_for(model, max_new_tokens=answer_limit(context))
