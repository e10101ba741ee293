"""What both weight formats share: a mapped file, the place of a tensor, writing whole or not at all."""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from riyaz.errors import RiyazError


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in its file: type name, shape with rows first, absolute byte offset and length."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def shown(text: str) -> str:
    """Text from a file, safe and short enough for an error message: ASCII, quoted, at most 80 characters."""
    quoted = ascii(text[:81])
    return quoted if len(quoted) <= 82 else quoted[:78] + "...'"


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes, mapped read-only; RiyazError when it is absent, empty or unreadable."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise RiyazError("the file is empty", str(path), "download or write it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror or error}", str(path)) from error


def disk_error(error: OSError, path: Path) -> RiyazError:
    """The user's version of a failed write: what happened, where, and that nothing was left behind."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full" if full else f"cannot be written: {error.strerror or error}"
    return RiyazError(what, str(path), "nothing was kept; free some space or choose another place")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path` whole or not at all: temporary name, sync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
