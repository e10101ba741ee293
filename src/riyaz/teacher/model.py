"""A teacher that is a model of ours: a base, an adapter or an artifact of any method."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from riyaz import adapters
from riyaz import artifact as artifacts
from riyaz.artifact import TextPart
from riyaz.config import Precision
from riyaz.data import Example, normalise
from riyaz.data.rows import Wanted, likeliest
from riyaz.data.task import Task
from riyaz.errors import RiyazError, shown
from riyaz.predictor import (
    CHAT_TOKENS,
    ModelPredictor,
    Prediction,
    Predictor,
    PromptedModel,
    open_target,
    predictor_for,
)
from riyaz.scoring import predict
from riyaz.sources import open_source, store
from riyaz.teacher.outputs import Output, of_label
from riyaz.text.tokenizer import Tokenizer

LIKELIEST = 32  # tokens whose probabilities are kept at each place of an answer
AT_ONCE = 2**26  # log-probabilities in memory, 256 MB: those of long answers would take gigabytes
MARKS = " \t\r\n\"'`.*“”"  # around a label that was written, not chosen


def open_teacher(target: str, task: Task, precision: Precision = "auto") -> Predictor:
    """The predictor of a model, an adapter folder or an artifact. One without a task of its own answers with the task's
    instruction, and the labels of a closed set. Raises RiyazError, also for one that answers another task."""
    predictor = open_target(target, precision=precision)
    if task.questions or predictor.has_questions:
        raise RiyazError("a teacher of several questions is not supported", target, "name one whose answers are texts")
    own = predictor.task
    if own is None and predictor.has_model:
        model = PromptedModel(**predictor.parts())
        text = TextPart(task.instruction, list_labels=task.kind == "closed")
        return predictor_for(replace(model, text=text, task=task), max_new_tokens=task.max_new_tokens or CHAT_TOKENS)
    if task.kind == "closed" and own is not None and own.labels and not _alike(own.labels) & _alike(task.labels):
        what = f"it answers with labels such as {shown(own.labels[0])}, of which no row has any"
        raise RiyazError(what, target, "name a teacher of the same labels")
    return predictor


def _alike(labels: Sequence[str]) -> set[str]:
    return set(map(normalise, labels))


def has_task(target: str) -> bool:
    """Whether it is an artifact, which answers a task of its own."""
    return (artifacts.resolve(target) / artifacts.NAME).is_file()


def spelled(task: Task, text: str) -> str | None:
    """The text as an answer of the task: for a closed set the label that it is but for case and marks around it. None
    where it is empty or no label."""
    if task.kind != "closed":
        return text if text.strip() else None
    if text in task.labels:
        return text
    alike = {normalise(label): label for label in task.labels}
    return alike.get(normalise(text.strip(MARKS)))


def answered(predictor: Predictor, task: Task, rows: Sequence[Example]) -> list[Output]:
    """A teacher's answers to rows, of labels with their probabilities where it has some; an answer that is no label, or
    empty, is an empty text."""
    predictions = predict(predictor, rows)
    texts = [spelled(task, prediction.text) or "" for prediction in predictions]
    if task.kind != "closed":
        return [Output(text) for text in texts]
    return [Output(text, _of_labels(predictor, task, each)) for text, each in zip(texts, predictions)]


def same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two models have the same tokens with the same numbers."""
    return one.files.definition == other.files.definition and one.end_of_turn == other.end_of_turn


def _of_labels(predictor: Predictor, task: Task, prediction: Prediction) -> Wanted | None:
    """The log-probabilities of the task's labels (1, L)."""
    if prediction.probabilities is None:
        return None
    assert predictor.task is not None
    return _shared(prediction.probabilities, predictor.task.labels, task.labels)


def _shared(p: Iterable[float], own: Sequence[str], labels: Sequence[str]) -> Wanted:
    """The log-probabilities (1, L) of labels, from those of the teacher's `own`, which are the same but for case and
    spaces; what the teacher does not know shares nothing."""
    known = {normalise(label): each for label, each in zip(own, p)} | dict(zip(own, p))
    shares = np.array([max(1e-6, known.get(label, known.get(normalise(label), 0.0))) for label in labels])
    return of_label(np.log(shares / shares.sum()))


def among(task: Task, own: Sequence[str], output: Output) -> Output:
    """An answer among the teacher's `own` labels as one among those of the task; an empty text where it is none."""
    soft = output.soft and _shared(np.exp(output.soft.log_p[0].astype(np.float64)).tolist(), own, task.labels)
    return Output(spelled(task, output.text) or "", soft)


def with_tokens(predictor: ModelPredictor, rows: Sequence[Example], texts: Sequence[str]) -> list[Output]:
    """The texts with the likeliest tokens (n, K) at each of their tokens, end token included, and their
    log-probabilities behind the teacher's own prompts."""
    said = [replace(row, answers=(text,)).said for row, text in zip(rows, texts)]
    answers = predictor.tokenizer.answer_ids(said)
    conversations, where = [row.messages for row in rows], [row.where for row in rows]
    prepared = predictor.prepare(conversations, where, room=max(map(len, answers)))
    softs: list[Wanted] = []
    for some in _small([len(answer) for answer in answers], AT_ONCE // predictor.lm.runner.vocab_size):
        predicted = predictor.lm.distributions([each.request for each in prepared[some]], answers[some])  # (n, V) each
        softs += [likeliest(log_p, LIKELIEST) for log_p in predicted]
    return [Output(text, soft) for text, soft in zip(texts, softs, strict=True)]


def _small(lengths: Sequence[int], most: int) -> Iterator[slice]:
    """Parts of a list of answers of at most so many tokens together, or of one answer."""
    start, tokens = 0, 0
    for place, length in enumerate(lengths):
        if place > start and tokens + length > most:
            yield slice(start, place)
            start, tokens = place, 0
        tokens += length
    yield slice(start, len(lengths))


def identity(target: str) -> str:
    """A hash of what answers: of an artifact's document, which holds those of its files and its base, of an adapter's
    files, or of a model. Raises RiyazError for a target that does not exist."""
    path = artifacts.resolve(target)
    if (path / artifacts.NAME).is_file():
        return store.file_hash([path / artifacts.NAME])
    if (path / adapters.CONFIG).is_file():
        return store.file_hash([path / adapters.CONFIG, *sorted(path.glob("*.safetensors"))])
    return open_source(target).sha256()
