"""Shared by the GGUF and safetensors readers: memory-mapping a file, and a tensor's position in it."""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from riyaz.errors import RiyazError, shown


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's entry in its file: type name, shape (outermost dimension first), byte offset in the file, bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes, mapped read-only. Raises RiyazError when it is missing, empty or unreadable."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise RiyazError("the file is empty", str(path), "download or write it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror or error}", str(path)) from error


def is_finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite; uint16 values are the bits of BF16. Quick: one or two passes, no copies."""
    if values.dtype == np.uint16:  # those with all bits of the exponent are the largest of each sign
        return not values.size or bool(values.view(np.int16).max() < 0x7F80 and values.max() < 0xFF80)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum(dtype=np.float32)):
            return True
    return bool(np.isfinite(values).all())  # the sum itself may overflow


def float32(dtype: str, array: np.ndarray) -> np.ndarray:
    """The values of a tensor of a float type as float32, not copied if they are; a BF16 array holds bits as uint16."""
    if dtype == "BF16":
        bits = array.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return array.astype(np.float32, copy=False)


def not_finite(name: str, dtype: str, array: np.ndarray) -> str:
    """What is wrong with a tensor that holds NaN or infinities, with the first one; "" if all its numbers are finite. A
    BF16 array holds bits as uint16."""
    values = float32(dtype, array) if dtype == "BF16" else array
    bad = ~np.isfinite(values)
    if not bad.any():
        return ""
    index = tuple(map(int, np.unravel_index(int(np.argmax(bad)), bad.shape)))
    return f"tensor {shown(name)} holds {float(values[index])} at {list(index)}, the first of its numbers that is none"
