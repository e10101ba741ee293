"""A file that one process appends to while a run goes on, and that the same command reads again after a stop."""

import os
from pathlib import Path
from typing import Self

from riyaz.errors import RiyazError
from riyaz.files import disk_error
from riyaz.system import PLAIN_FILE, try_lock


class LockedFile:
    """The file at `path`, which holds `count` answers. As a context manager it is made if it is missing, locked and
    read, and removed if it holds none at the end."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0

    def __enter__(self) -> Self:
        """Raises RiyazError where the file cannot be written, also for a link, and where it cannot be continued."""
        try:
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | PLAIN_FILE, 0o666)
        except OSError as error:
            raise RiyazError(f"cannot be written ({error.strerror})", str(self.path), "choose another --out") from error
        try:
            if not try_lock(self.file):
                raise RiyazError("another riyaz is writing these answers", str(self.path), "wait for it")
            self._read()
        except BaseException:
            os.close(self.file)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.count:
            self.remove()
        os.close(self.file)

    def remove(self) -> None:
        """Remove the file, after its answers are written elsewhere."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        """Read what an earlier run has left."""
        raise NotImplementedError

    def _append(self, content: bytes) -> None:
        """Write at the end. Raises RiyazError when the disk is full."""
        try:
            while content:
                content = content[os.write(self.file, content) :]
        except OSError as error:
            raise self._failure(error) from error

    def _cut(self, size: int) -> None:
        """Leave the first bytes only, and write behind them from now on. Raises RiyazError where that fails."""
        try:
            os.ftruncate(self.file, size)
            os.lseek(self.file, 0, os.SEEK_END)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> RiyazError:
        """A failed write as an error that says what is kept."""
        failure = disk_error(error, self.path)
        hint = f"{self.count:,} answers are kept; free some space and run the same command again"
        return RiyazError(failure.what, failure.where, hint)
