"""An atomic writer of GGUF version 3; `gguf_quantise` makes the blocks of quantised types.

Only one tensor, or one piece of it, is in memory at a time. Test oracle: the `gguf` package reads the files.
"""

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from riyaz.files import atomic_file
from riyaz.sources.gguf import Strings
from riyaz.sources.gguf_blocks import LAYOUTS, dequantise
from riyaz.sources.gguf_blocks import TYPES as BLOCK_TYPES
from riyaz.sources.gguf_quantise import QUANTISE, quantise

ALIGNMENT = 32
CHUNK = 2**22  # weights that are quantised at once
# name -> (type number in the file, bytes per block, weights per block)
TYPES = {
    name: (number, layout.itemsize, weights)
    for number, (name, weights, layout) in BLOCK_TYPES.items()
    if name in ("F32", "F16", "BF16", "TQ1_0", "TQ2_0", *QUANTISE)
}
# the type of a matrix whose rows are no whole number of blocks, as llama.cpp chooses it; without one F16
NARROW = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64 = 4, 5, 6, 7, 8, 9, 10, 11


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to write: shape (outermost dimension first), type in the file, and a function that loads the values.

    `values()` returns float32 of that shape, or pieces of it: some rows after others. If the tensor is `encoded`, it
    returns what `encode` made of the whole.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: Callable[[], np.ndarray | Iterable[np.ndarray]]
    encoded: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the values in the file, without padding."""
        _, size, weights = TYPES[self.dtype]
        return math.prod(self.shape) // weights * size


def write(path: Path, metadata: Mapping[str, Any], tensors: Sequence[PlannedTensor]) -> None:
    """Writes the file atomically. Integers become uint32 (int32 in lists), floats float32. Raises RiyazError."""
    with atomic_file(Path(path)) as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_text(key) + _value(value))
        offset = 0
        for tensor in tensors:
            file.write(_text(tensor.name) + struct.pack("<I", len(tensor.shape)))
            file.write(struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape)))
            file.write(struct.pack("<IQ", TYPES[tensor.dtype][0], offset))
            offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        _pad(file)
        for tensor in tensors:
            _write_values(file, tensor)
            _pad(file)


def dtype_for(dtype: str, shape: Sequence[int]) -> str:
    """`dtype`, or F32 for vectors and a type of smaller blocks for rows whose length is not a multiple of the block
    size: NARROW's, else F16."""
    if len(shape) < 2:
        return "F32"
    for kind in (dtype, NARROW.get(dtype, "F16")):
        if shape[-1] % TYPES[kind][2] == 0:
            return kind
    return "F16"


def encode(dtype: str, values: np.ndarray) -> np.ndarray:
    """The file's bytes for float32 values: (…, n), n a multiple of the block size -> uint8 (…, bytes of n weights)."""
    flat = np.ascontiguousarray(values, np.float32)
    if dtype in QUANTISE:
        return quantise(dtype, flat)
    return {"F32": flat, "F16": flat.astype("<f2"), "BF16": bfloat16(flat)}[dtype].view(np.uint8)


def decode(dtype: str, data: np.ndarray) -> np.ndarray:
    """The float32 values that a reader gets: uint8 (…, bytes of n weights) of `encode` -> (…, n)."""
    if dtype == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    values = dequantise(dtype, np.ascontiguousarray(data).reshape(-1).view(LAYOUTS[dtype]))
    return values.astype(np.float32).reshape(*data.shape[:-1], -1)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16 (ties to even, NaN stays NaN), as uint16 bits; same shape."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    upper = bits >> 16
    nearest = (bits + (0x7FFF + (upper & 1))) >> 16  # only NaN overflows
    return np.where(np.isnan(values), upper | 64, nearest).astype("<u2")


def _write_values(file: IO[bytes], tensor: PlannedTensor) -> None:
    values = tensor.values()
    begin = file.tell()
    if tensor.encoded:
        assert isinstance(values, np.ndarray), tensor.name
        file.write(np.ascontiguousarray(values).data)
    else:
        for piece in [values] if isinstance(values, np.ndarray) else values:
            assert piece.shape[-1] == tensor.shape[-1], (tensor.name, piece.shape, tensor.shape)
            rows = piece.reshape(-1, piece.shape[-1])
            step = max(1, CHUNK // rows.shape[1])
            for row in range(0, len(rows), step):
                file.write(np.ascontiguousarray(encode(tensor.dtype, rows[row : row + step])).data)
    written = file.tell() - begin
    assert written == tensor.nbytes, (tensor.name, written, tensor.nbytes)


def _pad(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """A metadata value, preceded by its type number."""
    value = value.tolist() if isinstance(value, Strings) else value
    if isinstance(value, list):
        kind = _value_type(value[0]) if value else INT32
        kind = INT32 if kind == UINT32 else kind  # llama.cpp's type for lists of ids and token types
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(_untyped(kind, item) for item in value)
    return struct.pack("<I", _value_type(value)) + _untyped(_value_type(value), value)


def _value_type(value: Any) -> int:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return (UINT32 if value < 2**32 else UINT64) if value >= 0 else (INT32 if value >= -(2**31) else INT64)
    return STRING if isinstance(value, str) else FLOAT32


def _untyped(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _text(value)
    codes = {BOOL: "?", UINT32: "I", INT32: "i", UINT64: "Q", INT64: "q", FLOAT32: "f"}
    return struct.pack(f"<{codes[kind]}", value)
