"""Logistic regression on words, pieces of words and sentence vectors: closed sets and typed questions, no language
model."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz import hardware
from riyaz.artifact import TextPart, WeightsPart
from riyaz.classifiers.fitting import fit_classifier, memory_of, work_of
from riyaz.classifiers.shared import SharedEmbedder
from riyaz.data import Example
from riyaz.engine.opening import EMBEDDER, pulled_embedder
from riyaz.events import Note, Progress
from riyaz.methods.fitting.base import Context, Fitted, Method, Timing
from riyaz.methods.fitting.questions import QuestionRows, question_rows
from riyaz.methods.fitting.weights import WRITTEN
from riyaz.predictor import Prediction
from riyaz.results import About
from riyaz.scoring import score

if TYPE_CHECKING:
    from riyaz.retrieval.embedder import Embedder

SAMPLE = 200  # rows on which a fit is timed
TIMED = 8  # answers that are timed
PROCESS_MB = 300.0  # of a process with an embedder
WITHOUT = (
    f"linear reads words alone, since {EMBEDDER} is not pulled; its sentence vectors are worth most with few rows a "
    f"label: `riyaz pull {EMBEDDER}`"
)


def fit(context: Context) -> Fitted:
    """Fit all training and validation rows; the validation score is that of rows held out from a fit on the others."""
    rows, embedder, began = (*context.train, *context.valid), pulled_embedder(), time.perf_counter()

    def progress(done: int, total: int) -> None:
        context.listen(Progress("fit", done, total))

    if context.task.questions:
        return _fit_each(context, question_rows(context.task, rows), embedder)
    labels = context.task.labels
    fitted = fit_classifier(_texts(rows), _answers(rows), labels, embedder, context.seed, progress, _groups(rows))
    answered = [Prediction(labels[label]) for label in fitted.logits.argmax(axis=1)]
    classifier = fitted.classifier
    return Fitted(
        TextPart(), WeightsPart("linear"), classifier.files(context.folder / WRITTEN), chosen=fitted.chosen,
        valid_score=score(context.task, answered, [rows[place] for place in fitted.held]).mean,
        search_seconds=fitted.choosing_seconds,
        train_seconds=time.perf_counter() - began - fitted.choosing_seconds, trainable_params=classifier.weights,
    )  # fmt: skip


def _fit_each(context: Context, each: Sequence[QuestionRows], embedder: "Embedder | None") -> Fitted:
    """One regression for each question, on the rows that answer it."""
    began, choosing, scores = time.perf_counter(), 0.0, []
    chosen, files, weights = dict[str, Any](), dict[str, Any](), 0
    shared = None if embedder is None else SharedEmbedder(embedder)
    for done, part in enumerate(each):
        context.listen(Progress("fit", done, len(each)))
        fitted = fit_classifier(
            _texts(part.rows), part.answers, part.question.keys, shared, context.seed, None, _groups(part.rows)
        )
        files |= fitted.classifier.files(context.folder / WRITTEN, part.number)
        chosen[part.question.name] = fitted.chosen
        scores.append(part.score(fitted.probabilities, fitted.held))
        choosing, weights = choosing + fitted.choosing_seconds, weights + fitted.classifier.weights
    return Fitted(
        TextPart(), WeightsPart("linear"), files, chosen={"questions": chosen}, valid_score=float(np.mean(scores)),
        search_seconds=choosing, train_seconds=time.perf_counter() - began - choosing, trainable_params=weights,
    )  # fmt: skip


def measure_time(context: Context) -> Timing:
    """The seconds of a fit, from one on a sample of the rows; of several questions the sum of one for each."""
    rows, began = (*context.train, *context.valid), time.perf_counter()
    embedder = pulled_embedder()
    load = time.perf_counter() - began
    if embedder is None:
        context.listen(Note(WITHOUT))
    if not context.task.questions:
        return _time_of(rows, _answers(rows), len(context.task.labels), embedder, load, context.seed)
    times = [
        _time_of(part.rows, part.answers, len(part.question.keys), embedder, load, context.seed)
        for part in question_rows(context.task, rows)
    ]
    sums = {name: sum(getattr(each, name) for each in times) for name in ("fit", "row", "alone")}
    return Timing(**sums, load=load, rss_mb=max(each.rss_mb for each in times))


def _time_of(
    rows: Sequence[Example], every: Sequence[str], choices: int, embedder: "Embedder | None", load: float, seed: int
) -> Timing:
    """The time of a fit to rows whose answers are among so many labels, with an embedder that took `load` seconds to
    open."""
    places = np.random.default_rng(seed).permutation(len(rows))[:SAMPLE]
    sample, answers = [rows[place] for place in places], [every[place] for place in places]
    texts, labels = _texts(sample), sorted(set(answers))
    began = time.perf_counter()
    if embedder is not None:
        embedder.embed(texts)
    reading = (time.perf_counter() - began) / len(sample)
    began = time.perf_counter()
    classifier = fit_classifier(texts, answers, labels, embedder, seed, groups=_groups(sample)).classifier
    seconds = time.perf_counter() - began - reading * len(sample)
    seconds *= work_of(len(rows), choices) / work_of(len(sample), len(labels))
    began = time.perf_counter()
    classifier.probabilities(texts)
    together = (time.perf_counter() - began) / len(texts)
    began = time.perf_counter()
    for text in texts[:TIMED]:
        classifier.probabilities([text])
    alone = (time.perf_counter() - began) / len(texts[:TIMED])
    memory = memory_of(_texts(rows), choices) / hardware.MB
    return Timing(
        fit=load + seconds + reading * len(rows), load=load, row=together, alone=alone, rss_mb=PROCESS_MB + memory
    )


def _texts(rows: Sequence[Example]) -> list[str]:
    return [row.prompt for row in rows]


def _answers(rows: Sequence[Example]) -> list[str]:
    return [row.answer for row in rows]


def _groups(rows: Sequence[Example]) -> list[str | None]:
    return [row.group for row in rows]


ABOUT = About(
    what="Logistic regression on the words of a text and its sentence vector; no language model runs.",
    suits="a fixed set of labels, from a few rows each; it fits in seconds and answers in a millisecond or two",
    colour=8, mark="p", weights="linear", language_model=False,
)  # fmt: skip
METHOD = Method(
    name="linear", about=ABOUT, fit=fit, candidates=0, time=measure_time, needs_labels=True, embeds=True, left_out=9,
)  # fmt: skip
