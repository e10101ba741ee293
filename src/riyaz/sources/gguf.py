"""A bounds-checked reader of GGUF, the single-file model format of llama.cpp.

Every length is compared with the remaining bytes before anything is read or allocated; sums are Python integers, so
they cannot overflow. A damaged or truncated file raises a one-line RiyazError naming file and field. Format: the GGUF
specification in ggml's docs, versions 2 and 3, little-endian. Test oracle: the `gguf` package.
"""

import math
import mmap
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.errors import RiyazError, shown
from riyaz.sources.gguf_blocks import FORKS_TYPES, LAYOUTS, OTHER_TYPES, TYPES, dequantise
from riyaz.sources.tensor_files import TensorInfo, map_file

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_PAIRS = 10_000
MAX_TENSORS = 50_000
MAX_KEY = 65_535  # bytes, the specification's limit
MAX_NAME = 256
MAX_STRING = 16 * 2**20
MAX_HEADER = 64 * 2**20  # bytes before the weights; 20 MB in the largest real files
MAX_ARRAY = 2**22  # elements; the largest vocabularies have 2**18
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 65_536
STRING, ARRAY, BOOL = 8, 9, 7
LENGTH = 8  # bytes of the length before a string
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

READ_AGAIN = "the file is damaged; download it again"


@dataclass(frozen=True)
class GGUFFile:
    """An open GGUF file: metadata and tensor directory; values are read on demand."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]
    data: mmap.mmap | bytes = field(repr=False)

    def array(self, name: str) -> np.ndarray:
        """The tensor's values in its shape: float32 (quantised types dequantised), float16, or BF16 bits as uint16."""
        info = self.tensors[name]
        return dequantise(info.dtype, self.blocks(name)).reshape(info.shape)

    def blocks(self, name: str) -> np.ndarray:
        """The tensor's blocks (N,), in the layout of its type."""
        info = self.tensors[name]
        layout = LAYOUTS[info.dtype]
        return np.frombuffer(self.data, layout, info.nbytes // layout.itemsize, info.offset)


class Strings:
    """An array of strings in the metadata, such as a vocabulary, decoded when it is asked for: as Python strings those
    of a small model take ten times the bytes that they have in the file. The first begins at byte `begin`, each other
    one LENGTH bytes behind the end of the one before."""

    def __init__(
        self, data: mmap.mmap | bytes, begin: int, ends: Sequence[int], fail: Callable[[], RiyazError]
    ) -> None:
        self._data, self._begin, self._ends, self._fail = data, begin, ends, fail

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (list, Strings)) and self.tolist() == list(other)

    def tolist(self) -> list[str]:
        """All strings. Raises RiyazError if one is not UTF-8."""
        try:
            begins = (self._begin, *(end + LENGTH for end in self._ends))
            return [self._data[begin:end].decode() for begin, end in zip(begins, self._ends)]
        except UnicodeDecodeError as error:
            raise self._fail() from error


def read(path: Path) -> GGUFFile:
    """Reads and checks the file's metadata and tensor directory. Raises RiyazError for any inconsistency."""
    path = Path(path)
    return parse(path, map_file(path))


def parse(path: Path, data: mmap.mmap | bytes) -> GGUFFile:
    """As `read`, for bytes already in memory; `path` is used in messages only."""
    cursor = _Cursor(path, data)
    n_tensors, n_pairs = _preamble(cursor)
    metadata = _metadata(cursor, n_pairs)
    tensors = _tensors(cursor, n_tensors, _alignment(cursor, metadata))
    return GGUFFile(path, metadata, tensors, data)


class _Cursor:
    """A read position in the mapped file; every read is checked against the file's end."""

    def __init__(self, path: Path, data: mmap.mmap | bytes) -> None:
        self.path, self.data, self.size, self.at = path, data, len(data), 0

    def fail(self, what: str, hint: str = READ_AGAIN) -> RiyazError:
        return RiyazError(what, str(self.path), hint)

    def skip(self, count: int, what: str) -> int:
        """Advances by `count` bytes and returns the offset at which they begin. Raises RiyazError past a limit."""
        begin = self.at
        if count > self.size - begin:
            raise self.fail(f"{what} needs {count} bytes at byte {begin}, the file has {self.size}")
        if begin + count > MAX_HEADER:
            raise self.fail(f"{what} ends at byte {begin + count}, the header must end by byte {MAX_HEADER}")
        self.at = begin + count
        return begin

    def number(self, code: str, what: str) -> Any:
        layout = struct.Struct("<" + code)
        return layout.unpack_from(self.data, self.skip(layout.size, what))[0]

    def text(self, limit: int, what: str) -> str:
        length = self.number("Q", f"the length of {what}")
        if length > limit:
            raise self.fail(f"{what} is declared {length} bytes long, the limit is {limit}")
        begin = self.skip(length, what)
        try:
            return self.data[begin : self.at].decode()
        except UnicodeDecodeError as error:
            raise self.fail(f"{what} is not UTF-8") from error

    def strings(self, count: int, what: str) -> Strings:
        """The places of so many strings; they are a hundred thousand, so the loop is a plain one."""
        ends, unpack, at = array("I"), struct.Struct("<Q").unpack_from, self.at
        stop, first = min(self.size, MAX_HEADER), at + LENGTH
        for _ in range(count):
            begin = at + LENGTH
            length = unpack(self.data, at)[0] if begin <= stop else MAX_STRING + 1
            if length > MAX_STRING or begin + length > stop:
                self.at = at
                self.text(MAX_STRING, what)  # raises, and says what is wrong
            at = begin + length
            ends.append(at)
        self.at = at
        return Strings(self.data, first, ends, lambda: self.fail(f"{what} is not UTF-8"))


