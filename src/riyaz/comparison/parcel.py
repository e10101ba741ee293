"""Files as bytes: what an arm needs on a machine that does not see the comparison's folder, and what it has made there.

A parcel is a line of JSON with the files' names and sizes, then their contents one after the other. It comes in chunks,
so that no model has to fit the memory twice. Names are plain: nothing can be written outside the folder.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from riyaz.errors import RiyazError, shown
from riyaz.files import atomic_file, encoded, is_bare, refuse_device
from riyaz.json_files import parse_json, to_json
from riyaz.sources.source import MAX_JSON

CHUNK = 16 * 2**20  # bytes, at most
WHERE = "the parcel"
ENDS_EARLY = "ends before its last file"


def files_below(folder: Path, name: str = "") -> dict[str, Path]:
    """The files in a folder, by their names in a parcel, which begin with `name`; without temporary ones."""
    if not folder.is_dir():
        return {}
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        inside = f"{name}/{path.name}" if name else path.name
        if path.name.startswith(".") or path.is_symlink():
            continue
        files |= files_below(path, inside) if path.is_dir() else {inside: path}
    return files


def packed(files: Mapping[str, Path | bytes]) -> Iterator[bytes]:
    """The chunks of a parcel with these files, by their names. Raises RiyazError for one that cannot be read."""
    sizes = [(name, len(file) if isinstance(file, bytes) else file.stat().st_size) for name, file in files.items()]
    yield encoded(to_json({"files": sizes}, ascii=True) + "\n")
    for (name, size), file in zip(sizes, files.values(), strict=True):
        left = size
        for chunk in [file] if isinstance(file, bytes) else _chunks(file, size):
            left -= len(chunk)
            yield chunk
        if left:
            raise RiyazError("changed while it was read", name)


def unpack(chunks: Iterable[bytes], folder: Path) -> list[str]:
    """Write the files of a parcel into a folder, in its order; returns their names. Raises RiyazError for a parcel that
    ends early, and for a name that is no plain path."""
    reader = _Reader(chunks)
    sizes = _sizes(parse_json(reader.line(), WHERE))
    for name, size in sizes:
        path, left = folder / name, size
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            while left:
                chunk = reader.take(left)
                left -= len(chunk)
                file.write(chunk)
    return [name for name, _ in sizes]


def _sizes(head: Any) -> list[tuple[str, int]]:
    """(name, bytes) of the files that a parcel's first line lists."""
    listed = head.get("files") if isinstance(head, dict) else None
    if not isinstance(listed, list):
        raise RiyazError("lists no files", WHERE)
    sizes = []
    for entry in listed:
        name, size = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if not isinstance(name, str) or type(size) is not int or size < 0:
            raise RiyazError("lists what is no file", WHERE)
        if not all(is_bare(part) for part in name.split("/")):
            raise RiyazError(f"{shown(name)} is not the name of a file below a folder", WHERE)
        sizes.append((name, size))
    return sizes


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file."""
    refuse_device(path)
    with open(path, "rb") as file:
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            size -= len(chunk)
            yield chunk


class _Reader:
    """Takes bytes out of chunks, wherever these end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._left = iter(chunks), memoryview(b"")

    def line(self) -> bytes:
        """The first line."""
        line = b""
        while b"\n" not in line:
            if len(line) > MAX_JSON:
                raise RiyazError(f"its first line is longer than {MAX_JSON} bytes", WHERE)
            line += self.take(CHUNK)
        line, rest = line.split(b"\n", 1)
        self._left = memoryview(rest + bytes(self._left))
        return line

    def take(self, most: int) -> memoryview | bytes:
        """At least one byte, and at most so many. Raises RiyazError where there are none."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise RiyazError(ENDS_EARLY, WHERE)
            self._left = memoryview(chunk)
        taken, self._left = self._left[:most], self._left[most:]
        return taken
