"""Rows that do not fit the model's context: counted and left out before anything is split into arms' work."""

from collections.abc import Iterable
from dataclasses import replace

from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.rows import MAX_FAILED
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.prompting import messages_for
from riyaz.tokenizer import Tokenizer

FRAME = 512  # tokens that instruction and chat template take at most, for telling apart what cannot be too long


def without_too_long(split: Split, task: Task, tokenizer: Tokenizer, context: int) -> tuple[Split, list[str]]:
    """The split without rows whose prompt and answer exceed `context` tokens, and where those stand.

    Raises RiyazError when they are more than 5 % of the training rows or of the test rows, and for a row of which the
    chat template leaves out turns.
    """
    # by identity: a training and a test file in two folders may have the same name, and so their lines
    rows = {id(example): example for part in (split, *split.folds) for example in (*part.train, *part.valid)}
    tested = {id(example): example for example in split.tested}
    for example in (*rows.values(), *tested.values()):
        tokenizer.check_turns(list(example.messages), example.where)
    long = _too_long({**rows, **tested}.values(), task, tokenizer, context)
    for name, part in (("training", rows), ("test", tested)):
        found = [example.where for key, example in part.items() if key in long]
        if len(found) > MAX_FAILED * len(part):
            what = f"{len(found)} of {len(part)} {name} rows do not fit the context of {context} tokens"
            raise RiyazError(what, found[0], "shorten them or take a model with a longer context")

    def kept(part: Split) -> Split:
        fit = {name: tuple(e for e in getattr(part, name) if id(e) not in long) for name in ("train", "valid", "test")}
        return replace(part, **fit)

    return replace(kept(split), folds=tuple(kept(fold) for fold in split.folds)), sorted(long.values())


def _too_long(examples: Iterable[Example], task: Task, tokenizer: Tokenizer, context: int) -> dict[int, str]:
    """Identity and place of the rows that exceed the context; a token is a byte or more, so most are not encoded."""
    doubtful = [
        example
        for example in examples
        if FRAME + sum(len(turn["content"].encode()) for turn in example.messages) + len(example.answer.encode())
        > context
    ]
    text = TextPart(task.instruction)
    rows = tokenizer.rows([(messages_for(text, task, e.messages, ()), e.answer) for e in doubtful])
    room = [max(8, round(1.25 * len(row.answer))) for row in rows]  # as the predictor asks for it
    return {id(e): e.where for e, row, extra in zip(doubtful, rows, room) if len(row.prompt) + extra > context}
