"""Rows in memory as a table: a list of dictionaries or a DataFrame, read like the rows of a file."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from riyaz.data.bounds import Bounds
from riyaz.data.tables import Table, json_kind
from riyaz.errors import RiyazError

MARK = " row "  # between the name of the rows and a row's number, which counts from 1


class Frame(Protocol):
    """The part of a pandas DataFrame that is used here."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""

    @property
    def to_dict(self) -> Any:
        """The method that returns the rows."""


Rows = Iterable[Mapping[str, Any]] | Frame
RowSource = str | PathLike[str] | Rows


def path_or_table(data: RowSource, name: str) -> Path | Table:
    """A path as a Path, or rows in memory as a table called `name`, such as "test". Raises RiyazError."""
    return Path(data) if isinstance(data, (str, PathLike)) else table_of(data, name)


def table_of(rows: Rows, name: str) -> Table:
    """Rows in memory as a table; missing values become null, and equal rows have equal hashes. Raises RiyazError."""
    numbered: list[tuple[int, dict[str, object]]] = []
    digest, bounds = hashlib.sha256(), Bounds(Path(name), MARK)
    for number, row in enumerate(_listed(rows, name), start=1):
        fields, line = _row(row, name, number)
        bounds.add(number, len(line))
        numbered.append((number, fields))
        digest.update(line)
    if not numbered:
        raise RiyazError("there are no rows", name, "give one dictionary for each example")
    columns = tuple(dict.fromkeys(column for _, fields in numbered for column in fields))
    return Table(Path(name), numbered, columns, digest.hexdigest(), MARK)


def _listed(rows: Any, name: str) -> Iterable[Any]:
    """An iterable of the rows of a pandas or polars DataFrame, or of any iterable. Raises RiyazError."""
    hint = "give a path, a DataFrame or a list of dictionaries"
    if isinstance(rows, (Mapping, bytes)):
        raise RiyazError(f"{type(rows).__name__} is not a list of rows", name, hint)
    if hasattr(rows, "columns") and hasattr(rows, "to_dict"):
        names = [str(column) for column in rows.columns]
        if len(set(names)) < len(names):
            raise RiyazError("two columns have the same name", name, "name each column once")
        records: Iterable[Any] = rows.to_dict("records")
        return records
    if hasattr(rows, "to_dicts"):
        return rows.to_dicts()  # type: ignore[no-any-return]
    try:
        return iter(rows)
    except TypeError:
        raise RiyazError(f"{type(rows).__name__} is not a list of rows", name, hint) from None


def _row(row: object, name: str, number: int) -> tuple[dict[str, object], bytes]:
    """The fields of a row, and its non-null fields as one line of JSON, for the hash. Raises RiyazError."""
    if not isinstance(row, Mapping):
        kind = json_kind(row) if isinstance(row, (str, list, bool, int, float, type(None))) else type(row).__name__
        raise RiyazError(
            f"is {kind}, not a dictionary", f"{name}{MARK}{number}", "give one dictionary for each example"
        )
    try:
        fields = {str(column): _plain(value) for column, value in row.items()}
        present = {column: value for column, value in fields.items() if value is not None}
        return fields, json.dumps(present, sort_keys=True).encode() + b"\n"
    except RecursionError:
        raise RiyazError("is nested too deeply", f"{name}{MARK}{number}", "give text, numbers and lists") from None
    except ValueError as error:  # an integer of thousands of digits
        raise RiyazError(
            f"cannot be written ({error})", f"{name}{MARK}{number}", "give text, numbers and lists"
        ) from None


def _plain(value: Any) -> object:
    """A value in JSON's types: NaN, NaT and bytes as null, NumPy values as Python's, other types as text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, bytes) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # NumPy; its dates become dates of Python
        plain = value.tolist()
        return _plain(plain) if type(plain) is not type(value) else str(value)
    return str(value)
