"""Turn examples into token ids, and check that they can be learned from.

A row is the prompt as the chat template renders it and the answer with its end-of-turn id; the loss is on the answer
only. Rows are never truncated: one that does not fit is counted and left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from riyaz.data import Example, Message
from riyaz.errors import RiyazError
from riyaz.text.tokenizer import Tokenizer

MAX_FAILED = 0.05  # share of the rows that may fail a check and be left out; more is an error
# Checks of `Tokenizer.rows` that every row must pass: (what a failure means, what to do).
FATAL = {
    "ends_with_eos": ("the answer does not end with an end-of-text token", "check eos_token of the model"),
    "one_bos": (
        "the prompt begins with two BOS tokens",
        "take the BOS out of the chat template or the tokenizer",
    ),
}
PREFIX = "prompt_is_prefix"


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of one training row; `answer` ends with the end-of-turn id. With `together` its tokens do not follow
    each other: each is predicted by the prompt alone, as the answer to one of several questions."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    example: Example | None = None
    together: bool = False

    @property
    def length(self) -> int:
        """Tokens that a model reads: the last of the answer predicts nothing."""
        return len(self.prompt) + (0 if self.together else len(self.answer) - 1)


def encode_rows(
    tokenizer: Tokenizer, prompts: Sequence[tuple[Sequence[Message], Example]], context: int
) -> tuple[list[Row], dict[str, dict]]:
    """Rows for (messages to render, example whose answer to learn), and the result of each check.

    A result is {"ok", "rows", "failed"}. Rows without a label or longer than `context` tokens are left out. Raises
    RiyazError if these are over 5 %, if a row fails a check of FATAL, or if the template drops turns.
    """
    _check_turns(tokenizer, prompts)
    encoded = tokenizer.rows([(list(messages), example.answer) for messages, example in prompts])
    rows = [
        Row(tuple(row.prompt), tuple(row.answer), example) for row, (_, example) in zip(encoded, prompts, strict=True)
    ]
    checks = {}
    for name in dict.fromkeys(name for row in encoded for name in row.checks):
        failed = [row for row, result in zip(rows, encoded) if not result.checks[name]]
        checks[name] = _check(rows, failed)
        if failed and name in FATAL:
            raise _error(FATAL[name][0], failed, FATAL[name][1])
    if PREFIX in checks and not checks[PREFIX]["ok"]:
        what = f"{checks[PREFIX]['failed']} of {len(rows)} prompts are not a prefix of prompt and answer together"
        wrong = [row for row, result in zip(rows, encoded) if not result.checks[PREFIX]]
        raise _error(what, wrong, "the chat template writes a finished turn differently; use another template")

    unlabelled = [row for row in rows if len(row.answer) < 2]  # only the end token
    longest = max((len(row.prompt) + len(row.answer) for row in rows), default=0)
    too_long = [row for row in rows if len(row.prompt) + len(row.answer) > context]
    checks["has_label"] = _check(rows, unlabelled)
    checks["fits_context"] = _check(rows, too_long) | {"longest": longest, "context": context}
    if not checks["has_label"]["ok"]:
        raise _error(f"{len(unlabelled)} of {len(rows)} answers have no token", unlabelled, "write the answers")
    if not checks["fits_context"]["ok"]:
        what = f"{len(too_long)} of {len(rows)} rows are longer than {context} tokens, the longest has {longest}"
        raise _error(what, too_long, "shorten the prompts or take a model with a longer context")
    left_out = {id(row) for row in (*unlabelled, *too_long)}
    return [row for row in rows if id(row) not in left_out], checks


def rendered(tokenizer: Tokenizer, prompts: Sequence[tuple[Sequence[Message], Example]]) -> list[tuple[str, str]]:
    """Each row as the model reads it: (prompt, answer with its end-of-turn token); the loss is on the answer only."""
    _check_turns(tokenizer, prompts)
    texts = tokenizer.render_texts([list(messages) for messages, _ in prompts])
    end = tokenizer.token_text(tokenizer.end_of_turn)
    return [(text, example.answer + end) for text, (_, example) in zip(texts, prompts)]


def _check_turns(tokenizer: Tokenizer, prompts: Sequence[tuple[Sequence[Message], Example]]) -> None:
    for messages, example in prompts:
        tokenizer.check_turns(list(messages), example.where)


def _check(rows: Sequence[Row], failed: Sequence[Row]) -> dict:
    return {"ok": len(failed) <= MAX_FAILED * len(rows), "rows": len(rows), "failed": len(failed)}


def _error(what: str, failed: Sequence[Row], hint: str) -> RiyazError:
    return RiyazError(what, failed[0].example.where if failed[0].example else "", hint)
