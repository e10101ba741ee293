"""Rows written as a file whose name says the format: JSON Lines, CSV, TSV or Parquet.

Values are written as they are; in CSV and TSV lists and objects are JSON, null is an empty field. Text that a
spreadsheet program would run as a formula is not changed, which would garble -1 and +49 30 12; `formulas` counts it.
"""

import csv
import importlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz.data.tables import kind_of
from riyaz.errors import RiyazError
from riyaz.extras import install
from riyaz.files import atomic_file, encoded, is_stream
from riyaz.json_files import finite, json_line, to_json

FORMATS = (".jsonl", ".csv", ".tsv", ".parquet")
BOM = b"\xef\xbb\xbf"
Row = dict[str, object]


@dataclass(frozen=True)
class Form:
    """How rows are written: the kind of file, and for CSV the separator and whether a byte order mark begins it."""

    kind: str
    separator: str = ","
    mark: bool = False


def form_of(out: Path, source: Path) -> Form:
    """The form that the name of `out` asks for; CSV with the separator and byte order mark of `source`, with a mark for
    a workbook. Raises RiyazError for another name, and for a missing package."""
    kind = out.suffix.lower()
    if kind not in FORMATS and is_stream(out):
        kind = ".jsonl"
    if kind not in FORMATS:
        what = f"{out.suffix or 'a name without suffix'} is no format that is written"
        raise RiyazError(what, str(out), f"end the name in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if kind == ".parquet":
        _parquet(out)
    if kind != ".csv":
        return Form(kind, "\t")
    if source.suffix.lower() != ".csv" or not source.is_file():
        return Form(kind, mark=kind_of(source) == ".xlsx")
    with source.open("rb") as file:
        first = file.readline(2**16)
    return Form(kind, ";" if b";" in first and b"," not in first else ",", first.startswith(BOM))


def write_rows(out: Path, rows: Iterable[Row], columns: Sequence[str], form: Form) -> None:
    """Write a file atomically, row by row but for Parquet. Raises RiyazError."""
    with atomic_file(out) as file:
        if form.kind == ".parquet":
            parquet = _parquet(out)
            parquet.write_table(_table(list(rows), columns), file)
        else:
            file.writelines(lines(rows, columns, form))


def lines(rows: Iterable[Row], columns: Sequence[str], form: Form) -> Iterator[bytes]:
    """The lines of a JSON Lines, CSV or TSV file; those of a table begin with its header."""
    if form.kind == ".jsonl":
        yield from map(json_line, rows)
        return
    line = io.StringIO()
    writer = csv.writer(line, delimiter=form.separator, lineterminator="\r\n")  # quotes fields that hold either
    yield (BOM if form.mark else b"") + _written(writer, line, columns)
    for row in rows:
        yield _written(writer, line, [_field(row.get(column)) for column in columns])


def formulas(rows: Iterable[Row]) -> int:
    """The number of fields that a spreadsheet program may run as a formula."""
    return sum(_is_formula(value) for row in rows for value in row.values())


def _is_formula(value: object) -> bool:
    if not isinstance(value, str) or not value.startswith(("=", "@", "+", "-", "\t", "\r")):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def _written(writer: Any, line: io.StringIO, fields: Sequence[str]) -> bytes:
    line.seek(0)
    line.truncate()
    writer.writerow(fields)
    return encoded(line.getvalue().removesuffix("\r\n") + "\n")


def _field(value: object) -> str:
    """A value as text: JSON for all that is not text, "" for null and for numbers that JSON lacks."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return value if isinstance(value, str) else to_json(value)


def _table(rows: Sequence[Row], columns: Sequence[str]) -> Any:
    """The rows as an Arrow table; a column of mixed types, or of lists that Arrow cannot hold, is text."""
    arrow = importlib.import_module("pyarrow")
    arrays = []
    for column in columns:
        values = [finite(row.get(column)) for row in rows]
        try:
            array = arrow.array(values)
            if arrow.types.is_null(array.type):
                array = array.cast(arrow.string())
        except (arrow.ArrowException, OverflowError, UnicodeError):
            texts = [None if value is None else _field(value) for value in values]
            array = arrow.array([None if text is None else encoded(text).decode() for text in texts], arrow.string())
        arrays.append(array)
    return arrow.Table.from_arrays(arrays, names=list(columns))


def _parquet(out: Path) -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise RiyazError("writing Parquet needs pyarrow", str(out), install("data")) from None
