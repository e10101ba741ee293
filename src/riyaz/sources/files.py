"""What both weight formats share: a mapped file and the place of a tensor."""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from riyaz.errors import RiyazError


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in its file: type name, shape with rows first, absolute byte offset and length."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes, mapped read-only; RiyazError when it is absent, empty or unreadable."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise RiyazError("the file is empty", str(path), "download or write it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror or error}", str(path)) from error
