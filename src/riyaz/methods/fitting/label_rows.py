"""Training on labels instead of their texts: for a closed set, each row's answer is one of L labels, which a head of
their own scores in one pass, and validation judges by the share of right ones. A row that answers several questions has
a label of each one's choices, all after one reading of its prompt."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from riyaz.data import Example
from riyaz.data.questions import answer_places
from riyaz.data.rows import Row
from riyaz.data.task import Task
from riyaz.families import describe
from riyaz.methods.fitting.base import Build, Context
from riyaz.scoring import REOPEN_ROWS

# Validation rows during training. Texts: all rows would take half of the training time. Labels are cheaper, one pass
# each, and the share of right ones says little of few rows.
TEXT_VALID_ROWS, LABEL_VALID_ROWS = REOPEN_ROWS, 256

SOFT_PACE = 1 / 20  # of a head beside a soft prompt, whose rates are twenty times those of a LoRA


def has_label_head(context: Context) -> bool:
    """Whether the labels of a closed set, or the choices of questions, get a head of their own."""
    return context.task.kind in ("closed", "questions")


def head_labels(task: Task) -> list[str]:
    """The texts of a head's labels: those of a closed set, or the choices of one question after the other."""
    return [label for question in task.questions for label in question.labels] or list(task.labels)


def head_sizes(task: Task) -> list[int]:
    """The number of labels of each question of a task; none for a closed set, which is one."""
    return [len(question.choices) for question in task.questions]


def judged(context: Context) -> Context:
    """The context with all the rows on which a head of labels is judged, also in the engine that will serve it."""
    return replace(context, valid_rows=len(valid_examples(context))) if has_label_head(context) else context


def valid_examples(context: Context) -> tuple[Example, ...]:
    """The validation rows during training."""
    return context.valid[: LABEL_VALID_ROWS if has_label_head(context) else TEXT_VALID_ROWS]


def answers_as_labels(context: Context, rows: Sequence[Row]) -> list[Row]:
    """The rows as they are trained on: with a head of labels, each answer is its label's number behind the
    vocabulary."""
    if not has_label_head(context):
        return list(rows)
    V = describe(context.source).config.vocab_size
    own = ((row, label_tokens(context.task, row.example, V)) for row in rows if row.example is not None)
    return [replace(row, answer=labels, together=bool(context.task.questions)) for row, labels in own]


def label_tokens(task: Task, example: Example, vocabulary: int) -> tuple[int, ...]:
    """The label of an example's answer, or those of the questions that it answers, as tokens behind the vocabulary."""
    if not task.questions:
        return (vocabulary + _place_of(task.labels)[example.answer],)
    first = np.cumsum([0, *head_sizes(task)]).tolist()
    places = answer_places(task.questions, example.answer)
    return tuple(vocabulary + start + place for start, place in zip(first, places) if place is not None)


@lru_cache(maxsize=4)
def _place_of(labels: tuple[str, ...]) -> dict[str, int]:
    return {label: place for place, label in enumerate(labels)}


def with_label_head(context: Context, build: Build) -> Build:
    """`build`, and then a head of the task's labels, where it has one."""
    return (lambda context: put_label_head(context, build(context))) if has_label_head(context) else build


def put_label_head(context: Context, model: Any) -> Any:
    """The model with an untrained head of the task's labels, where it has one. Labels of an artifact from which
    training goes on begin with their rows there."""
    from riyaz.layers.swaps import label_head
    from riyaz.layers.swaps.soft_prompt import SoftPrompt

    if not has_label_head(context):
        return model
    texts = context.tokenizer.answer_ids(head_labels(context.task))
    pace = SOFT_PACE if isinstance(model, SoftPrompt) else 1.0
    words = [tokens[:-1] or tokens for tokens in texts]  # without the end token
    labelled = label_head.attach(model, words, pace, head_sizes(context.task))
    if context.start is not None:
        labelled.put(context.start.label_rows(context.task, context.source))
    return labelled