def _preamble(cursor: _Cursor) -> tuple[int, int]:
    """Checks magic and version; returns (number of tensors, number of metadata pairs)."""
    if cursor.data[:4] != MAGIC:
        raise cursor.fail(f"not a GGUF file: it begins with {bytes(cursor.data[:4])!r}")
    cursor.at = 4
    version = cursor.number("I", "the version")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        kind = "big-endian GGUF" if swapped in (1, *VERSIONS) else f"GGUF version {version}"
        raise cursor.fail(f"{kind} is not supported", "riyaz reads little-endian GGUF, versions 2 and 3")
    n_tensors = cursor.number("Q", "the number of tensors")
    n_pairs = cursor.number("Q", "the number of metadata pairs")
    for count, limit, what in ((n_tensors, MAX_TENSORS, "tensors"), (n_pairs, MAX_PAIRS, "metadata pairs")):
        if count > limit:
            raise cursor.fail(f"the file declares {count} {what}, the limit is {limit}")
    return n_tensors, n_pairs


def _metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = cursor.text(MAX_KEY, f"metadata key {index}")
        if key in metadata:
            raise cursor.fail(f"metadata key {shown(key)} appears twice")
        what = f"metadata {shown(key)}"
        kind = cursor.number("I", f"the type of {what}")
        if kind == ARRAY:
            metadata[key] = _array(cursor, what)
        elif kind == STRING:
            metadata[key] = cursor.text(MAX_STRING, what)
        elif kind in SCALARS:
            metadata[key] = cursor.number(SCALARS[kind], what)
        else:
            raise cursor.fail(f"{what} has the unknown type {kind}")
    return metadata


def _array(cursor: _Cursor, what: str) -> list[Any] | Strings:
    """A flat array of numbers, booleans or strings. Raises RiyazError for nested arrays, as llama.cpp refuses them."""
    kind = cursor.number("I", f"the element type of {what}")
    count = cursor.number("Q", f"the length of {what}")
    if kind == ARRAY:
        raise cursor.fail(f"{what} is an array of arrays, which is not supported")
    if kind != STRING and kind not in SCALARS:
        raise cursor.fail(f"{what} has the unknown element type {kind}")
    if count > MAX_ARRAY:
        raise cursor.fail(f"{what} declares {count} elements, the limit is {MAX_ARRAY}")
    if kind == STRING:
        return cursor.strings(count, what)
    layout = np.dtype("<" + ("B" if kind == BOOL else SCALARS[kind]))
    begin = cursor.skip(count * layout.itemsize, what)
    values = np.frombuffer(cursor.data, layout, count, begin)
    return (values != 0).tolist() if kind == BOOL else values.tolist()


def _alignment(cursor: _Cursor, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    whole = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        what = f"general.alignment is {alignment!r:.60}, not a power of two up to {MAX_ALIGNMENT}"
        raise cursor.fail(what)
    return alignment


def _tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    """The tensor directory. Raises RiyazError when a tensor's bytes pass the end of the file or two overlap."""
    relative: dict[str, TensorInfo] = {}
    for index in range(count):
        info = _tensor(cursor, index, alignment)
        if info.name in relative:
            raise cursor.fail(f"tensor {shown(info.name)} appears twice")
        relative[info.name] = info
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: replace(info, offset=start + info.offset) for name, info in relative.items()}
    for info in tensors.values():
        if info.offset + info.nbytes > cursor.size:
            needs = f"tensor {shown(info.name)} needs {info.nbytes} bytes at byte {info.offset}"
            raise cursor.fail(f"{needs}, the file has {cursor.size}")
    for left, right in pairwise(sorted(tensors.values(), key=lambda info: info.offset)):
        if left.offset + left.nbytes > right.offset:
            raise cursor.fail(f"tensors {shown(left.name)} and {shown(right.name)} overlap")
    return tensors


def _tensor(cursor: _Cursor, index: int, alignment: int) -> TensorInfo:
    """One directory entry; its offset is relative to the start of the tensor data."""
    name = cursor.text(MAX_NAME, f"the name of tensor {index}")
    what = f"tensor {shown(name)}"
    n_dimensions = cursor.number("I", f"the dimensions of {what}")
    if not 1 <= n_dimensions <= MAX_DIMENSIONS:
        raise cursor.fail(f"{what} has {n_dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")
    sizes = [cursor.number("Q", f"the shape of {what}") for _ in range(n_dimensions)]  # innermost first
    if not all(0 < size < 2**31 for size in sizes):
        raise cursor.fail(f"{what} has the shape {sizes}, each size must be 1 to 2^31 - 1")
    kind = cursor.number("I", f"the type of {what}")
    if kind not in TYPES:
        supported, known = ", ".join(sorted(LAYOUTS)), OTHER_TYPES | FORKS_TYPES
        raise cursor.fail(f"{what} has the type {known.get(kind, kind)}", f"riyaz reads {supported}")
    dtype, block, layout = TYPES[kind]
    if sizes[0] % block:
        raise cursor.fail(f"{what} has rows of {sizes[0]} weights, {dtype} needs a multiple of {block}")
    offset = cursor.number("Q", f"the offset of {what}")
    if offset % alignment:
        raise cursor.fail(f"{what} has the offset {offset}, not a multiple of the alignment {alignment}")
    blocks = math.prod(sizes) // block + (dtype == "I2_S")  # one more holds the scale
    nbytes = blocks * layout.itemsize
    return TensorInfo(name, dtype, tuple(reversed(sizes)), offset, nbytes)
