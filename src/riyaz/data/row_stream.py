"""Rows of files of any size, one after the other, in memory that does not grow with them.

JSON Lines, CSV and TSV in UTF-8, each also gzipped, are read anew whenever their rows are asked for. A JSON array, a
workbook, Parquet, a folder that `datasets` saved, and text in another encoding are read whole, once.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from riyaz.data import Example, Reading
from riyaz.data.column_roles import find_reading
from riyaz.data.conversations import Incomplete, RowProblem
from riyaz.data.encodings import NotUTF8
from riyaz.data.groups import group_column_of
from riyaz.data.many_files import combine, common_folder, matching_files, mixed_columns, read_tables
from riyaz.data.parquet import is_saved
from riyaz.data.records import example_of, holds_conversations
from riyaz.data.streamed_file import STREAMED, Row, streamed_rows
from riyaz.data.tables import Problems, Table, expect_table, kind_of
from riyaz.errors import RiyazError

HEAD = 1000  # rows by which the columns are found
Key = Callable[[Example], int]


@dataclass(frozen=True)
class Part:
    """One file: a table of its first rows, or of all where it is read whole."""

    head: Table
    whole: bool

    def rows(self, digest: "hashlib._Hash | None" = None) -> Iterator[tuple[int, Row]]:
        """(line the row starts on, its fields) of every row; `digest` gets the bytes of a file that is not read whole.
        Raises RiyazError."""
        return iter(self.head.rows) if self.whole else streamed_rows(self.head.path, digest)


@dataclass(frozen=True)
class RowStream:
    """The rows of a file, or of several read as one, each with its example, read anew at every iteration."""

    path: Path
    parts: tuple[Part, ...]
    reading: Reading
    columns: tuple[str, ...]  # every column of the files
    count: int
    sha256: str  # of the files' bytes
    note: str = ""  # what was guessed
    keys: "array[int]" = field(default_factory=lambda: array("Q"))  # of every row, where there is a key
    key: Key | None = None

    def __iter__(self) -> Iterator[tuple[Row, Example]]:
        """Raises RiyazError where a file was changed so that it cannot be read any more."""
        return self.between(0)

    def between(self, first: int, end: int | None = None) -> Iterator[tuple[Row, Example]]:
        """The rows from number `first`, counted from 0, to that before `end`. Raises RiyazError where a file was
        changed: so that it cannot be read any more, or, where rows have keys, so that they are others."""
        folder, number = common_folder([part.head for part in self.parts]), -1
        for part in self.parts:
            for line, row in part.rows():
                if number + 1 < first and not self.reading.skip_incomplete:
                    number += 1
                    continue
                where = part.head.place(line, folder)
                try:
                    example = example_of(row, self.reading, where, answers_required=False)
                except RowProblem as problem:
                    if self.reading.skip_incomplete and isinstance(problem, Incomplete):
                        continue
                    raise RiyazError(f"was changed: {problem}", where, "run the same command again") from None
                assert example is not None  # only rows that need an answer are left out
                number += 1
                if end is not None and number >= end:
                    return
                if self.key is not None and (number >= self.count or self.key(example) != self.keys[number]):
                    raise self._changed(where)
                if number >= first:
                    yield row, example
        if self.key is not None and number + 1 < (self.count if end is None else end):
            raise self._changed(str(self.path))

    def _changed(self, where: str) -> RiyazError:
        return RiyazError("was changed while its rows were answered", where, "run the same command again")


def open_rows(
    path: Path, *, prompt_column: str | None = None, encoding: str | None = None, like: Reading | None = None,
    answer_columns: Sequence[str] = (), read_answers: bool = False, key: Key | None = None,
) -> RowStream:  # fmt: skip
    """The rows of a file, a pattern or a folder that `datasets` saved, as `formats.load` reads rows without answers,
    after one reading of all that checks them. `answer_columns` may hold answers, so none of them is the prompt's. Rows
    have no answers, unless `read_answers`: then those in the file are read, and refused where they are wrong. `key`
    gives a number below 2**64 of each row. Raises RiyazError with file and line."""
    encoding, parts = _parts(path, encoding, like)
    heads = [part.head for part in parts]
    table = combine(path, heads)
    table = replace(table, columns=tuple(dict.fromkeys(chain.from_iterable(head.columns for head in heads))))
    while True:
        try:
            reading, note = _reading(table, prompt_column, like, answer_columns, read_answers)
        except RiyazError as error:
            raise mixed_columns(error, path, heads) from None
        reading = replace(reading, encoding=encoding, spellings=(), checks=())
        columns, keys, digest = dict.fromkeys(table.columns), array("Q"), hashlib.sha256()
        count = sum(_check(part, reading, columns, digest, keys, key) for part in parts)
        if not read_answers or len(columns) == len(table.columns):
            break
        table = replace(table, columns=tuple(columns))  # columns that begin behind the head may be read too
    if not count:
        raise RiyazError("no row is complete", str(path), "give prompts and answers")
    note = note and f"{path.name}: {note}"
    return RowStream(path, tuple(parts), reading, tuple(columns), count, digest.hexdigest(), note, keys, key)


def _reading(
    table: Table, prompt_column: str | None, like: Reading | None, answer_columns: Sequence[str], read_answers: bool
) -> tuple[Reading, str]:
    """How rows are read, and one line on what was guessed. Raises RiyazError."""
    if not read_answers:
        prompts = {prompt_column, like.prompt if like else None}
        left = tuple(name for name in table.columns if name not in {*answer_columns} - prompts)
        table = replace(table, columns=left)
        reading, note = find_reading(table, prompt_column, None, answers_required=False, like=like)
        called = like is None or like.called
        reading = replace(reading, answer="", references="", group="", questions=(), called=called)
        return replace(reading, skip_incomplete=False), note
    group, questions = group_column_of(table, None, like)[0], like.questions if like else ()
    taken = [question.column for question in questions]
    reading, note = find_reading(table, prompt_column, None, False, like, group, taken)
    reading = replace(reading, group=group, skip_incomplete=bool(questions))
    if questions:
        reading = replace(reading, answer="", references="", questions=questions)
    if like is None and holds_conversations(table, reading.prompt):
        reading = replace(reading, called=True)
    return reading, note


def _check(
    part: Part, reading: Reading, columns: dict[str, None], digest: "hashlib._Hash", keys: "array[int]", key: Key | None
) -> int:
    """The number of a file's rows, whose columns are added to those known, and their keys to `keys`. Raises RiyazError
    naming the lines of rows without a text, unless these are left out."""
    problems, count = Problems(part.head.path, mark=part.head.mark), 0
    if part.whole:
        digest.update(part.head.sha256.encode())
    for line, row in part.rows(digest):
        columns.update(dict.fromkeys(row))
        try:
            example = example_of(row, reading, "", answers_required=False)
        except RowProblem as problem:
            if not (reading.skip_incomplete and isinstance(problem, Incomplete)):
                problems.add(line, str(problem))
            continue
        count += 1
        if key is not None and example is not None:
            keys.append(key(example))
    problems.check("correct or remove the row" + ("s" if len(problems.entries) > 1 else ""))
    return count


def _parts(path: Path, encoding: str | None, like: Reading | None) -> tuple[str | None, list[Part]]:
    """The files of a path, and the encoding of text that is not UTF-8: that of `like` where none is given."""
    try:
        return encoding, _opened(path, encoding)
    except NotUTF8:
        if like is None or like.encoding is None:
            raise
        return like.encoding, _opened(path, like.encoding)


def _opened(path: Path, encoding: str | None) -> list[Part]:
    if path.is_dir() and is_saved(path):
        return [Part(table, whole=True) for table in read_tables(path, encoding)]
    parts = []
    for file in matching_files(path):
        expect_table(file)
        if encoding is None and kind_of(file) in STREAMED:
            rows = list(islice(streamed_rows(file), HEAD))
            columns = tuple(dict.fromkeys(column for _, row in rows for column in row))
            parts.append(Part(Table(file, rows, columns, ""), whole=False))
        else:
            parts += [Part(table, whole=True) for table in read_tables(file, encoding)]
    return parts
