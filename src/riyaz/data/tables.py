"""Read files of rows: JSON Lines, JSON arrays, CSV, TSV (each also gzipped), Excel workbooks and Parquet.

Each row has the line it starts on (in workbooks and Parquet the row's number). Text is UTF-8 with or without a byte
order mark unless an encoding is named; line ends are LF, CRLF or CR. One error names the lines of all wrong rows.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

from riyaz.data.bounds import MAX_BYTES, ROW, SHORTEN, Bounds, short_lines
from riyaz.data.encodings import CHUNK, decode, unpacked
from riyaz.data.parquet import parquet_rows
from riyaz.data.workbook import workbook_rows
from riyaz.errors import RiyazError
from riyaz.files import new_sha256, refuse_device

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet")
PACKED = (".xlsx", ".parquet")  # never gzipped
LINES = (".jsonl", ".csv", ".tsv")  # each row ends with a line
GZIP = ".gz"
WHITE = re.compile(r"[ \t\n\r]*")
LINES_NAMED = 5  # further lines that an error lists
WINDOW = 16 * 2**20  # characters of JSON decoded at once
UNQUOTED = 'shorten it, or close the " that is open in it'
FIELD_LIMIT = 16 * 2**20  # characters in one CSV field; the csv module's default is too low for long documents


@dataclass(frozen=True)
class Table:
    """The rows of one file as (line the row starts on, its fields), or rows in memory, whose `path` is only a name."""

    path: Path
    rows: Sequence[tuple[int, dict[str, object]]]
    columns: tuple[str, ...]  # in order of first appearance
    sha256: str
    mark: str = ":"  # between path and line in the place of a row; for rows in memory it does not begin with ":"

    @property
    def in_memory(self) -> bool:
        """Whether the rows were given in memory rather than read from a file."""
        return not self.mark.startswith(":")

    def place(self, number: int, folder: Path | None = None) -> str:
        """The place of a row, such as "train.jsonl:17"; the path is relative to `folder` if one is given."""
        name = str(self.path) if folder is None else self.path.relative_to(folder).as_posix()
        return f"{name}{self.mark}{number}"


@dataclass
class Problems:
    """Collects errors in single rows, so that one RiyazError names all lines."""

    path: Path
    entries: list[tuple[int, str]] = field(default_factory=list)  # (line, what is wrong)
    mark: str = ":"  # between path and line, as in `Table`

    def add(self, line: int, what: str) -> None:
        """Record an error in the row that starts on `line`."""
        self.entries.append((line, what))

    def check(self, hint: str, options: Mapping[str, str | bool] | None = None) -> None:
        """Raises RiyazError with the first error and the lines of the others, if there are any."""
        if not self.entries:
            return
        line, what = self.entries[0]
        others = [str(other) for other, _ in self.entries[1:]]
        if others:
            named = ", ".join(others[:LINES_NAMED]) + (", …" if len(others) > LINES_NAMED else "")
            kind = "line" if self.mark == ":" else "row"
            what += f" (and {len(others)} more: {kind}{'s' if len(others) > 1 else ''} {named})"
        raise RiyazError(what, f"{self.path}{self.mark}{line}", hint, options)


def kind_of(path: Path) -> str:
    """The suffix in SUFFIXES that a file has, ".jsonl" for a.jsonl.gz; "" if the file is not supported."""
    name = path.name.lower()
    packed = name.endswith(GZIP)
    suffix = Path(name.removesuffix(GZIP)).suffix
    return suffix if suffix in SUFFIXES and not (packed and suffix in PACKED) else ""


def read_table(
    path: str | Path, encoding: str | None = None, hint: str = "", longest: int | None = ROW, numbered: bool = False
) -> Table:
    """Every row of a file. Raises RiyazError; `hint` replaces the advice for text that is not UTF-8.

    `longest` is the most characters that a row may have; None sets no limit on rows. With `numbered` a first column
    without a name, as pandas writes its index, is called "number"; else it is refused.
    """
    path = Path(path)
    bounds = Bounds(path, row=longest)
    kind, packed = kind_of(path), path.name.lower().endswith(GZIP)
    of_lines = bounds if kind in LINES else replace(bounds, row=None)  # a .json file may be one line
    content = _read_bytes(path, replace(bounds, row=None) if packed else of_lines)
    digest = new_sha256(content).hexdigest()
    if not content:
        raise RiyazError("the file is empty", str(path), "write one example per line")
    if kind == ".parquet":
        table_rows, names = parquet_rows(path)
        return Table(path, table_rows, names, digest)
    if kind == ".xlsx":
        table_rows, names, mark = workbook_rows(path, content)
        return Table(path, table_rows, names, digest, mark)
    if packed:
        content = b"".join(short_lines(unpacked(path, io.BytesIO(content), len(content)), of_lines))
    text = decode(path, content, encoding, hint)
    if not text.strip():
        raise RiyazError("the file is empty", str(path), "write one example per line")
    if kind in (".csv", ".tsv"):
        text = text.replace("\r\n", "\n")
        if "\n" not in text:
            text = text.replace("\r", "\n")  # ends lines in a file without LF; otherwise it may be part of a field
        rows = list(csv_rows(path, io.StringIO(text, newline=""), separator(text, kind), bounds, numbered))
    else:
        rows = list(_json_rows(path, text.replace("\r\n", "\n").replace("\r", "\n"), kind, bounds))
    columns = tuple(dict.fromkeys(column for _, row in rows for column in row))
    return Table(path, rows, columns, digest)


def expect_table(path: Path) -> None:
    """Raises RiyazError for a folder, a device and a file that is no table."""
    if path.is_dir():
        raise RiyazError("is a folder", str(path), "name a file in it")
    refuse_device(path)
    if path.exists() and not kind_of(path):
        what = f"{path.suffix or 'a file without suffix'} is not supported"
        hint = "save the rows as .jsonl, .json, .csv or .tsv (also with .gz), .xlsx or .parquet"
        raise RiyazError(what, str(path), hint)


def _read_bytes(path: Path, lines: Bounds) -> bytes:
    expect_table(path)
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise RiyazError(f"has more than {MAX_BYTES:,} bytes", str(path), "split it, or take fewer rows")
        if path.is_file() and lines.row is not None:
            with open(path, "rb") as file:
                for _ in short_lines(iter(lambda: file.read(CHUNK), b""), lines):
                    pass  # it raises
        return path.read_bytes()
    except OSError as error:
        raise not_read(error, path) from None


def not_read(error: OSError, path: Path) -> RiyazError:
    """A failed reading as a RiyazError that names the reason and the file."""
    if isinstance(error, FileNotFoundError):
        return RiyazError("no such file", str(path), "check the path")
    return RiyazError(f"cannot be read ({error.strerror})", str(path), "check the file")


def _json_rows(path: Path, text: str, kind: str, bounds: Bounds) -> Iterator[tuple[int, dict[str, object]]]:
    """Rows of JSON Lines, except blank lines, or of a .json file that is one array."""
    is_array = text.lstrip()[0] == "["
    if kind == ".json" and is_array:
        rows = list(_array_rows(path, text, bounds))
        unique = len({line for line, _ in rows}) == len(rows)
        # If rows share a line, row numbers are used instead, because a place must name one row.
        yield from rows if unique else ((number, row) for number, (_, row) in enumerate(rows, start=1))
        return
    # Not splitlines(): a JSON string may contain U+2028 and the like unescaped.
    yield from json_lines(path, text.split("\n"), text, kind, bounds)


def json_lines(
    path: Path, lines: Iterable[str], beginning: str, kind: str, bounds: Bounds
) -> Iterator[tuple[int, dict[str, object]]]:  # fmt: skip
    """Rows of JSON Lines, except blank lines; `beginning` is the file's text, or as much of it as tells what it is.
    Raises RiyazError."""
    _check_one_line(path, beginning, kind)
    problems = Problems(path)
    for line, row_text in enumerate(lines, start=1):
        if not row_text.strip():
            continue
        bounds.add(line, len(row_text))
        try:
            row = json.loads(row_text)
        except (ValueError, RecursionError) as error:
            detail = str(error).partition(": line")[0]
            problems.add(line, f"not JSON ({detail}, column {getattr(error, 'colno', 1)})")
            continue
        if isinstance(row, dict):
            yield line, row
        else:
            problems.add(line, f"{json_kind(row)}, not a JSON object")
    hint = "write one JSON object per line"
    if kind == ".json":
        hint = "a .json file is an array of objects, or one object per line"
    is_array = beginning.lstrip()[:1] == "["
    problems.check(hint + (", not one array over all lines, or call the file .json" if is_array else ""))


def _check_one_line(path: Path, text: str, kind: str) -> None:
    """Raises RiyazError if the first object spans several lines, as in indented JSON."""
    at = _skip(text, 0)
    head = text if text.find("\n", at, at + WINDOW) > 0 else ""  # a first line longer than that is no indented JSON
    try:
        row, end = json.JSONDecoder().raw_decode(head[: at + WINDOW], at)
    except (ValueError, RecursionError):
        return
    lines = text.count("\n", at, end)
    if not lines or not isinstance(row, dict):
        return
    first = 1 + text.count("\n", 0, at)
    what = f"one object spans lines {first} to {first + lines}"
    hint = "an array of objects, or one object per line" if kind == ".json" else "one JSON object per line"
    lists = [(name, value) for name, value in row.items() if isinstance(value, list) and value]
    if len(lists) == 1 and isinstance(lists[0][1][0], dict) and _skip(text, end) == len(text):
        name, value = lists[0]
        what += f", in which {name[:40]!r} is a list of {len(value)}"
        hint += f"; if those are the rows, write that list alone: [{{…}}, …]{'' if kind == '.json' else ' as .json'}"
    raise RiyazError(what, f"{path}:{first}", f"write {hint}")


def _array_rows(path: Path, text: str, bounds: Bounds) -> Iterator[tuple[int, dict[str, object]]]:
    """Rows of one JSON array, each with the line it starts on."""
    window, problems = _Window(text, bounds.row), Problems(path)
    at = counted = _skip(text, 0)
    line, mark = 1 + text.count("\n", 0, at), "["
    while text[at : at + 1] == mark:
        at = _skip(text, at + 1)
        line, counted = line + text.count("\n", counted, at), at
        if mark == "[" and text[at : at + 1] == "]":
            break
        try:
            row, end = window.decode(at)
        except (ValueError, RecursionError) as error:
            if window.cut:
                bounds.check(line, WINDOW, "shorten it, or close what is open in it", least=True)
            bad = window.start + error.pos if isinstance(error, json.JSONDecodeError) else at
            column = bad - text.rfind("\n", 0, bad)
            detail = str(error).partition(": line")[0]
            what = f"not JSON ({detail}, column {column})"
            hint = "correct it, or write one object per line as .jsonl"
            raise RiyazError(what, f"{path}:{line + text.count(chr(10), at, bad)}", hint) from None
        bounds.add(line, end - at)
        if isinstance(row, dict):
            yield line, row
        else:
            problems.add(line, f"{json_kind(row)}, not a JSON object")
        at, mark = _skip(text, end), ","
    line += text.count("\n", counted, at)
    if text[at : at + 1] != "]":
        what = "the array does not end" if at >= len(text) else f"{text[at]!r} where a comma or ] is expected"
        raise RiyazError(what, f"{path}:{line}", "the file is cut short or damaged")
    if _skip(text, at + 1) < len(text):
        raise RiyazError("text follows the array", f"{path}:{line}", "a .json file holds one array")
    problems.check("write an array of objects")
    if counted == at and mark == "[":
        raise RiyazError("the array is empty", str(path), "write one object per example")


class _Window:
    """Decodes the values of a long JSON text, each within WINDOW characters, so that none costs more than that."""

    def __init__(self, text: str, longest: int | None) -> None:
        self.text, self.longest = text, longest or len(text)
        self.start, self.part = 0, text[: WINDOW + self.longest]
        self.cut = False  # whether the last value went beyond what it may have

    def decode(self, at: int) -> tuple[object, int]:
        """The value that begins at a position, and where it ends. Raises ValueError or RecursionError."""
        if at + self.longest >= self.start + len(self.part) < len(self.text):
            self.start, self.part = at, self.text[at : at + WINDOW + self.longest]
        try:
            value, end = json.JSONDecoder().raw_decode(self.part, at - self.start)
        except json.JSONDecodeError as error:
            whole = self.start + len(self.part) >= len(self.text)
            self.cut = not whole and (error.msg.startswith("Unterminated") or error.pos > len(self.part) - 10)
            raise
        return value, self.start + end


def _skip(text: str, at: int) -> int:
    """The position of the next character that is not white space."""
    match = WHITE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def csv_rows(
    path: Path, text: Iterable[str], delimiter: str, bounds: Bounds, numbered: bool = False
) -> Iterator[tuple[int, dict[str, object]]]:  # fmt: skip
    """Rows of the lines of a CSV or TSV file; the first names the columns. Raises RiyazError."""
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_LIMIT))
    problems, start, header, rows, size = Problems(path), 1, None, 0, 0

    def lines() -> Iterator[str]:
        nonlocal size
        for line in text:
            size += len(line)
            bounds.check(start, size, UNQUOTED if size > len(line) else SHORTEN, least=True)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            line, start = start, reader.line_num + 1
            length, size = size, 0
            if not fields:
                continue
            bounds.add(line, length)
            if header is None:
                header = _header(path, line, ["number", *fields[1:]] if numbered and not fields[0].strip() else fields)
                continue
            rows += 1
            if len(fields) != len(header):
                problems.add(line, f"{len(fields)} fields where the header has {len(header)}")
            else:
                yield line, dict(zip(header, fields))
    except csv.Error as error:
        hint = 'write a " inside a quoted field as ""'
        raise RiyazError(f"not a table ({error})", f"{path}:{start}", hint) from None
    problems.check("quote fields that contain the separator or a line break")
    if not rows:
        raise RiyazError("the file has a header and no rows", str(path), "write one example per line")


def separator(text: str, kind: str) -> str:
    """The separator of a TSV file, a tab, or of a CSV file: a semicolon, which spreadsheets write in many locales, if
    the header has one and no comma, or if it has neither and only the commas would divide rows of one column."""
    if kind == ".tsv":
        return "\t"
    first = text.split("\n", 1)[0]
    if "," in first or ";" in first:
        return "," if "," in first else ";"
    return ";" if not _one_column(text, ",") and _one_column(text, ";") else ","


def _one_column(text: str, delimiter: str) -> bool:
    lines = takewhile(lambda line: len(line) <= ROW, io.StringIO(text, newline=""))  # a longer one is refused later
    try:
        return all(len(fields) < 2 for fields in csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return False


def _header(path: Path, line: int, fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    if "" in names or len(set(names)) < len(names):
        what = "a column has no name" if "" in names else "two columns have the same name"
        hint = "the first line must name each column once, such as text,label"
        raise RiyazError(what, f"{path}:{line}", hint)
    return names


def json_kind(value: object) -> str:
    """The JSON name of a value's type with its article, such as "an object"."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
