"""A bounds-checked reader and an atomic writer of safetensors.

Layout: 8 bytes of header length, a JSON header (name -> dtype, shape, data_offsets), the data without gaps. The
tensors' byte ranges must cover the data exactly: no gap and no overlap. Test oracle: the `safetensors` package.
"""

import json
import math
import mmap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.errors import RiyazError, shown
from riyaz.files import atomic_file
from riyaz.sources.tensor_files import TensorInfo, map_file

MAX_HEADER = 16 * 2**20
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
METADATA = "__metadata__"
READ_AGAIN = "the file is damaged; download or write it again"
# numpy has no bfloat16 and no 8-bit floats: their bits are read as unsigned integers
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
    "F8_E4M3": "|u1",
    "F8_E5M2": "|u1",
}
NAMES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8"}
NAMES |= {"u8": "U64", "u4": "U32", "u2": "U16", "u1": "U8", "b1": "BOOL"}


@dataclass(frozen=True)
class SafetensorsFile:
    """An open safetensors file: metadata and tensor directory; values are read on demand."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]
    data: mmap.mmap | bytes = field(repr=False)

    def array(self, name: str) -> np.ndarray:
        """The tensor's values in its shape, a read-only view of the file; BF16 bits as uint16."""
        info = self.tensors[name]
        values = np.frombuffer(self.data, DTYPES[info.dtype], math.prod(info.shape), info.offset)
        return values.reshape(info.shape)

    def forget(self) -> None:
        """Free the memory of what was read so far; reading it again takes it from the file."""
        if isinstance(self.data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self.data.madvise(mmap.MADV_DONTNEED)


def read(path: Path) -> SafetensorsFile:
    """Reads and checks the file's tensor directory. Raises RiyazError for any inconsistency."""
    path = Path(path)
    return parse(path, map_file(path))


def parse(path: Path, data: mmap.mmap | bytes) -> SafetensorsFile:
    """As `read`, for bytes already in memory; `path` is used in messages only."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise _fail(path, f"the header is declared {length} bytes long, the file has {len(data)}")
    if length > MAX_HEADER:
        raise _fail(path, f"the header is declared {length} bytes long, the limit is {MAX_HEADER}")
    header = _header(path, data[8 : 8 + length])
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _fail(path, f"{METADATA} is not an object of strings")
    if len(header) > MAX_TENSORS:
        raise _fail(path, f"the header names {len(header)} tensors, the limit is {MAX_TENSORS}")
    tensors = {name: _tensor(path, name, entry, 8 + length) for name, entry in header.items()}
    _check_cover(path, tensors, 8 + length, len(data))
    return SafetensorsFile(path, metadata, tensors, data)


def write(
    path: Path,
    tensors: dict[str, np.ndarray | tuple[str, np.ndarray]],
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes the file atomically; BF16 tensors are given as ("BF16", uint16 bits). Raises RiyazError."""
    arrays: dict[str, tuple[str, np.ndarray]] = {}
    for name, value in tensors.items():
        dtype, array = value if isinstance(value, tuple) else (NAMES[value.dtype.str[1:]], value)
        arrays[name] = (dtype, np.asarray(array, DTYPES[dtype], order="C"))
    # wide types first, as the safetensors package does, so that each offset is a multiple of the item size
    arrays = dict(sorted(arrays.items(), key=lambda item: (-item[1][1].itemsize, item[0])))
    header: dict[str, Any] = {METADATA: metadata} if metadata else {}
    end = 0
    for name, (dtype, array) in arrays.items():
        offsets = [end, end + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(Path(path)) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in arrays.values():
            file.write(array.reshape(-1).view(np.uint8).data)


def _fail(path: Path, what: str) -> RiyazError:
    return RiyazError(what, str(path), READ_AGAIN)


def _header(path: Path, text: bytes) -> dict[str, Any]:
    """The JSON header. Raises RiyazError for a key that appears twice at any depth."""

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise _fail(path, f"{shown(twice)} appears twice in the header")
        return entries

    try:
        header = json.loads(text, object_pairs_hook=table)
    except (ValueError, RecursionError) as error:
        raise _fail(path, "the header is not JSON; is this a safetensors file?") from error
    if not isinstance(header, dict):
        raise _fail(path, "the header is not a JSON object")
    return header


def _tensor(path: Path, name: str, entry: Any, start: int) -> TensorInfo:
    """One header entry. Raises RiyazError unless its byte range has the length that shape and type require."""
    what = f"tensor {shown(name)}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _fail(path, f"{what} must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _fail(path, f"{what} has the unknown type {shown(str(dtype))}")
    # a size of 0 counts as 1 in the product, which bounds empty shapes such as [0, 2^40] too
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS or math.prod(max(size, 1) for size in shape) > 2**48:
        raise _fail(path, f"{what} has the shape {shown(str(shape))}")
    if not _sizes(offsets) or len(offsets) != 2:
        raise _fail(path, f"{what} has the data_offsets {shown(str(offsets))}")
    begin, end = offsets
    nbytes = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if end - begin != nbytes:
        raise _fail(path, f"{what} needs {nbytes} bytes, its data_offsets span {end - begin}")
    return TensorInfo(name, dtype, tuple(shape), start + begin, nbytes)


def _sizes(value: Any) -> bool:
    """Whether the value is a list of integers from 0 to 2^64 - 1 (booleans do not count)."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**64 for item in value)


def _check_cover(path: Path, tensors: dict[str, TensorInfo], start: int, size: int) -> None:
    """Raises RiyazError unless the tensors fill the bytes from the header to the file's end without gap or overlap."""
    at = start
    for info in sorted(tensors.values(), key=lambda info: (info.offset, info.nbytes)):
        if info.offset != at:
            kind = "overlaps the one before it" if info.offset < at else "leaves a gap before it"
            raise _fail(path, f"tensor {shown(info.name)} {kind} (byte {info.offset}, expected {at})")
        at += info.nbytes
        if at > size:
            raise _fail(path, f"tensor {shown(info.name)} ends at byte {at}, the file has {size}")
    if at < size:
        raise _fail(path, f"the tensors end at byte {at}, the file has {size}")
