"""A predictor on validation or test rows: predictions, scores, log-loss of the answers, latency."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from riyaz.config import LIKELIHOODS
from riyaz.data import Example
from riyaz.data.questions import Question, answer_places
from riyaz.data.task import Task
from riyaz.engine.grammar import misfit
from riyaz.errors import RiyazError
from riyaz.metrics import decisions
from riyaz.metrics import scores as metrics
from riyaz.metrics.calibration import (
    brier_scores,
    error_by_chance,
    error_interval,
    expected_calibration_error,
    log_losses,
    log_softmax,
    reliability,
    right_probability,
)
from riyaz.metrics.compact import Compact
from riyaz.metrics.groups import group_numbers, within
from riyaz.metrics.intervals import interval, mean_interval
from riyaz.metrics.selective import curve_points, risk_coverage
from riyaz.metrics.structured import unfenced
from riyaz.predictor import AnswerPair, ClosedPredictor, ModelPredictor, Prediction, Predictor, Reward
from riyaz.results import Answer, Calibration, DecidedAnswer, QuestionScore, SliceScore

REOPEN_ROWS = 32  # validation rows whose loss an artifact records, to compare when it is opened again
Progress = Callable[[int, int], None]  # (done, total)


class Judged(Protocol):
    """What of a row says whether its answer is a good one."""

    @property
    def desirable(self) -> bool | None:
        """None where it is not said."""


@dataclass(frozen=True)
class Scores:
    """Scores `rows` (n,) under the task's metric, in 0..1 or by `nats` at most 0, their mean, second metrics and the
    mean of each slice. Of rows that answer several questions they are `row_scores`, and `points` (n, Q) those of each
    question."""

    rows: np.ndarray
    mean: float
    extras: dict[str, float] = field(default_factory=dict)
    slices: dict[str, SliceScore] = field(default_factory=dict)
    groups: np.ndarray | None = None  # (n,) the number of each row's group; None where no two rows share one
    points: np.ndarray | None = None

    @property
    def each(self) -> np.ndarray:
        """The score (n,) of every row by itself, in 0..1."""
        return self.rows if self.points is None else decisions.row_means(self.points)


def predict(
    predictor: Predictor, examples: Sequence[Example], progress: Progress | None = None, max_tokens: int | None = None,
    task: Task | None = None,
) -> list[Prediction]:  # fmt: skip
    """The answer to every example, in order; by the metric `nats` of `task` with the accepted one's log-probability."""
    conversations, where = [e.messages for e in examples], [e.where for e in examples]
    predictions = predictor.answers(conversations, where, max_tokens=max_tokens, progress=progress)
    return predictions if task is None else with_accepted(predictor, task, predictions, examples)


def with_accepted(
    predictor: Predictor, task: Task, predictions: Sequence[Prediction], examples: Sequence[Example],
    before: Sequence[Example] = (),
) -> list[Prediction]:  # fmt: skip
    """The predictions, by the metrics LIKELIHOODS with the log-probabilities of each row's first accepted answer, of
    its better and its worse one, or with its answer's rewards, for which the row `before` the first is needed where
    there is one. Raises RiyazError for a predictor that gives none."""
    if task.metric not in LIKELIHOODS:
        return list(predictions)
    if not predictor.has_model:
        what = "copies its answers, so it gives an accepted answer no probability"
        raise RiyazError(what, f"--metric {task.metric}", "choose another --metric, such as chrf")
    if task.metric == "preferred":
        return [replace(each, pair=pair) for each, pair in zip(predictions, answer_pairs(predictor, examples))]
    if task.metric == "thumbs":
        gains = rewards(predictor, [*before, *examples])[len(before) :]
        return [replace(each, reward=reward) for each, reward in zip(predictions, gains, strict=True)]
    sums = [float(part.sum(dtype=np.float64)) for part in answer_log_probabilities(predictor, examples)]
    return [replace(each, accepted_log_probability=total) for each, total in zip(predictions, sums, strict=True)]


