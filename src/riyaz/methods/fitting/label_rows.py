"""Training on labels instead of their texts: for a closed set, each row's answer is one of L labels, which a head of
their own scores in one pass, and validation judges by the share of right ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from riyaz.data import Example
from riyaz.data.rows import Row
from riyaz.families import describe
from riyaz.methods.fitting.base import Build, Context
from riyaz.scoring import REOPEN_ROWS

# Validation rows during training. Texts: all rows would take half of the training time. Labels are cheaper, one pass
# each, and the share of right ones says little of few rows.
TEXT_VALID_ROWS, LABEL_VALID_ROWS = REOPEN_ROWS, 256

SOFT_PACE = 1 / 20  # of a head beside a soft prompt, whose rates are twenty times those of a LoRA


def has_label_head(context: Context) -> bool:
    """Whether the labels of a closed set get a head of their own."""
    return context.task.kind == "closed"


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
    number = {label: (V + place,) for place, label in enumerate(context.task.labels)}
    return [replace(row, answer=number[row.example.answer]) for row in rows if row.example is not None]


def with_label_head(context: Context, build: Build) -> Build:
    """`build`, and then a head of the task's labels, where it has one."""
    return (lambda context: put_label_head(context, build(context))) if has_label_head(context) else build


def put_label_head(context: Context, model: Any) -> Any:
    """The model with an untrained head of the task's labels, where it has one."""
    from riyaz.layers.swaps import label_head
    from riyaz.layers.swaps.soft_prompt import SoftPrompt

    if not has_label_head(context):
        return model
    texts = context.tokenizer.answer_ids(list(context.task.labels))
    pace = SOFT_PACE if isinstance(model, SoftPrompt) else 1.0
    return label_head.attach(model, [tokens[:-1] or tokens for tokens in texts], pace)  # without the end token
