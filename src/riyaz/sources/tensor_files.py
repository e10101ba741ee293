"""Shared by the GGUF and safetensors readers: memory-mapping a file, and a tensor's position in it."""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from riyaz.errors import RiyazError


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
