"""Rows of the user's file as examples: what every later stage reads.

`formats.load` reads a file, `task.detect` says what kind of task it is, `split.split` holds rows out by the
hash of the prompt, `rows.encode_rows` makes token ids of examples and `packing` batches without padding.
"""

import hashlib
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}


@dataclass(frozen=True)
class Example:
    """One row: a conversation up to a user turn, and the accepted answers, of which the first is learned."""

    messages: tuple[Message, ...] = field(hash=False)
    answers: tuple[str, ...]
    slice: str | None = None
    where: str = ""  # "train.jsonl:17"
    doc_ids: tuple[str, ...] = ()  # documents that hold the answer

    @property
    def prompt(self) -> str:
        """The text of the last user turn."""
        return self.messages[-1]["content"]

    @property
    def answer(self) -> str:
        """The answer to learn."""
        return self.answers[0]

    @cached_property
    def key(self) -> str:
        """Hash of the normalised conversation without system turns; rows with equal keys are duplicates."""
        turns = [normalise(turn["content"]) for turn in self.messages if turn["role"] != "system"]
        return hashlib.sha256("\x1f".join(turns).encode()).hexdigest()

    def to_record(self) -> dict[str, object]:
        """A JSON object from which `from_record` makes an equal example."""
        record: dict[str, object] = {"messages": list(self.messages), "answers": list(self.answers)}
        optional = {"slice": self.slice, "where": self.where or None, "doc_ids": list(self.doc_ids) or None}
        return record | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_record(cls, record: dict) -> "Example":
        """The example that `to_record` wrote."""
        return cls(
            messages=tuple(record["messages"]),
            answers=tuple(record["answers"]),
            slice=record.get("slice"),
            where=record.get("where", ""),
            doc_ids=tuple(record.get("doc_ids", ())),
        )


@dataclass(frozen=True)
class Dataset:
    """The examples of one file or of several as one, in file order, and how the file was read."""

    examples: tuple[Example, ...]
    format: str  # the columns used, "text,label", or "messages"
    path: Path
    sha256: str  # of the file's bytes; of several files, of their hashes in hexadecimal
    columns: tuple[str, ...]  # every column of the file
    skipped: int = 0  # conversations in which every answer has weight 0
    answer_column: str = ""  # "" for conversations
    folder: Path | None = None  # where `Example.where` starts; None for rows in memory

    def place(self, example: Example) -> str:
        """The example's file and line as a path; of rows in memory their name and the row's number."""
        return example.where if self.folder is None else str(self.folder / example.where)

    @property
    def unused_columns(self) -> tuple[str, ...]:
        """Columns of the file that no example carries."""
        used = {*self.format.split(","), "slice", "doc_id", "doc_ids", "system"}
        if not self.answer_column:
            used |= {"tools", "functions"}
        return tuple(column for column in self.columns if column not in used)


def normalise(text: str) -> str:
    """Text as duplicates are compared: NFKC, case folded, white space collapsed."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
