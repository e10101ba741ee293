"""Rows of an Excel workbook (.xlsx): its first visible sheet, whose first row with a value names the columns.

Values are those that the sheet shows: a formula's stored result, whole numbers without ".0", dates as 2024-05-01, and
in every cell of a merged range the value of its first. Read by openpyxl row by row, with defusedxml against XML bombs;
both are in the extra `data`. A reader that lays a sheet out as a grid needs 550 GB for two cells at its corners.
"""

import importlib
import io
import math
import re
import warnings
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from riyaz.data.bounds import Bounds
from riyaz.errors import RiyazError
from riyaz.extras import install

MAX_XML = 64 * 2**20  # bytes of a workbook's XML, unpacked; openpyxl reads some 5 MB a second
MAX_PARTS = 10_000
GRID = 2**20  # rows that a sheet may have
MAX_CELLS = 50_000_000  # cells, empty ones before a filled one counted too
MERGED = re.compile(rb"""<(?:\w+:)?mergeCell\s[^>]*?ref=["']([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})["']""")
MAX_MERGED = 10_000  # ranges
CELL = re.compile(r"([A-Z]{1,3})(\d{1,7})")
OLE = bytes.fromhex("D0CF11E0A1B11AE1")
FORMULA = re.compile(rb"<(?:\w+:)?f[\s>/]")
SAVE = "open it in a spreadsheet program and save it again as .xlsx, or as .csv"
ROW = tuple[int, list[Any]]  # number from 1, values
Rows = list[tuple[int, dict[str, object]]]


