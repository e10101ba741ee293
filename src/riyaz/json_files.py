"""riyaz's own JSON: written from dataclasses, read with every type checked, and JSON Lines that grow.

JSON is strict: NaN and infinities become null. A file that cannot be read raises a RiyazError that names the file and
the line.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import math
import os
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from riyaz.errors import RiyazError, shown
from riyaz.files import atomic_file, disk_error, encoded, make_folder, refuse_device, write_bytes

OPTIONAL = {"optional": True}  # metadata of a dataclass field that `to_document` leaves out when it is None
DEEPEST = 40  # most levels of nesting in a field of type Any
NEWER = "a newer version of riyaz may know it"
T = TypeVar("T")


def write_json(path: Path, value: Any, *, indent: int | None = 2, ascii: bool = False, strict: bool = True) -> None:
    """Write one JSON document atomically; a missing folder is created. `ascii`, `strict`: as in `to_json`."""
    make_folder(path.parent)
    write_bytes(path, encoded(to_json(value, indent=indent, ascii=ascii, strict=strict) + "\n"))


def write_lines(path: Path, values: Iterable[Any], *, ascii: bool = False) -> None:
    """Write a JSON Lines file atomically; a missing folder is created."""
    make_folder(path.parent)
    with atomic_file(path) as file:
        file.writelines(json_line(value, ascii=ascii) for value in values)


def to_json(value: Any, *, indent: int | None = None, ascii: bool = False, strict: bool = True) -> str:
    """The value as JSON: paths as strings, sets and arrays as lists, NaN and infinities as null.

    With `strict` False they are written as NaN and Infinity, which only Python reads. `ascii` escapes other characters.
    """
    value = finite(to_document(value)) if strict else value
    return json.dumps(value, indent=indent, ensure_ascii=ascii, allow_nan=not strict, default=_plain)


def json_line(value: Any, *, ascii: bool = False) -> bytes:
    """The value as one line of JSON."""
    return encoded(to_json(value, ascii=ascii)) + b"\n"


def to_document(value: Any) -> Any:
    """A dataclass and everything in it as dictionaries and lists; the inverse of `from_json`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {entry: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        return {
            entry.name: to_document(item)
            for entry, item in named.items()
            if item is not None or entry.metadata != OPTIONAL
        }
    if isinstance(value, dict):
        return {key: to_document(item) for key, item in value.items()}
    return [to_document(item) for item in value] if isinstance(value, list | tuple) else value


def finite(value: Any) -> Any:
    """The value with None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy, without importing it
        return finite(value.tolist())
    if isinstance(value, set | frozenset):
        return finite(sorted(value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_json(path: Path, hint: str = "") -> Any:
    """The value in a JSON file. Raises RiyazError, with the line number where it is not JSON."""
    return parse_json(_read(path, hint), str(path), hint)


def read_lines(path: Path, hint: str = "") -> Iterator[tuple[str, Any]]:
    """(`path:line`, value) of every line of a JSON Lines file. Raises RiyazError naming the invalid line."""
    for number, line in enumerate(_read(path, hint).removesuffix(b"\n").split(b"\n") or (), 1):
        if line or number > 1:
            where = f"{path}:{number}"
            yield where, parse_json(line, where, hint, numbered=False)


def _read(path: Path, hint: str) -> bytes:
    refuse_device(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror or error})", str(path), hint) from error


def parse_json(content: bytes, where: str, hint: str = "", *, numbered: bool = True) -> Any:
    """The value of a JSON text. Raises RiyazError for invalid JSON, with the line number where `numbered`."""
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        what = "is damaged (not UTF-8)"
    except RecursionError:
        line, what = 0, "is damaged (nested too deep)"
    except ValueError as error:  # not JSON, or an integer of thousands of digits
        line = getattr(error, "lineno", 0)
        what = f"is damaged ({getattr(error, 'msg', error)})"
    raise RiyazError(what, f"{where}:{line}" if numbered and line else where, hint)


def refuse_newer(number: Any, newest: int, where: str) -> None:
    """Raises RiyazError where a format's number, absent (None) or a value of a file, is above the newest one that this
    riyaz reads."""
    if type(number) is int and number > newest:
        reads = f"1 to {newest}" if newest > 1 else "1"
        what = f"made by a newer riyaz (format {str(number)[:20]}, this one reads {reads})"
        raise RiyazError(what, where, "update riyaz")


def json_or(text: str, otherwise: Any = None) -> Any:
    """The value of a JSON text, `otherwise` for another text; NaN and infinities are no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return otherwise


def _refuse(constant: str) -> typing.NoReturn:
    raise ValueError(constant)


def from_json(cls: type[T], document: Any, where: str, hint: str = "", *, unknown: bool = False) -> T:
    """A dataclass from a JSON object; every value must have its field's type. `unknown`: ignore keys without a field.

    Raises RiyazError with the dotted path of the wrong value. NaN and infinities are read as null.
    """
    value: T = _Reader(where, hint, unknown).built(cls, document, "")
    return value


class Keys:
    """Required keys of a mapping and the types of their values; further keys are allowed."""

    def __init__(self, **types: Any) -> None:
        self.types = types


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads the values of one JSON document as typed fields."""

    where: str
    hint: str
    unknown: bool

    def built(self, cls: Any, document: Any, at: str) -> Any:
        if not isinstance(document, dict):
            raise RiyazError(f"{at.removesuffix('.') or 'the document'} is not an object", self.where, self.hint)
        fields, types_ = dataclasses.fields(cls), _types_of(cls)
        extra = set(document) - {entry.name for entry in fields}
        if extra and not self.unknown:
            raise RiyazError(f"unknown key {shown(at + min(extra))}", self.where, NEWER)
        values = {}
        for entry in fields:
            if entry.name in document:
                values[entry.name] = self.value(types_[entry.name], document[entry.name], at + entry.name)
            elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
                raise RiyazError(f"{at + entry.name} is missing", self.where, self.hint)
        try:
            return cls(**values)
        except RiyazError as error:  # from a class that checks its values
            raise RiyazError(f"{at}{error.where}: {error.what}", self.where, self.hint) from error

    def value(self, kind: Any, value: Any, at: str) -> Any:
        """`value` as `kind`: plain types, Literal, unions, lists, tuples, dicts and dataclasses of them.

        `Annotated[dict[...], Keys(ok=bool)]` is a mapping that must have the key "ok", with a bool.
        """
        origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
        if origin is typing.Annotated:
            needed, mapping = inner[1], self.value(inner[0], value, at)
            for name, wanted in needed.types.items():
                if name not in mapping:
                    raise RiyazError(f"{at}.{name} is missing", self.where, self.hint)
                self.value(wanted, mapping[name], f"{at}.{name}")
            return mapping
        if isinstance(value, float) and not math.isfinite(value):
            value = None  # Python reads NaN, which JSON has not and riyaz writes as null
        if origin in (typing.Union, types.UnionType):
            return self._one_of(inner, value, at)
        if origin is Any:
            if _deeper(value, DEEPEST):
                raise RiyazError(f"{at} is nested too deep", self.where, self.hint)
            return value
        if origin is typing.Literal:
            if any(type(value) is type(option) and value == option for option in inner):
                return value
        elif dataclasses.is_dataclass(origin):
            return self.built(origin, value, f"{at}.")
        elif isinstance(value, list) and origin is list:
            return [self.value(inner[0], item, f"{at}[{i}]") for i, item in enumerate(value)]
        elif isinstance(value, list) and origin is tuple:
            each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
            if len(each) == len(value):
                return tuple(self.value(k, item, f"{at}[{i}]") for i, (k, item) in enumerate(zip(each, value)))
        elif isinstance(value, dict) and origin is dict:
            return {key: self.value(inner[1], item, f"{at}.{key}") for key, item in value.items()}
        elif isinstance(origin, type) and _is(value, float if issubclass(origin, float) else origin):
            return value
        raise RiyazError(f"{shown(at)[1:-1]} is {shown(repr(value))}", self.where, self.hint)

    def _one_of(self, kinds: tuple[Any, ...], value: Any, at: str) -> Any:
        if value is None and type(None) in kinds:
            return None
        options = [kind for kind in kinds if kind is not type(None)]
        for kind in options[:-1]:
            with contextlib.suppress(RiyazError):
                return self.value(kind, value, at)
        return self.value(options[-1], value, at)


@functools.cache
def _types_of(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _is(value: Any, kind: type) -> bool:
    if type(value) is int and kind in (int, float):  # an integer is a valid float
        return abs(value) < 2**1000  # small enough for a float
    return type(value) is kind


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and dictionaries are nested deeper than `levels`."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper(item, levels - 1) for item in inside)


class Lines:
    """A growing JSON Lines file; every line has a "step" and the numbers in `needed`, and may have those in `optional`.

    The first line added replaces the lines that a killed run wrote from that step on, and an incomplete last line.
    """

    def __init__(self, path: Path, *needed: str, optional: tuple[str, ...] = (), hint: str = "") -> None:
        self.path, self.needed, self.optional, self.hint = path, needed, optional, hint
        self.handle: Any = None

    def entries(self) -> list[dict[str, Any]]:
        """The complete lines of the file. Raises RiyazError naming an invalid line."""
        if not self.path.exists():
            return []
        entries = []
        with self.path.open("rb") as lines:
            for place, line in enumerate(lines, 1):
                entry = self._entry(line)
                if entry is not None:
                    entries.append(entry)
                elif line.endswith(b"\n"):  # otherwise the last line, cut short by a kill
                    raise RiyazError("is damaged or of another version", f"{self.path}:{place}", self.hint)
        return entries

    def _entry(self, line: bytes) -> dict[str, Any] | None:
        with contextlib.suppress(RiyazError):
            entry = parse_json(line, str(self.path))
            if isinstance(entry, dict) and _is(entry.get("step"), int):
                numbers = [*self.needed, *(name for name in self.optional if entry.get(name) is not None)]
                whole = all(_is(entry.get(name), float) and math.isfinite(entry[name]) for name in numbers)
                return entry if whole else None
        return None

    def add(self, entry: dict[str, Any]) -> None:
        """Append one line, unbuffered. Raises RiyazError when the disk is full."""
        try:
            if self.handle is None:
                write_lines(self.path, [earlier for earlier in self.entries() if earlier["step"] < entry["step"]])
                self.handle = self.path.open("ab", buffering=0)
            line = json_line(entry)
            if self.handle.write(line) < len(line):  # written in part only: the next line would be appended to it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise disk_error(error, self.path) from error

    def close(self) -> None:
        """Close the file."""
        if self.handle is not None:
            self.handle.close()
