"""An atomic writer of GGUF version 3, and the quantisers Q8_0 and Q4_0.

Only one tensor is in memory at a time. Each block format has one function from float32 rows to blocks. Test oracle: the
`gguf` package reads the files, and its quantisers give the same bytes.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from riyaz.files import atomic_file

ALIGNMENT = 32
BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0
CHUNK = 2**22  # weights that are quantised at once
# name -> (type number in the file, bytes per block, weights per block)
TYPES = {"F32": (0, 4, 1), "F16": (1, 2, 1), "BF16": (30, 2, 1), "Q8_0": (8, 34, BLOCK), "Q4_0": (2, 18, BLOCK)}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64 = 4, 5, 6, 7, 8, 9, 10, 11


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to write: shape (outermost dimension first), type in the file, and a function that loads the values.

    `values()` returns float32 of that shape.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: Callable[[], np.ndarray]

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
    """`dtype`, or F32 for vectors and F16 for rows whose length is not a multiple of the block size."""
    if len(shape) < 2:
        return "F32"
    return dtype if shape[-1] % TYPES[dtype][2] == 0 else "F16"


def encode(dtype: str, values: np.ndarray) -> np.ndarray:
    """The file's bytes for float32 values: (…, n), n a multiple of the block size -> uint8 (…, bytes of n weights)."""
    flat = np.ascontiguousarray(values, np.float32)
    if dtype in ("Q8_0", "Q4_0"):
        blocks = (_q8_0 if dtype == "Q8_0" else _q4_0)(flat.reshape(-1, BLOCK))
        return blocks.reshape(*flat.shape[:-1], -1)
    return {"F32": flat, "F16": flat.astype("<f2"), "BF16": bfloat16(flat)}[dtype].view(np.uint8)


def round_trip(dtype: str, values: np.ndarray) -> np.ndarray:
    """The float32 values that a reader gets back after `encode`; same shape."""
    data = encode(dtype, values)
    if dtype == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in ("F32", "F16"):
        return data.view({"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32)
    blocks = data.reshape(-1, TYPES[dtype][1])
    scale, body = blocks[:, :2].copy().view("<f2").astype(np.float32), blocks[:, 2:]
    levels = body.view(np.int8) if dtype == "Q8_0" else np.concatenate([body & 15, body >> 4], 1).astype(np.int8) - 8
    return (levels * scale).reshape(values.shape)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to bfloat16 (ties to even, NaN stays NaN), as uint16 bits; same shape."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 64, nearest).astype("<u2")


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    """Scale = |largest| / 127; weights as signed bytes, halves away from 0; (N, 32) float32 -> (N, 34) bytes."""
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    scaled = blocks * _inverse(scale)
    size = np.abs(scaled)
    whole = np.floor(size)
    whole += np.floor(2 * (size - whole))
    signed = np.copysign(whole, scaled).astype(np.int8)
    return np.concatenate([scale.astype("<f2").view(np.uint8), signed.view(np.uint8)], axis=1)


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    """Scale = (value of largest magnitude) / -8; levels 0 to 15 around 8; (N, 32) float32 -> (N, 18) bytes."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    scale = largest / -8
    levels = np.trunc(blocks * _inverse(scale) + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    packed = levels[:, :16] | (levels[:, 16:] << np.uint8(4))
    return np.concatenate([scale.astype("<f2").view(np.uint8), packed], axis=1)


def _inverse(scale: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.where(scale == 0, np.float32(0), 1 / scale)


def _write_values(file: IO[bytes], tensor: PlannedTensor) -> None:
    values = tensor.values()
    assert values.shape == tensor.shape, (tensor.name, values.shape, tensor.shape)
    rows = values.reshape(-1, values.shape[-1])
    step = max(1, CHUNK // rows.shape[1])
    for begin in range(0, len(rows), step):
        file.write(np.ascontiguousarray(encode(tensor.dtype, rows[begin : begin + step])).data)


def _pad(file: IO[bytes]) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """A metadata value, preceded by its type number."""
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
