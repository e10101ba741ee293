"""Rows that a teacher has answered: its answers in place of the accepted ones, and what it predicted of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from riyaz.artifact import read_examples
from riyaz.data import Example
from riyaz.data.rows import Row, Wanted
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.methods.fitting.base import Context
from riyaz.teacher import outputs
from riyaz.teacher.outputs import Output, prompt_key

UNLABELLED = "unlabelled.jsonl"  # in the teacher's folder: the rows without answers


def taught(context: Context) -> Context:
    """The context with the teacher's answers alone: the training rows and those without answers, and the validation
    rows, as far as it has answered them. Raises RiyazError where it has answered none."""
    folder = context.teacher
    assert folder is not None
    answers = outputs.read(folder)
    texts = {key: answer.text for key, answer in answers.items()}
    more = read_examples(folder / UNLABELLED, answered=False) if (folder / UNLABELLED).exists() else ()
    train, valid = _answered((*context.train, *more), texts), _answered(context.valid, texts)
    if not train or not valid:
        raise RiyazError("the teacher has answered no training or no validation rows", str(folder), "raise --budget")
    return replace(context, train=train, valid=valid, soft=soft_targets(answers))


def answered_rows(folder: Path, rows: Sequence[Example]) -> tuple[Example, ...]:
    """The rows that a teacher has answered, with its answers, from its folder. Raises RiyazError for a damaged file."""
    return _answered(rows, outputs.read_texts(folder / outputs.ANSWERS))


def _answered(rows: Sequence[Example], texts: dict[str, str]) -> tuple[Example, ...]:
    """The rows with the teacher's answers, which are good ones whatever a row's own answer is."""
    keys = [prompt_key(row.messages) for row in rows]
    return tuple(
        replace(row, answers=(texts[key],), desirable=None if row.desirable is None else True)
        for row, key in zip(rows, keys) if key in texts
    )  # fmt: skip


def soft_targets(answers: dict[str, Output]) -> dict[str, Wanted]:
    """What the teacher predicted of its answers, by the keys of their prompts."""
    return {key: output.soft for key, output in answers.items() if output.soft is not None}


def with_soft_tokens(context: Context, rows: Sequence[Row]) -> list[Row]:
    """The rows with what the teacher predicted at each token of their answers."""
    own = [(row, context.soft[prompt_key(row.example.messages)]) for row in rows if row.example is not None]
    return [replace(row, wanted=soft) for row, soft in own if len(soft.tokens) == len(row.answer)]


def with_soft_labels(context: Context, rows: Sequence[Row]) -> list[Row]:
    """The rows of labels with the teacher's probabilities of all labels, which are numbered behind the vocabulary."""
    if not context.soft:
        return list(rows)
    V = describe(context.source).config.vocab_size
    own = [(row, context.soft[prompt_key(row.example.messages)]) for row in rows if row.example is not None]
    return [replace(row, wanted=replace(soft, tokens=soft.tokens + V)) for row, soft in own]
