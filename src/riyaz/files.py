"""Atomic file writing, and reading of riyaz's own JSON.

A file appears whole or not at all: it is written under a temporary name beside it, synced and renamed. Links, devices
and named pipes are neither followed nor replaced. JSON is strict:
NaN and infinities become null. A file that cannot be written or read raises a RiyazError that names the file and, for
JSON, the line.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import math
import os
import re
import shutil
import stat
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from riyaz.errors import RiyazError, shown

if TYPE_CHECKING:
    import hashlib

TEMPORARY = re.compile(r"\..+\.riyaz-([1-9]\d*)\.tmp")  # of `atomic_file`: .NAME.riyaz-PROCESS.tmp
OPTIONAL = {"optional": True}  # metadata of a dataclass field that `to_document` leaves out when it is None
DEEPEST = 40  # most levels of nesting in a field of type Any
DISK_FULL = "the disk is full"
NEWER = "a newer version of riyaz may know it"
T = TypeVar("T")


def disk_error(error: OSError, path: Path) -> RiyazError:
    """A failed write as a RiyazError that names the reason and the file."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = DISK_FULL if full else f"cannot be written: {error.strerror or error}"
    return RiyazError(what, str(path), "nothing was kept; free some space or choose another place")


def is_stream(path: Path) -> bool:
    """Whether a path is written as a stream: a device, a named pipe, or an open file such as /dev/stdout."""
    if re.match(r"/dev/(std(out|err)$|fd/)|/proc/(self|\d+)/fd/", str(path)):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def check_plain(path: Path) -> None:
    """Raises RiyazError where a link, a device, a named pipe or a socket stands: a file renamed to it would replace it,
    and what is written to it would go elsewhere."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if stat.S_ISLNK(mode):
        what = f"is a link to {shown(os.readlink(path))[1:-1]}, which is neither followed nor replaced"
        raise RiyazError(what, str(path), "name the file itself, or remove the link")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise RiyazError(f"is {kind}, not a file", str(path), "choose another place")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears at `path` whole or not at all: temporary name, sync, rename. Raises RiyazError, also for
    a link or a device at `path`."""
    check_plain(path)
    temporary = path.with_name(f".{path.name}.riyaz-{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        sweep(path.parent)
        with open(temporary, "xb") as file:
            with contextlib.suppress(ImportError, OSError):  # no locks on Windows and some network drives
                try_lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files of `atomic_file` that this user's killed processes left in a folder: those whose
    process does not live and that no process holds, in another container or on another machine."""
    if not hasattr(os, "geteuid"):  # on Windows, where no process can be asked whether it lives
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            made = TEMPORARY.fullmatch(entry.name)
            if made and entry.is_file(follow_symlinks=False) and not _lives(int(made[1])):
                with contextlib.suppress(OSError), open(entry, "rb") as file:
                    if os.fstat(file.fileno()).st_uid == os.geteuid() and try_lock(file):
                        os.unlink(entry)


def _lives(process: int) -> bool:
    """Whether there is a process of this number, or may be."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        pass
    return True


def is_bare(name: str) -> bool:
    """Whether a name from a file is one file's or folder's name without a path."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) is not None


def refuse_device(path: Path) -> None:
    """Raises RiyazError for a device to read from: one such as /dev/zero has no end."""
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise RiyazError("is a device, not a file", str(path), "give a file")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_bytes(path, encoded(text))


def write_json(path: Path, value: Any, *, indent: int | None = 2, ascii: bool = False, strict: bool = True) -> None:
    """Write one JSON document atomically; a missing folder is created. `ascii`, `strict`: as in `to_json`."""
    _make(path.parent)
    write_bytes(path, encoded(to_json(value, indent=indent, ascii=ascii, strict=strict) + "\n"))


def write_lines(path: Path, values: Iterable[Any], *, ascii: bool = False) -> None:
    """Write a JSON Lines file atomically; a missing folder is created."""
    _make(path.parent)
    with atomic_file(path) as file:
        file.writelines(json_line(value, ascii=ascii) for value in values)


def new_sha256(data: bytes = b"") -> "hashlib._Hash":
    """A SHA-256 that began with `data`. hashlib loads OpenSSL, 4 MB that opening a model and generating do not need."""
    import hashlib

    return hashlib.sha256(data)


def write_synced(path: Path, chunks: Iterable[bytes]) -> str:
    """Write and sync a file, without a temporary name: for a folder that is renamed when complete. Returns the SHA-256
    of its bytes."""
    digest = new_sha256()
    check_plain(path)
    with open(path, "wb") as out:
        for chunk in chunks:
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file in pieces of 1 MiB."""
    with open(path, "rb") as source:
        while chunk := source.read(2**20):
            yield chunk


def sync_folder(folder: Path) -> None:
    """Sync a folder's directory entries, so that renames in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error


def encoded(text: str) -> bytes:
    """The text in UTF-8; a lone surrogate, which UTF-8 cannot encode, becomes its JSON escape."""
    return text.encode("utf-8", "backslashreplace")


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
            value = None  # written before NaN was null
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


def try_lock(handle: IO[Any] | int) -> bool:
    """Take the lock of an open file or folder; False when another process has it. The lock ends with the process."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
                write_lines(self.path, [kept for kept in self.entries() if kept["step"] < entry["step"]])
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