def workbook_rows(path: Path, content: bytes) -> tuple[Rows, tuple[str, ...], str]:
    """The rows of a workbook's first visible sheet as (number, fields), its columns, and the mark between the path and
    a row's number, which names the sheet. Raises RiyazError."""
    openpyxl = _openpyxl(path)
    _check_size(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parts of the workbook that hold no values
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
            sheet = next((sheet for sheet in book.worksheets if sheet.sheet_state == "visible"), None)
            if sheet is None:
                raise RiyazError("the workbook has no visible sheet", str(path), "put the rows on a sheet")
            mark = f":{' '.join(sheet.title.split())}:"
            return (*_table(path, mark, _values(path, mark, content, sheet)), mark)
    except (RiyazError, MemoryError):
        raise
    except Exception as error:  # openpyxl raises errors of many kinds for damaged files
        reason = error.__cause__ or error
        detail = " ".join(f"{type(reason).__name__}: {reason}".split())[:120]
        raise RiyazError(f"cannot be read ({detail})", str(path), SAVE) from None


def _table(path: Path, mark: str, rows: Iterator[ROW]) -> tuple[Rows, tuple[str, ...]]:
    """The rows under the first row with a value, without empty rows, and the columns."""
    first, named = next(rows, (1, []))
    header = [str(value).strip() if value is not None else "" for value in named]
    names = [name for name in header if name]
    if len(set(names)) < len(names):
        hint = "the first row must name each column once, such as text and label"
        raise RiyazError("two columns have the same name", f"{path}{mark}{first}", hint)
    table: Rows = []
    for number, values in rows:
        for column, value in enumerate(values):
            if value is not None and not (header[column] if column < len(header) else ""):
                what = f"column {_letters(column)} holds {str(value)[:40]!r} but has no name in row {first}"
                raise RiyazError(what, f"{path}{mark}{number}", "name the column in the first row, or empty it")
        values += [None] * (len(header) - len(values))
        table.append((number, {name: value for name, value in zip(header, values) if name}))
    if not table:
        what = "the first sheet has a header and no rows" if names else "the first sheet is empty"
        raise RiyazError(what, f"{path}{mark[:-1]}", "write one example per row, on the first sheet")
    return table, tuple(names)


def _values(path: Path, mark: str, content: bytes, sheet: Any) -> Iterator[ROW]:
    """The rows that have a value. Raises RiyazError if there are too many, or for a formula without a result."""
    merged, unsolved = _marks(path, mark, content, sheet)
    bounds = Bounds(path, mark, stored=len(content))
    cells, open_ranges = 0, dict[int, tuple[int, Any]]()  # column -> last row and value of the merged range there
    sheet.reset_dimensions()  # what a sheet says of its size is often wrong
    for number, row in enumerate(sheet.iter_rows(), start=1):
        cells += len(row) + len(open_ranges)
        if number > GRID or cells > MAX_CELLS:
            what = f"the sheet has more than {GRID:,} rows or {MAX_CELLS:,} cells"
            raise RiyazError(what, f"{path}{mark}{number}", "delete what is far from the data, or save it as .csv")
        if number in unsolved:
            what = f"{_letters(unsolved[number])}{number} is a formula without a stored result"
            raise RiyazError(what, f"{path}{mark}{number}", "open it in a spreadsheet program and save it again")
        values = [_plain(cell.value, cell.data_type) for cell in row]
        for left, right, bottom in merged.get(number, ()):
            value = values[left] if left < len(values) else None
            if value is not None:
                open_ranges |= dict.fromkeys(range(left, right + 1), (bottom, value))
        open_ranges = {column: still for column, still in open_ranges.items() if number <= still[0]}
        for column, (_, value) in open_ranges.items():
            values += [None] * (column + 1 - len(values))
            values[column] = value
        if any(value is not None for value in values):
            bounds.add(number, sum(len(value) if isinstance(value, str) else 1 for value in values))
            yield number, values


def _marks(
    path: Path, mark: str, content: bytes, sheet: Any
) -> tuple[dict[int, list[tuple[int, int, int]]], dict[int, int]]:
    """A sheet's merged ranges by their first row, as (left, right, bottom), and the rows with a formula that has no
    stored result, with its column; columns from 0."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        xml = archive.read(sheet._worksheet_path)
    merged: dict[int, list[tuple[int, int, int]]] = {}
    for count, match in enumerate(MERGED.finditer(xml), start=1):
        if count > MAX_MERGED:
            raise RiyazError(f"has more than {MAX_MERGED:,} merged ranges", f"{path}{mark[:-1]}", "unmerge the cells")
        left, top, right, bottom = (part.decode() for part in match.groups())
        merged.setdefault(int(top), []).append((_column(left), _column(right), int(bottom)))
    return merged, _unsolved(xml) if FORMULA.search(xml) else {}


def _unsolved(xml: bytes) -> dict[int, int]:
    """The rows with a formula that has no stored result, and its column. An empty text is a result."""
    from defusedxml.ElementTree import iterparse

    unsolved: dict[int, int] = {}
    for _, element in iterparse(io.BytesIO(xml)):
        kind = element.tag.rpartition("}")[2]
        if kind == "c":
            parts = {part.tag.rpartition("}")[2]: part.text for part in element}
            place = CELL.fullmatch(element.get("r", ""))
            if "f" in parts and not parts.get("v") and element.get("t") != "str" and place:
                unsolved.setdefault(int(place[2]), _column(place[1]))
        if kind in ("c", "row"):
            element.clear()
    return unsolved


def _plain(value: Any, kind: str) -> object:
    """A cell's value in JSON's types, None for an empty one and for an error such as #N/A."""
    if isinstance(value, str):
        text = value.replace("_x000D_\n", "\n").replace("_x000D_", "\n")  # how Excel writes a carriage return
        return text if kind != "e" and text.strip() else None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        value = float(f"{value:.15g}")  # the digits that a spreadsheet keeps: 0.1 + 0.2 is 0.3
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    if isinstance(value, datetime):
        value = value.replace(microsecond=0)
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    if isinstance(value, (date, time)):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _letters(column: int) -> str:
    """The letters of a column: 0 is A, 26 is AA."""
    before, place = divmod(column, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + place)


def _check_size(path: Path, content: bytes) -> None:
    """Raises RiyazError for a file that is no .xlsx, or that would unpack to more than MAX_XML bytes."""
    if content.startswith(OLE):
        raise RiyazError("is encrypted, or an Excel file of before 2007", str(path), SAVE)
    try:
        parts = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise RiyazError(f"not an Excel workbook, or damaged ({error})", str(path), SAVE) from None
    size = sum(part.file_size for part in parts)
    if size > MAX_XML or len(parts) > MAX_PARTS:
        what = f"{len(content):,} bytes of workbook unpack to {size:,}, and at most {MAX_XML:,} are read"
        raise RiyazError(what, str(path), "save the sheet as .csv, or take fewer rows")


def _openpyxl(path: Path) -> Any:
    try:
        importlib.import_module("defusedxml")
        return importlib.import_module("openpyxl")
    except ImportError:
        raise RiyazError("reading Excel workbooks needs openpyxl", str(path), install("data")) from None
