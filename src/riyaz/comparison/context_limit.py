"""Removes rows whose prompt and answer do not fit the model's context, before the methods see the rows."""

from collections.abc import Iterable
from dataclasses import replace

from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.rows import MAX_FAILED
from riyaz.data.split import Split
from riyaz.data.task import Task, limit_for
from riyaz.errors import RiyazError
from riyaz.json_files import to_json
from riyaz.prompting import messages_for
from riyaz.text.tokenizer import Tokenizer

TEMPLATE_TOKENS = 512  # of the chat template, at most; an upper bound to skip encoding short rows


def without_too_long(split: Split, task: Task, tokenizer: Tokenizer, context: int) -> tuple[Split, list[str]]:
    """The split without the rows that exceed `context` tokens, and the places of these rows.

    Raises RiyazError when they are more than 5 % of the training rows or of the test rows, and for a row of which the
    chat template drops a turn.
    """
    # rows are compared by identity: places are equal when two folders have a file of the same name
    rows = {id(example): example for part in (split, *split.folds) for example in (*part.train, *part.valid)}
    tested = {id(example): example for example in split.tested}
    for example in (*rows.values(), *tested.values()):
        tokenizer.check_turns(list(example.messages), example.where)
    long = too_long({**rows, **tested}.values(), task, tokenizer, context)
    for name, part in (("training", rows), ("test", tested)):
        places = [example.where for key, example in part.items() if key in long]
        if len(places) > MAX_FAILED * len(part):
            what = f"{len(places)} of {len(part)} {name} rows do not fit the context of {context} tokens"
            raise RiyazError(what, places[0], "shorten them or take a model with a longer context")

    def short_enough(part: Split) -> Split:
        fit = {name: tuple(e for e in getattr(part, name) if id(e) not in long) for name in ("train", "valid", "test")}
        return replace(part, **fit)

    return replace(short_enough(split), folds=tuple(short_enough(fold) for fold in split.folds)), sorted(long.values())


def too_long(examples: Iterable[Example], task: Task, tokenizer: Tokenizer, context: int) -> dict[int, str]:
    """{id(row): place} of the rows that exceed the context; only rows with more bytes than tokens allowed are encoded,
    as a token has at least one byte."""
    around = TEMPLATE_TOKENS + len(task.instruction.encode())
    doubtful = [
        example
        for example in examples
        if around + sum(len(to_json(turn).encode()) for turn in example.messages)
        + max(len(example.answer.encode()), task.max_new_tokens or 0) > context
    ]  # fmt: skip
    text = TextPart(task.instruction)
    rows = tokenizer.rows([(messages_for(text, task, e.messages, ()), e.said) for e in doubtful])
    limits = [limit_for(task, len(row.answer)) for row in rows]
    return {id(e): e.where for e, row, limit in zip(doubtful, rows, limits) if len(row.prompt) + limit > context}
