"""Files of rows: JSONL, CSV and TSV read whole, each row with the line it starts on.

UTF-8 with or without a byte order mark, LF or CRLF. What is wrong is said with its lines, all at once.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from riyaz.errors import RiyazError

SUFFIXES = (".jsonl", ".csv", ".tsv")
LINES_NAMED = 5
FIELD_LIMIT = 16 * 2**20  # characters in one CSV field; the csv module's own limit is below long documents


@dataclass(frozen=True)
class Table:
    """The rows of one file: (line the row starts on, its fields)."""

    path: Path
    rows: list[tuple[int, dict[str, object]]]
    columns: tuple[str, ...]  # in order of first appearance
    sha256: str


@dataclass
class Problems:
    """Gathers what is wrong with single rows, so that one error names every line."""

    path: Path
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, what: str) -> None:
        """Note one row's problem."""
        self.found.append((line, what))

    def check(self, hint: str) -> None:
        """Raises RiyazError with the first problem and the other lines, when there is any."""
        if not self.found:
            return
        line, what = self.found[0]
        others = [str(other) for other, _ in self.found[1:]]
        if others:
            named = ", ".join(others[:LINES_NAMED]) + (", …" if len(others) > LINES_NAMED else "")
            what += f" (and {len(others)} more: line{'s' if len(others) > 1 else ''} {named})"
        raise RiyazError(what, f"{self.path}:{line}", hint)


def read_table(path: str | Path) -> Table:
    """Every row of a .jsonl, .csv or .tsv file. Raises RiyazError for what is not one."""
    path = Path(path)
    content = _read_bytes(path)
    text = decode(path, content)
    if not text.strip():
        raise RiyazError("the file is empty", str(path), "write one example per line")
    suffix = path.suffix.lower()
    rows = list(_json_rows(path, text) if suffix == ".jsonl" else _csv_rows(path, text, suffix))
    columns = tuple(dict.fromkeys(column for _, row in rows for column in row))
    return Table(path, rows, columns, hashlib.sha256(content).hexdigest())


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise RiyazError("is a folder", str(path), "name a file in it")
    if path.exists() and path.suffix.lower() not in SUFFIXES:
        what = f"{path.suffix or 'a file without suffix'} is not read"
        raise RiyazError(what, str(path), "save the rows as .jsonl, .csv or .tsv")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RiyazError("no such file", str(path), "check the path") from None
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "check the file") from None


def decode(path: Path, content: bytes) -> str:
    """UTF-8 as text, without a byte order mark. RiyazError names the line and the byte that is none."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02X} is not UTF-8"
        raise RiyazError(what, f"{path}:{line}", "save the file as UTF-8") from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Rows of JSON Lines; blank lines are passed over."""
    problems = Problems(path)
    # Not splitlines(): U+2028 and the like may stand unescaped inside a JSON string.
    for line, row_text in enumerate(text.split("\n"), start=1):
        if not row_text.strip():
            continue
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
    whole = text.lstrip()[0] == "["
    problems.check("write one JSON object per line" + (", not one array over all lines" if whole else ""))


def _csv_rows(path: Path, text: str, suffix: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Rows of a CSV or TSV file under the names in its first line."""
    text = text.replace("\r\n", "\n")
    first = text.split("\n", 1)[0]
    # Spreadsheets of many countries write ".csv" with semicolons.
    delimiter = "\t" if suffix == ".tsv" else ";" if ";" in first and "," not in first else ","
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_LIMIT))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    problems, start, header, rows = Problems(path), 1, None, 0
    try:
        for fields in reader:
            line, start = start, reader.line_num + 1
            if not fields:
                continue
            if header is None:
                header = _header(path, line, fields)
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


def _header(path: Path, line: int, fields: list[str]) -> list[str]:
    names = [name.strip() for name in fields]
    if "" in names or len(set(names)) < len(names):
        what = "a column has no name" if "" in names else "two columns have the same name"
        hint = "the first line must name each column once, such as text,label"
        raise RiyazError(what, f"{path}:{line}", hint)
    return names


def json_kind(value: object) -> str:
    """The JSON name of a value's type, with its article."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
