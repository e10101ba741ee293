"""Examples made from the rows of the user's file: the input of every later stage.

`formats.load` reads a file, `task.detect` determines the kind of task, `split.split` holds rows out by the hash of
the prompt, `rows.encode_rows` turns examples into token ids and `packing` batches them without padding.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from riyaz.data.checks import Check
from riyaz.data.questions import Question
from riyaz.files import new_sha256
from riyaz.json_files import to_json
from riyaz.text.calls import turn_of, turn_text

# {"role": "system" | "user" | "assistant" | "tool", "content": text}; an assistant's turn may have "tool_calls" in
# OpenAI's form, a tool's one the "tool_call_id", and a system turn the definitions of the "tools" of its conversation
Message = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One row: messages that end with a user turn, and the accepted answers; training uses the first."""

    messages: tuple[Message, ...] = field(hash=False)
    answers: tuple[str, ...]
    slice: str | None = None
    where: str = ""  # "train.jsonl:17"
    doc_ids: tuple[str, ...] = ()  # documents that contain the answer
    own_doc_ids: tuple[str, ...] = ()  # documents that are this row itself, where rows are documents too
    group: str | None = None  # rows of one group, such as of one customer, are not independent; None: a row alone
    check: Check | None = None  # by what the answer is checked beside `answers`
    rejected: str = ""  # an answer that is worse than the first accepted one
    desirable: bool | None = None  # whether the answer is a good one, where the rows say so; a bad one is not accepted

    @property
    def prompt(self) -> str:
        """The text of the last turn, which is the user's or a tool's result."""
        return str(self.messages[-1]["content"])

    @property
    def turns(self) -> list[str]:
        """The texts of the turns but the system's, with their calls of tools."""
        return [turn_text(turn) for turn in self.messages if turn["role"] != "system"]

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """The definitions of the tools that its answer may call, in OpenAI's form."""
        return tuple(self.messages[0].get("tools", ()))

    @property
    def turn(self) -> int:
        """The number of its answer among those of the conversation, from 1."""
        return 1 + sum(turn["role"] == "assistant" for turn in self.messages)

    @property
    def said(self) -> str | Message:
        """The answer as the chat template reads it: its text, or a message where it may hold calls of tools."""
        return turn_of(self.answer) if self.tools else self.answer

    @property
    def answer(self) -> str:
        """The answer used in training: the first accepted one."""
        return self.answers[0]

    @cached_property
    def key(self) -> str:
        """Hash of the normalised conversation without system turns; rows with equal keys are duplicates."""
        tools = [to_json(list(self.tools))] if self.tools else []
        return new_sha256("\x1f".join(map(normalise, [*tools, *self.turns])).encode()).hexdigest()

    def to_record(self) -> dict[str, object]:
        """The example as a JSON object, which `from_record` reads."""
        record: dict[str, object] = {"messages": list(self.messages), "answers": list(self.answers)}
        optional = {
            "slice": self.slice,
            "where": self.where or None,
            "doc_ids": list(self.doc_ids) or None,
            "own_doc_ids": list(self.own_doc_ids) or None,
            "group": self.group,
            "check": self.check and self.check.to_record(),
            "rejected": self.rejected or None,
            "desirable": self.desirable,
        }
        return record | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_record(cls, record: dict) -> "Example":
        """The example of a JSON object that `to_record` wrote."""
        return cls(
            messages=tuple(record["messages"]),
            answers=tuple(record["answers"]),
            slice=record.get("slice"),
            where=record.get("where", ""),
            doc_ids=tuple(record.get("doc_ids", ())),
            own_doc_ids=tuple(record.get("own_doc_ids", ())),
            group=record.get("group"),
            check=Check.from_record(record["check"]) if "check" in record else None,
            rejected=record.get("rejected", ""),
            desirable=record.get("desirable"),
        )


@dataclass(frozen=True)
class Reading:
    """How rows become examples: the columns that make one up, and what else must be known to read the file again.

    A conversation column is `prompt`, with `answer` empty.
    """

    prompt: str
    answer: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    references: str = ""
    encoding: str | None = None  # of text that is not UTF-8
    skip_incomplete: bool = False  # whether rows without a prompt or an answer are left out
    spellings: tuple[str, ...] = ()  # of the labels, if others were merged into them
    group: str = ""  # the column that names the group of a row
    questions: tuple[Question, ...] = ()  # each with the column of its answers; then `answer` is empty
    checks: tuple[str, ...] = ()  # columns that say by what an answer is checked
    turns: str = "last"  # "all": every answer of a conversation makes a row
    called: bool = False  # whether the chat template writes a conversation's tools; else they are text
    rejected: str = ""  # the column of the worse answer, where `answer` is that of the better one
    desirable: str = ""  # the column that says whether the answer is a good one

    @property
    def format(self) -> str:
        """The columns used, joined by commas."""
        judged = (self.answer, self.rejected, self.desirable)
        answers = (*judged, self.references, *(question.column for question in self.questions))
        return ",".join(filter(None, (*self.before, self.prompt, *self.after, *answers)))


@dataclass(frozen=True)
class Dataset:
    """The examples of one file, or of several read as one, in file order, with the columns used and a hash."""

    examples: Sequence[Example]
    format: str  # the columns used, "text,label", or "messages"
    path: Path
    sha256: str  # of the file's bytes; for several files, of their hexadecimal hashes joined
    columns: tuple[str, ...]  # every column of the file
    skipped: int = 0  # conversations in which every answer has weight 0
    answer_column: str = ""  # "" for conversations
    folder: Path | None = None  # `Example.where` is relative to it; None for rows in memory
    incomplete: int = 0  # rows left out because they have no prompt or no answer
    reading: Reading | None = None  # by which the same columns of another file are read
    notes: tuple[str, ...] = ()  # what was guessed, for the user

    def place(self, example: Example) -> str:
        """Path and line of an example, such as `data/train.jsonl:17`; for rows in memory their name and row number."""
        return example.where if self.folder is None else str(self.folder / example.where)

    @property
    def unused_columns(self) -> tuple[str, ...]:
        """Columns of the file that no example uses."""
        used = {*self.format.split(","), "slice", "doc_id", "doc_ids", "system"}
        used |= {self.reading.group, *self.reading.checks} if self.reading else set()
        if not self.answer_column:
            used |= {"tools", "functions"}
        return tuple(column for column in self.columns if column not in used)


def normalise(text: str) -> str:
    """The text in the form in which duplicates are compared: NFKC, case folded, white space collapsed."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