def answer_pairs(predictor: ModelPredictor, examples: Sequence[Example]) -> list[AnswerPair]:
    """The log-probabilities of each row's better and worse answer."""
    worse = [replace(example, answers=(example.rejected,)) for example in examples]
    models = [predictor, *([predictor.base()] if predictor.changes_weights else [])]
    sides = [[answer_log_probabilities(model, rows) for rows in (examples, worse)] for model in models]
    sums = [[[float(part.sum(dtype=np.float64)) for part in side] for side in both] for both in sides]
    (better, lower), *base = sums
    before: list[tuple[float, float] | None] = list(zip(*base[0])) if base else [None] * len(examples)
    lengths = [tuple(map(len, side)) for side in sides[0]]
    return [AnswerPair(*each) for each in zip(better, lower, *lengths, before, strict=True)]


def preferred(pairs: Sequence[AnswerPair]) -> np.ndarray:
    """1 (n,) where the mean log-probability of a token of the better answer is the higher one, half where they are
    equal."""
    return np.array([_wins(each.better / each.better_tokens, each.worse / each.worse_tokens) for each in pairs])


def rewards(predictor: ModelPredictor, examples: Sequence[Example]) -> list[Reward]:
    """The rewards of each row's answer and of that of the row before it; of the first row that of the second, so that
    those of the first rows do not depend on how many there are."""
    if not predictor.changes_weights:
        return [Reward(0.0, 0.0)] * len(examples)
    before = [*examples[1:2], *examples[:-1]] if len(examples) > 1 else examples
    others = [replace(row, answers=other.answers) for row, other in zip(examples, before)]
    gains = []
    for rows in (examples, others):
        own, base = (answer_log_probabilities(model, rows) for model in (predictor, predictor.base()))
        gains.append([float(mine.sum(dtype=np.float64) - its.sum(dtype=np.float64)) for mine, its in zip(own, base)])
    return [Reward(*each) for each in zip(*gains, strict=True)]


def thumbs(answer_rewards: Sequence[Reward], examples: Sequence[Judged]) -> np.ndarray:
    """The points (n,) of answers that are good or bad: `thumb_points` of their rewards."""
    assert len(answer_rewards) == len(examples)
    gains = np.array([(each.own, each.other) for each in answer_rewards], float).reshape(-1, 2)
    return thumb_points(gains, np.array([bool(row.desirable) for row in examples], bool))


def thumb_points(gains: np.ndarray, good: np.ndarray) -> np.ndarray:
    """1 (n,) where the reward of a `good` (n,) answer is above the reference point of these rows, or that of a bad one
    below it, half where it is the point; `gains` (n, 2) are the rewards of each answer and of one after another prompt.
    The point is that of KTO (Ethayarajh et al. 2024, arXiv 2402.01306): the mean reward of answers after other prompts,
    at least 0. A model that raises all answers alike matches no more than the base."""
    own, others = np.ascontiguousarray(gains.T)
    point = max(0.0, float(others.mean())) if len(others) > 1 else 0.0
    return np.where(own == point, 0.5, np.where(good, own > point, own < point))


def _matches(reward: float, point: float, row: Judged) -> float:
    return _wins(reward, point) if row.desirable else _wins(point, reward)


def _wins(one: float, other: float) -> float:
    return 0.5 if one == other else float(one > other)


