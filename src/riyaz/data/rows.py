"""Turn examples into token ids, and check that they can be learned from.

A row is the prompt as the chat template renders it and the answer with its end-of-turn id; the loss is on the answer
only. A conversation is one row if each of its prompts begins with the one before it and that one's answer: then the
loss is on all its answers. Rows are never truncated: one that does not fit is counted and left out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from riyaz.data import Example, Message
from riyaz.data.turns import conversation_of
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


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a model should predict for each of a row's n answer tokens, in place of the token itself: the k likeliest
    tokens of another model (n, k) and their log-probabilities in nats (n, k). Each place weighs `weight` times as much
    as an answer token of another row."""

    tokens: np.ndarray
    log_p: np.ndarray
    weight: float = 1.0


def likeliest(log_p: np.ndarray, count: int) -> Wanted:
    """The `count` likeliest tokens at each place, or all if there are fewer, from their log-probabilities (n, V)."""
    count = min(count, log_p.shape[1])
    tokens = np.argpartition(log_p, -count, axis=1)[:, -count:]
    return Wanted(tokens, np.take_along_axis(log_p, tokens, 1))


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids of one training row; `answer` ends with the end-of-turn id. With `together` its tokens do not follow
    each other: each is predicted by the prompt alone, as the answer to one of several questions. `earlier` answers are
    learned too: each is a part of the prompt, from its first token to the one before its end. With `wanted` the
    distributions of its tokens are learned, those of a teacher, or in `general` text those of the base. With `rejected`
    tokens it is a pair of answers to one prompt, of which `answer` is the better one; `desirable` says what a single
    answer is."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    example: Example | None = None
    together: bool = False
    earlier: tuple[tuple[int, int], ...] = ()
    wanted: Wanted | None = None
    general: bool = False
    rejected: tuple[int, ...] = ()
    desirable: bool | None = None  # None: not said
    place: int = 0  # among all rows, in a step of training

    @property
    def labels(self) -> tuple[int, ...]:
        """The tokens that the loss is on."""
        return (*(token for start, end in self.earlier for token in self.prompt[start:end]), *self.answer)

    @property
    def weight(self) -> int:
        """What its loss is a sum over: the tokens of its answers, or itself where answers are better and worse ones; 0
        of general text, whose tokens have weights of their own."""
        if self.general:
            return 0
        return 1 if self.rejected or self.desirable is not None else len(self.labels)

    @property
    def sides(self) -> tuple["Row", ...]:
        """The row as sequences that a model reads: of a pair the better answer's, then the worse one's."""
        if not self.rejected:
            return (self,)
        better = replace(self, rejected=(), desirable=True)
        return better, replace(better, answer=self.rejected, desirable=False)

    @property
    def tokens(self) -> int:
        """Tokens of its prompts and answers; a pair has its prompt twice."""
        return sum(len(side.prompt) + len(side.answer) for side in self.sides)

    @property
    def answers(self) -> int:
        """The number of answers that are learned."""
        return 1 + len(self.earlier)

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
    encoded = tokenizer.rows([(list(messages), example.said) for messages, example in prompts])
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


def joined(rows: Sequence[Row]) -> list[Row]:
    """The rows with those of a conversation as one, in the place of its last, as far as each begins with all the tokens
    of the one before: what is learned is the same, and the conversation is read once."""
    conversations: dict[str, list[Row]] = {}
    for row in rows:
        if row.example is not None and (name := conversation_of(row.example)) and not row.together:
            conversations.setdefault(name, []).append(row)
    within: dict[int, Row] = {}  # by the id of a row the shortest one that begins with it
    whole: dict[int, Row] = {}  # by the id of a row the same with the answers of those within it
    for members in conversations.values():
        members.sort(key=lambda row: len(row.prompt))
        for place, row in enumerate(members):
            tokens = (*row.prompt, *row.answer)
            after = next((each for each in members[place + 1 :] if each.prompt[: len(tokens)] == tokens), None)
            if after is not None:
                within[id(row)] = after
        for row in members:
            spans = (*whole.get(id(row), row).earlier, (len(row.prompt), len(row.prompt) + len(row.answer)))
            if (after := within.get(id(row))) is not None:
                known = whole.get(id(after), after)
                whole[id(after)] = replace(known, earlier=tuple(sorted((*known.earlier, *spans))))
    return [whole.get(id(row), row) for row in rows if id(row) not in within]


def rows_per_step(rows: Sequence[Row], answers: int) -> int:
    """How many rows hold about so many answers, at least one; rows of general text come on top."""
    return max(1, round(answers * len(rows) / max(1, sum(row.answers for row in rows if not row.general))))


def divided_note(rows: Sequence[Row]) -> str:
    """A line about `joined` rows whose conversation is more than one row, "" for none."""
    conversations = [conversation_of(row.example) for row in rows if row.example is not None]
    counts = Counter(name for name in conversations if name)
    several = sum(count > 1 for count in counts.values())
    if not several:
        return ""
    return (
        f"{several:,} of {len(counts):,} conversations are read more than once: a later prompt does not begin with the "
        "turns before it, as the chat template or the passages make it"
    )


def rendered(tokenizer: Tokenizer, prompts: Sequence[tuple[Sequence[Message], Example]]) -> list[tuple[str, str]]:
    """Each row as the model reads it: (prompt, answer with its end-of-turn token); the loss is on the answer only."""
    _check_turns(tokenizer, prompts)
    texts = tokenizer.render_texts([list(messages) for messages, _ in prompts])
    end = tokenizer.token_text(tokenizer.end_of_turn)
    called = tokenizer.answer_ids([example.said for _, example in prompts if example.tools])
    answers = iter(tokenizer.decode(ids, ids) for ids in called)
    examples = [example for _, example in prompts]
    return [(text, next(answers) if row.tools else row.answer + end) for text, row in zip(texts, examples)]


def _check_turns(tokenizer: Tokenizer, prompts: Sequence[tuple[Sequence[Message], Example]]) -> None:
    for messages, example in prompts:
        tokenizer.check_turns(list(messages), example.where)


def _check(rows: Sequence[Row], failed: Sequence[Row]) -> dict:
    return {"ok": len(failed) <= MAX_FAILED * len(rows), "rows": len(rows), "failed": len(failed)}


def _error(what: str, failed: Sequence[Row], hint: str) -> RiyazError:
    return RiyazError(what, failed[0].example.where if failed[0].example else "", hint)
