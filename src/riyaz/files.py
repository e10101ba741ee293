"""Files that appear whole or not at all: written under a temporary name beside the file, synced and renamed.

Links, devices and named pipes are neither followed nor replaced. A file that cannot be written or read raises a
RiyazError that names it.
"""

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from riyaz.errors import RiyazError, shown
from riyaz.system import lives, open_folder, try_lock, user

if TYPE_CHECKING:
    import hashlib

TEMPORARY = re.compile(r"\..+\.riyaz-([1-9]\d*)\.tmp")  # of `atomic_file`: .NAME.riyaz-PROCESS.tmp
DISK_FULL = "the disk is full"


def disk_error(error: OSError, path: Path) -> RiyazError:
    """A failed write as a RiyazError that names the reason and the file."""
    if _is_full(error):
        return RiyazError(DISK_FULL, str(path), "nothing was kept; free some space or choose another place")
    return RiyazError(
        f"cannot be written: {error.strerror or error}", str(path), "nothing was kept; choose another place"
    )


def reason(error: OSError) -> str:
    """Which file failed and why, in one line."""
    return f"{error.filename or 'a file'}: {DISK_FULL if _is_full(error) else error.strerror or error}"


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_stream(path: Path) -> bool:
    """Whether a path is written as a stream: a device, a named pipe, or an open file such as /dev/stdout."""
    if re.match(r"/dev/(std(out|err)$|fd/)|/proc/(self|\d+)/fd/", str(path)):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def check_plain(path: Path) -> None:
    """Raises RiyazError where a link, a device, a named pipe or a socket stands: a file renamed to it would replace it,
    and what is written to it would go elsewhere."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if stat.S_ISLNK(mode):
        what = f"is a link to {shown(os.readlink(path))[1:-1]}, which is neither followed nor replaced"
        raise RiyazError(what, str(path), "name the file itself, or remove the link")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise RiyazError(f"is {kind}, not a file", str(path), "choose another place")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears at `path` whole or not at all: temporary name, sync, rename. Raises RiyazError, also for
    a link or a device at `path`."""
    check_plain(path)
    temporary = path.with_name(f".{path.name}.riyaz-{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        sweep(path.parent)
        with open(temporary, "xb") as file:
            with contextlib.suppress(ImportError, OSError):  # no locks on Windows and some network drives
                try_lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files of `atomic_file` that this user's killed processes left in a folder: those whose
    process does not live and that no process holds, in another container or on another machine."""
    mine = user()
    if mine is None:  # on Windows, where no process can be asked whether it lives
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            made = TEMPORARY.fullmatch(entry.name)
            if made and entry.is_file(follow_symlinks=False) and not lives(int(made[1])):
                with contextlib.suppress(OSError), open(entry, "rb") as file:
                    if os.fstat(file.fileno()).st_uid == mine and try_lock(file):
                        os.unlink(entry)


def is_bare(name: str) -> bool:
    """Whether a name from a file is one file's or folder's name without a path, of at most 255 letters: no file system
    has a longer one, and Path.is_file() and others raise OSError for it."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{,254}", name) is not None


def refuse_device(path: Path) -> None:
    """Raises RiyazError for a device to read from: one such as /dev/zero has no end."""
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise RiyazError("is a device, not a file", str(path), "give a file")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_bytes(path, encoded(text))


def new_sha256(data: bytes = b"") -> "hashlib._Hash":
    """A SHA-256 that began with `data`. hashlib loads OpenSSL, 4 MB that opening a model and generating do not need."""
    import hashlib

    return hashlib.sha256(data)


def write_synced(path: Path, chunks: Iterable[bytes]) -> str:
    """Write and sync a file, without a temporary name: for a folder that is renamed when complete. Returns the SHA-256
    of its bytes."""
    digest = new_sha256()
    check_plain(path)
    with open(path, "wb") as out:
        for chunk in chunks:
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file in pieces of 1 MiB. Raises an OSError that names it: a failed read alone names no file."""
    with open(path, "rb") as source:
        while chunk := _read(source, path):
            yield chunk


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file. Raises an OSError that names it."""
    digest = new_sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _read(source: IO[bytes], path: Path) -> bytes:
    try:
        return source.read(2**20)
    except OSError as error:
        error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Sync a folder's directory entries, so that renames in it survive a power cut."""
    descriptor = open_folder(folder, follow=True)
    if descriptor is None:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises RiyazError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error


def encoded(text: str) -> bytes:
    """The text in UTF-8; a lone surrogate, which UTF-8 cannot encode, becomes its JSON escape."""
    return text.encode("utf-8", "backslashreplace")


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