def score_raw_and_calibrated(
    predictor: ClosedPredictor, examples: Sequence[Example]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The row scores (n,) of answers from a closed set without and with calibration. The answers themselves are not
    made: a search that only decides whether an accepted label is the best reads less. And log p (n,) of each row's
    answer, end token included; NaN of one that is no label."""
    task, wanted = predictor.task, accepted_labels(predictor.task, examples)
    conversations, where = [e.messages for e in examples], [e.where for e in examples]
    won, log_p = predictor.wins_raw_and_calibrated(conversations, where, wanted)
    place = {label: i for i, label in enumerate(task.labels)}
    own = [log_p[n, place[e.answer]] if e.answer in place else np.nan for n, e in enumerate(examples)]
    return won[0].astype(float), won[1].astype(float), np.array(own)


def accepted_labels(task: Task, examples: Sequence[Example]) -> np.ndarray:
    """Which labels of a closed set are right for each example, (n, L)."""
    accepted: dict[tuple[str, ...], np.ndarray] = {}  # scores (L,) of the labels by accepted answers
    for answers, example in {example.answers: example for example in examples}.items():
        accepted[answers] = metrics.score_rows(task.metric, task.labels, [example] * len(task.labels))
        assert set(accepted[answers]) <= {0.0, 1.0}, "metrics of closed sets"
    return np.array([accepted[example.answers] for example in examples], bool).reshape(len(examples), len(task.labels))


def score(task: Task, predictions: Sequence[Prediction], examples: Sequence[Example]) -> Scores:
    """Scores of the predictions, one for each example."""
    if task.kind == "questions":
        return _score_decided(task, predictions, examples)
    texts, answers = [p.text for p in predictions], [e.answers for e in examples]
    if task.metric == "nats":
        rows = nats_by_character(predictions, examples)
    elif task.metric == "preferred":
        rows = preferred([prediction.pair for prediction in predictions if prediction.pair])
        assert len(rows) == len(examples), "predict scores the answers"
    elif task.metric == "thumbs":
        rows = thumbs([prediction.reward for prediction in predictions if prediction.reward], examples)
    else:
        rows = metrics.score_rows(task.metric, texts, examples, task.max_words)
    groups = group_numbers([example.group for example in examples])
    return Scores(
        rows=rows,
        mean=float(rows.mean()) if len(rows) else 0.0,
        extras=metrics.extras(task.metric, texts, answers, row_extras(task, predictions, examples)),
        slices=slice_scores(rows, [example.slice for example in examples], groups),
        groups=groups,
    )


def row_extras(task: Task, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[dict[str, float]]:
    """The second metrics of each prediction, where the task's metric has some for single rows, and of a generated one
    whether it fits its row's schema. Raises RiyazError for such rows without llguidance."""
    made = metrics.row_extras(task.metric, [p.text for p in predictions], examples, task.max_words)
    if task.kind in ("closed", "questions"):
        return made
    made = [each | _likelihood_extras(prediction, row)
            for each, prediction, row in zip(made, predictions, examples, strict=True)]  # fmt: skip
    schemas = [row.check.schema if row.check else "" for row in examples]
    return [
        each | ({"fits_schema": _fits(schema, prediction.text, row.where)} if schema else {})
        for each, schema, prediction, row in zip(made, schemas, predictions, examples, strict=True)
    ]


def _likelihood_extras(prediction: Prediction, row: Example) -> dict[str, float]:
    """Whether the whole better answer is the likelier one, and whether its probability has risen more than the worse
    one's: the accuracy of the implicit reward (Rafailov et al. 2023, arXiv 2305.18290). Of a single answer whether its
    probability has risen where it is good, or fallen where it is bad."""
    if prediction.reward is not None and prediction.reward != Reward(0.0, 0.0):
        return {"reward": _matches(prediction.reward.own, 0.0, row)}
    if (pair := prediction.pair) is None:
        return {}
    whole = {"preferred_whole": _wins(pair.better, pair.worse)}
    if pair.base is None:
        return whole
    return whole | {"reward": _wins(pair.better - pair.base[0], pair.worse - pair.base[1])}


@lru_cache(maxsize=4096)  # answers are scored several times
def _fits(schema: str, answer: str, where: str) -> float:
    """1 if a model could write the answer, or the content of the one fenced block that it is, under the schema."""
    return float(not misfit(schema, unfenced(answer), where))


def nats_by_character(predictions: Sequence[Prediction], examples: Sequence[Example]) -> np.ndarray:
    """Log-probability (n,) in nats of each row's first accepted answer, end token included, over its characters. At
    most 0 and comparable between tokenizers."""
    sums = [prediction.accepted_log_probability for prediction in predictions]
    assert None not in sums, "predict scores the answers; a method that cannot is left out"
    return np.array([each / max(1, len(e.answer)) for each, e in zip(sums, examples) if each is not None], float)


def by_text(task: Task) -> Task:
    """The task with a metric that a text alone is scored by: chrF in place of those of LIKELIHOODS."""
    return replace(task, metric="chrf") if task.metric in LIKELIHOODS else task


def right_places(task: Task, examples: Sequence[Example]) -> np.ndarray:
    """The place (n, Q) of the right choice of each question of the task; −1 where a row does not answer it."""
    rows = [answer_places(task.questions, example.answer) for example in examples]
    places = [[-1 if place is None else place for place in row] for row in rows]
    return np.array(places, int).reshape(len(examples), len(task.questions))


def decided_points(task: Task, probabilities: Sequence[np.ndarray], right: np.ndarray) -> np.ndarray:
    """The points (n, Q) of a task's questions from the probabilities (n, L) of each one's choices."""
    each = [decisions.points(q.type, p, places) for q, p, places in zip(task.questions, probabilities, right.T)]
    return np.stack(each, axis=1)


def _score_decided(task: Task, predictions: Sequence[Prediction], examples: Sequence[Example]) -> Scores:
    groups = group_numbers([example.group for example in examples])
    if not examples:
        return Scores(np.zeros(0), 0.0, groups=groups, points=np.zeros((0, len(task.questions))))
    p = [np.stack([row.decided[i].probabilities for row in predictions]) for i in range(len(task.questions))]
    points = decided_points(task, p, right_places(task, examples))
    rows = decisions.row_scores(points)
    slices = slice_scores(rows, [example.slice for example in examples], groups)
    return Scores(rows, float(rows.mean()), slices=slices, groups=groups, points=points)


def question_scores(task: Task, rows: Sequence[Answer]) -> list[QuestionScore] | None:
    """How the answers to each of a task's questions score; None for another task."""
    if task.kind != "questions":
        return None
    scored = []
    for place, question in enumerate(task.questions):
        known = [row for row in rows if row.decided and row.decided[place].right is not None]
        answers = [row.decided[place] for row in known if row.decided]
        points = np.array([answer.points for answer in answers], float)
        p, right = Compact([each.probabilities for each in answers]), np.array([each.right for each in answers])
        scored.append(question_score(question, points, p, right, group_numbers([row.group for row in known])))
    return scored


def question_score(
    question: Question, points: np.ndarray, p: Compact, right: np.ndarray, groups: np.ndarray | None
) -> QuestionScore:
    """How the answers to one question score, from the points (n,), the probabilities (n, L) of its choices and the
    place (n,) of the right one, which is known."""
    scored = QuestionScore(question.name, question.type, len(points))
    if not len(points):
        return scored
    low, high = interval(points, groups)
    area, true = decisions.mean_auroc(question.type, p, right), _calibration_of_choices(p, right, groups)
    return replace(scored, score=float(points.mean()), ci_low=low, ci_high=high, auroc=area, calibration=true)


def _calibration_of_choices(p: Compact, right: np.ndarray, groups: np.ndarray | None) -> Calibration:
    """How true the probabilities (n, L) are, from the place (n,) of the right choice; the confidence of an answer is
    the probability of the likeliest one."""
    confidence, best, of_right, briers = [], [], Compact(), Compact()
    end = 0
    for block in p.blocks():
        accepted = right[end : end + len(block), None] == np.arange(block.shape[1])
        end += len(block)
        confidence.append(block.max(1))
        best.append(block.argmax(1))
        right_p = right_probability(block, accepted)
        of_right.extend(right_p)
        briers.extend(brier_scores(block, right_p))
    return calibration(np.concatenate(confidence), np.concatenate(best) == right, groups, briers, of_right)


def confidence_fields(
    task: Task, predictions: Sequence[Prediction], examples: Sequence[Example]
) -> list[dict[str, Any]]:
    """The fields of Answer that say how sure each prediction is; empty ones where it has no confidence."""
    if task.kind == "questions":
        return _decided_fields(task, predictions, examples)
    if task.kind != "closed":
        return [{}] * len(examples)
    fields = []
    for prediction, accepted in zip(predictions, accepted_labels(task, examples), strict=True):
        sure: dict[str, Any] = {"confidence": prediction.confidence, "runner_up": prediction.runner_up}
        if prediction.probabilities is not None:
            p = prediction.probabilities[None]
            right = right_probability(p, accepted[None])
            sure |= {"right_probability": float(right[0]), "brier": float(brier_scores(p, right)[0])}
        fields.append(sure)
    return fields


def _decided_fields(task: Task, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The field of Answer that holds the answers to a task's questions."""
    points, right = score(task, predictions, examples).points, right_places(task, examples)
    assert points is not None
    return [
        {"decided": [
            DecidedAnswer(int(place) if place >= 0 else None, float(won) if place >= 0 else None,
                          [round(float(p), 6) for p in each.probabilities])
            for each, place, won in zip(prediction.decided, places, wons)
        ]}
        for prediction, places, wons in zip(predictions, right, points)
    ]  # fmt: skip


def calibration_of(rows: Sequence[Answer]) -> Calibration | None:
    """How true the confidences of the answers are; None where one has none."""
    confidence = np.array([np.nan if row.confidence is None else row.confidence for row in rows], float)
    if not rows or np.isnan(confidence).any():
        return None
    right = np.array([row.score == 1 for row in rows])
    groups = group_numbers([row.group for row in rows])
    briers = [row.brier for row in rows if row.brier is not None]
    right_p = [row.right_probability for row in rows if row.right_probability is not None]
    return calibration(confidence, right, groups, Compact(briers), Compact(right_p))


def calibration(
    confidence: np.ndarray, right: np.ndarray, groups: np.ndarray | None, briers: Compact, right_p: Compact
) -> Calibration:
    """How true the confidences (n,) are of answers that are `right` (n,) or not; the Brier scores (n,) and the
    probabilities (n,) of the right labels count if every row has them."""
    low, high = error_interval(confidence, right, groups)
    chance = error_by_chance(confidence)
    error = expected_calibration_error(confidence, right)
    risk, bins = curve_points(risk_coverage(confidence, ~right)), reliability(confidence, right)
    made = Calibration(len(confidence), error, low, high, *chance, risk=risk, bins=bins)
    if len(briers) < len(confidence) or len(right_p) < len(confidence):
        return made
    brier, brier_low, brier_high = _mean_and_interval(briers.values(), groups)
    loss, loss_low, loss_high = _mean_and_interval(log_losses(right_p.values()), groups)
    return replace(
        made, brier=brier, brier_low=brier_low, brier_high=brier_high,
        log_loss=loss, log_loss_low=loss_low, log_loss_high=loss_high,
    )  # fmt: skip


def _mean_and_interval(values: np.ndarray, groups: np.ndarray | None) -> tuple[float, float, float]:
    return float(values.mean()), *mean_interval(values, groups)


def slice_scores(rows: np.ndarray, names: Sequence[str | None], groups: np.ndarray | None) -> dict[str, SliceScore]:
    """The mean of the scores `rows` (n,) of each slice; its interval where rows are in `groups` (n,)."""
    numbers: dict[str, int] = {}
    places = [-1 if name is None else numbers.setdefault(name, len(numbers)) for name in names]
    return numbered_slice_scores(rows, np.array(places, int), [*numbers], groups)


def numbered_slice_scores(
    rows: np.ndarray, places: np.ndarray, names: Sequence[str], groups: np.ndarray | None
) -> dict[str, SliceScore]:
    """`slice_scores` where the name of each row's slice is at its place (n,) in `names`; −1 for no slice."""
    order = np.argsort(places, kind="stable")
    begins = np.searchsorted(places, np.arange(len(names) + 1), sorter=order)
    scores = {}
    for name, begin, end in sorted(zip(names, begins[:-1].tolist(), begins[1:].tolist(), strict=True)):
        index = order[begin:end]
        scores[name] = SliceScore(float(rows[index].mean()), len(index))
        numbers = within(groups, index)
        if numbers is not None:
            low, high = interval(rows[index], numbers)
            scores[name] = replace(scores[name], n_groups=int(numbers.max()) + 1, ci_low=low, ci_high=high)
    return scores


def answer_log_loss(predictor: ModelPredictor, examples: Sequence[Example]) -> float:
    """Mean negative log-probability of the answers' tokens in nats, end token included, under the predictor's prompt
    and over the whole vocabulary; by a head of labels that of the labels, over all of them."""
    parts = answer_log_probabilities(predictor, examples)
    return -float(np.concatenate(parts).mean(dtype=np.float64))


def answer_log_probabilities(predictor: ModelPredictor, examples: Sequence[Example]) -> list[np.ndarray]:
    """Log-probability of every token of each answer in nats, end token included: one array (tokens,) per example; by a
    head of labels that of the label (1,), calibrated where the predictor has a temperature, −∞ for an answer that is
    none; of questions that of each one's right choice, calibrated."""
    conversations, where = [e.messages for e in examples], [e.where for e in examples]
    if predictor.has_questions:
        scores, temperatures = predictor.question_scores(conversations, where), predictor.temperatures
        return decided_log_p(predictor.task, scores, temperatures, examples)
    if predictor.has_labels and predictor.head is not None:
        place = {label: i for i, label in enumerate(predictor.task.labels)}
        log_p = log_softmax(predictor.label_scores(conversations, where) / (predictor.temperature or 1.0))
        return [np.array([row[place[e.answer]] if e.answer in place else -np.inf]) for row, e in zip(log_p, examples)]
    answers = predictor.tokenizer.answer_ids([example.said for example in examples])
    prepared = predictor.prepare(conversations, where, room=max(map(len, answers), default=1))
    return predictor.lm.logprobs([each.request for each in prepared], answers)


def decided_log_p(
    task: Task, scores: Sequence[np.ndarray], temperatures: Sequence[float], examples: Sequence[Example]
) -> list[np.ndarray]:
    """The calibrated log-probability of the right choice of each question that an example answers, from the scores
    (n, L) of each question's choices."""
    each = [log_softmax(part / t) for part, t in zip(scores, temperatures or [1.0] * len(scores))]
    right = right_places(task, examples)
    return [
        np.array([each[q][row, place] for q, place in enumerate(places) if place >= 0])
        for row, places in enumerate(right)
    ]


def answers_alone(
    predictor: Predictor, examples: Sequence[Example], progress: Progress | None = None, seconds: float = math.inf
) -> tuple[list[Prediction], list[float]]:
    """The answer to every example, made one at a time after one token to warm up, and the milliseconds of each; search
    included. Ends after the answer with which `seconds` are over."""
    predictions, milliseconds = [], []
    predictor.answers([examples[0].messages], [examples[0].where], max_tokens=1)
    start = time.perf_counter()
    for example in examples:
        if predictor.has_model and predictor.retriever is not None:
            predictor.retriever.clear_cache()  # else only the first answer would search
        began = time.perf_counter()
        predictions += predictor.answers([example.messages], [example.where])
        ended = time.perf_counter()
        milliseconds.append(1000 * (ended - began))
        if progress:
            progress(len(predictions), len(examples))
        if ended - start >= seconds:
            break
    return predictions, milliseconds


def latency(predictor: Predictor, examples: Sequence[Example], n: int) -> float:
    """Median milliseconds of `n` answers made one at a time; the examples repeat if there are fewer."""
    _, milliseconds = answers_alone(predictor, [examples[i % len(examples)] for i in range(n)])
    return statistics.median(milliseconds)
