"""A predictor on rows: predictions, scores, answer log-loss, latency; for validation and test alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine import counted
from riyaz.metrics import scores as metrics
from riyaz.predictor import ClosedPredictor, Prediction, Predictor, PromptedModel

KNOWN_BY = 32  # validation rows by whose loss an artifact is known again when it is reopened
Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Scores:
    """`rows` (n,) in 0..1 under the task's metric, their mean, the second metric, and the mean per slice."""

    metric: str
    rows: np.ndarray
    mean: float
    extras: dict[str, float] = field(default_factory=dict)
    slices: dict[str, dict[str, float]] = field(default_factory=dict)  # name -> {"score", "n"}


def predict(
    predictor: Predictor, examples: Sequence[Example], progress: Progress | None = None, max_tokens: int | None = None
) -> list[Prediction]:
    """The answer to every example."""
    conversations, where = [e.messages for e in examples], [e.where for e in examples]
    return predictor.answers(conversations, where, max_tokens=max_tokens, progress=progress)


def predict_raw_and_calibrated(
    predictor: ClosedPredictor, examples: Sequence[Example], progress: Progress | None = None
) -> tuple[list[Prediction], list[Prediction]]:
    """The answers of a closed set without and with calibration, for little more than one of them."""
    return predictor.raw_and_calibrated([e.messages for e in examples], [e.where for e in examples], progress)


def score(task: Task, predictions: Sequence[Prediction], examples: Sequence[Example]) -> Scores:
    """Scores of predictions for the examples they were made for."""
    texts, answers = [p.text for p in predictions], [e.answers for e in examples]
    rows = metrics.score_rows(task.metric, texts, answers)
    members: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        if example.slice is not None:
            members.setdefault(example.slice, []).append(i)
    return Scores(
        metric=task.metric,
        rows=rows,
        mean=float(rows.mean()) if len(rows) else 0.0,
        extras=metrics.extras(task.metric, texts, answers),
        slices={name: {"score": float(rows[index].mean()), "n": len(index)} for name, index in sorted(members.items())},
    )


def answer_log_loss(predictor: PromptedModel, examples: Sequence[Example], progress: Progress | None = None) -> float:
    """Mean nats per token of the target answers, end token included, under the predictor's own prompt and
    over the whole vocabulary."""
    parts = answer_log_probabilities(predictor, examples, progress)
    return -float(np.concatenate(parts).mean(dtype=np.float64))


def answer_log_probabilities(
    predictor: PromptedModel, examples: Sequence[Example], progress: Progress | None = None
) -> list[np.ndarray]:
    """Log-probability of every token of each target answer in nats, end token included: one (n,) array an example."""
    answers = predictor.tokenizer.answer_ids([example.answer for example in examples])
    conversations, where = [e.messages for e in examples], [e.where for e in examples]
    prepared = predictor.prepare(conversations, where, room=max(map(len, answers), default=1))
    requests = [each.request for each in prepared]
    return predictor.lm.logprobs(requests, answers, counted(progress, len(examples)))


def latency(predictor: Predictor, examples: Sequence[Example], n: int = 20) -> float:
    """Median milliseconds from messages to answer, one question at a time, after the first token of one to warm up."""
    milliseconds = []
    predictor.answers([examples[0].messages], [examples[0].where], max_tokens=1)
    for i in range(n):
        example = examples[i % len(examples)]
        if predictor.lm is not None and predictor.retriever is not None:
            predictor.retriever.clear_cache()  # the search is a part of the answer
        began = time.perf_counter()
        predictor.answers([example.messages], [example.where])
        milliseconds.append(1000 * (time.perf_counter() - began))
    return statistics.median(milliseconds)
