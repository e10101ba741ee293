"""Rows of files of any size, one after the other, in memory that does not grow with them.

JSON Lines, CSV and TSV in UTF-8, each also gzipped, are read anew whenever their rows are asked for. A JSON array, a
workbook, Parquet, a folder that `datasets` saved, and text in another encoding are read whole, once.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

from riyaz.data import Example, Reading
from riyaz.data.bounds import ROW, Bounds
from riyaz.data.column_roles import find_reading
from riyaz.data.conversations import RowProblem
from riyaz.data.encodings import CHUNK, NotUTF8, decode, unpacked
from riyaz.data.many_files import combine, common_folder, matching_files, mixed_columns, read_tables
from riyaz.data.parquet import is_saved
from riyaz.data.records import example_of
from riyaz.data.tables import (
    GZIP,
    UNQUOTED,
    Problems,
    Table,
    csv_rows,
    expect_table,
    json_lines,
    kind_of,
    not_read,
    separator,
)
from riyaz.errors import RiyazError

STREAMED = (".jsonl", ".csv", ".tsv")
HEAD = 1000  # rows by which the columns are found
LONGEST = 4 * ROW  # bytes of a line: a character of UTF-8 takes at most four
Row = dict[str, object]


@dataclass(frozen=True)
class Part:
    """One file: a table of its first rows, or of all where it is read whole."""

    head: Table
    whole: bool

    def rows(self, digest: "hashlib._Hash | None" = None) -> Iterator[tuple[int, Row]]:
        """(line the row starts on, its fields) of every row; `digest` gets the bytes of a file that is not read whole.
        Raises RiyazError."""
        return iter(self.head.rows) if self.whole else _rows(self.head.path, digest)


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

    def __iter__(self) -> Iterator[tuple[Row, Example]]:
        """Raises RiyazError where a file was changed so that it cannot be read any more."""
        folder = common_folder([part.head for part in self.parts])
        for part in self.parts:
            for line, row in part.rows():
                where = part.head.place(line, folder)
                try:
                    example = example_of(row, self.reading, where, answers_required=False)
                except RowProblem as problem:
                    raise RiyazError(f"was changed: {problem}", where, "run the same command again") from None
                assert example is not None  # only rows that need an answer are left out
                yield row, example


def open_rows(
    path: Path, *, prompt_column: str | None = None, encoding: str | None = None, like: Reading | None = None,
    answer_columns: Sequence[str] = (),
) -> RowStream:  # fmt: skip
    """The rows of a file, a pattern or a folder that `datasets` saved, as `formats.load` reads rows without answers,
    after one reading of all that checks them. `answer_columns` may hold answers, so none of them is the prompt's.
    Raises RiyazError with file and line."""
    encoding, parts = _parts(path, encoding, like)
    heads = [part.head for part in parts]
    table = combine(path, heads)
    prompts = {prompt_column, like.prompt if like else None}
    table = replace(table, columns=tuple(name for name in table.columns if name not in {*answer_columns} - prompts))
    try:
        reading, note = find_reading(table, prompt_column, None, answers_required=False, like=like)
    except RiyazError as error:
        raise mixed_columns(error, path, heads) from None
    reading = replace(reading, answer="", references="", group="", questions=(), spellings=(), checks=(),
                      encoding=encoding, called=like is None or like.called)  # fmt: skip
    columns, count, digest = dict.fromkeys(chain.from_iterable(head.columns for head in heads)), 0, hashlib.sha256()
    for part in parts:
        count += _check(part, reading, columns, digest)
    note = note and f"{path.name}: {note}"
    return RowStream(path, tuple(parts), reading, tuple(columns), count, digest.hexdigest(), note)


def _check(part: Part, reading: Reading, columns: dict[str, None], digest: "hashlib._Hash") -> int:
    """The number of a file's rows, whose columns are added to those known. Raises RiyazError naming the lines of rows
    without a text."""
    problems, count = Problems(part.head.path, mark=part.head.mark), 0
    if part.whole:
        digest.update(part.head.sha256.encode())
    for line, row in part.rows(digest):
        count += 1
        columns.update(dict.fromkeys(row))
        try:
            example_of(row, reading, "", answers_required=False)
        except RowProblem as problem:
            problems.add(line, str(problem))
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
            rows = list(islice(_rows(file), HEAD))
            columns = tuple(dict.fromkeys(column for _, row in rows for column in row))
            parts.append(Part(Table(file, rows, columns, ""), whole=False))
        else:
            parts += [Part(table, whole=True) for table in read_tables(file, encoding)]
    return parts


def _rows(path: Path, digest: "hashlib._Hash | None" = None) -> Iterator[tuple[int, Row]]:
    """The rows of a file of a kind in STREAMED. Raises RiyazError."""
    kind, bounds, texts = kind_of(path), Bounds(path, streamed=True), _texts(path, digest)
    first = ""
    while not first.strip() and (text := next(texts, "")):
        first += text
    if kind == ".jsonl":
        lines = (line.removesuffix("\n") for text in chain([first], texts) for line in io.StringIO(text, newline=None))
        yield from json_lines(path, lines, first, kind, bounds)
    elif first.strip():
        cr = "\r" if "\n" in first else "\n"  # it ends lines in a file without LF; otherwise it may be part of a field
        blocks = (text.replace("\r\n", "\n").replace("\r", cr) for text in chain([first], texts))
        first = next(blocks)
        lines = (line for text in chain([first], blocks) for line in io.StringIO(text, newline=""))
        yield from csv_rows(path, lines, separator(first, kind), bounds)
    if not bounds.rows:
        raise RiyazError("the file is empty", str(path), "write one example per line")


def _texts(path: Path, digest: "hashlib._Hash | None") -> Iterator[str]:
    """The text of a file in pieces that end with a line. Raises RiyazError."""
    line, kept = 1, b""
    for piece in chain(_pieces(path, digest), [b""]):
        kept += piece
        cut = len(kept) if not piece else kept.rfind(b"\n") + 1
        if not cut and len(kept) > LONGEST:
            cut = kept.rfind(b"\r", 0, -1) + 1  # before the last byte, which may be the CR of a CRLF
            if not cut:
                Bounds(path).check(line, ROW + 1, UNQUOTED, least=True)
        if not cut:
            continue
        block, kept = kept[:cut], kept[cut:]
        try:
            yield decode(path, block) if line == 1 else block.decode()
        except UnicodeDecodeError:
            decode(path, block, first=line)  # raises the error that names the byte
            raise
        line += block.count(b"\n")


def _pieces(path: Path, digest: "hashlib._Hash | None") -> Iterator[bytes]:
    """The bytes of a file, decompressed, in pieces of 1 MiB, each of which `digest` gets."""
    try:
        with open(path, "rb") as file:
            packed = path.name.lower().endswith(GZIP)
            pieces = unpacked(path, file, path.stat().st_size) if packed else iter(lambda: file.read(CHUNK), b"")
            for piece in pieces:
                if digest is not None:
                    digest.update(piece)
                yield piece
    except OSError as error:
        raise not_read(error, path) from None
