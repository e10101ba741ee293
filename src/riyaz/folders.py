"""Folders that a command works in: locked, without links that lead elsewhere, and temporary ones.

A lock ends with its process, however it ends. A temporary folder is therefore swept by the next command that makes one
of the same name, unless the process that made it lives.
"""

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from riyaz.errors import RiyazError, shown
from riyaz.files import remove
from riyaz.system import OPENS_FOLDERS, PLAIN_FILE, open_folder, try_lock

MADE = "[a-z0-9_]{8}"  # how tempfile.mkdtemp ends a name
BESIDE = re.compile(rf"\..+\.riyaz-{MADE}")  # of `temporary` with `beside`


def refuse_links(folder: Path) -> None:
    """Raises RiyazError, naming it, for a link or a device below the folder: to write through it would change files
    elsewhere, and the folder may have come with a stranger's repository."""
    for path, folders, names in os.walk(folder):
        for name in (*folders, *names):
            entry = Path(path, name)
            with contextlib.suppress(FileNotFoundError):  # a temporary file of a process that is ending
                mode = entry.lstat().st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                    kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                    raise _link(folder, str(entry.relative_to(folder)), kind)


def _link(folder: Path, name: str, kind: str) -> RiyazError:
    what = f"{shown(name)} in it is {kind}, and riyaz writes only inside the folder"
    return RiyazError(what, str(folder), "remove it, or choose another --out")


@contextmanager
def locked(folder: Path, ours: Callable[[set[str]], bool], begun: Callable[[], bool]) -> Iterator[set[str]]:
    """Lock a folder, which is created if missing; yields the names of the files that were in it.

    Raises RiyazError when another process works in the folder, or when `ours(names)` is False for its files. After an
    error before `begun()` is True the folder is left as it was, so that the corrected command can use it.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = {path.name for path in folder.iterdir()}
        if not ours(before - {".lock"}):
            raise RiyazError("this folder holds something else", str(folder), "choose another --out")
        if (folder / ".lock").is_symlink():
            raise _link(folder, ".lock", "a link")
        handle = os.fdopen(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | PLAIN_FILE, 0o666))
    except OSError as error:
        raise RiyazError(f"cannot write here ({error.strerror})", str(folder), "choose another --out") from error
    with handle:
        if not try_lock(handle):
            raise RiyazError("another riyaz is working in this folder", str(folder), "wait for it")
        refuse_links(folder)
        try:
            yield before
        except Exception:
            if not begun():
                for path in folder.iterdir():
                    if path.name not in before:
                        remove(path)
                with contextlib.suppress(OSError):
                    for path in new:  # deepest first
                        path.rmdir()
            raise


def expect_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Raises RiyazError for a file that is a link out of the model's folder: its content would be read, and copied by
    `pull` and `export`. The hub's cache keeps a model's files in "blobs", two folders above it."""
    root = folder.resolve()
    roots = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]
    for path in paths:
        if not any(path.resolve().is_relative_to(place) for place in roots):
            what = f"{shown(str(path.relative_to(folder)))} is a link out of the model's folder"
            raise RiyazError(what, str(folder), "put the file itself there")


@contextmanager
def temporary(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent` whose name is the prefix and eight more characters, removed when the block ends. Those
    that killed processes left there are removed first. Raises OSError."""
    sweep(parent, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        held = _taken(folder)
        if held is not None or not OPENS_FOLDERS:  # else another process took it for one that is left
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def sweep(parent: Path, prefix: str) -> None:
    """Remove the folders that killed processes left of `temporary` with this parent and prefix. Raises OSError."""
    for left in _leftovers(parent, prefix):
        _remove_unheld(left)


def remove_left(folder: Path) -> None:
    """Remove the temporary folders that killed processes left below a folder beside some file: the command may have no
    need to make one of the same name again. What a living process holds stays."""
    for path, names, _ in os.walk(folder):
        for name in [name for name in names if BESIDE.fullmatch(name)]:
            names.remove(name)
            _remove_unheld(Path(path, name))


def _remove_unheld(left: Path) -> None:
    held = _taken(left)
    if held is not None:
        shutil.rmtree(left, ignore_errors=True)
        os.close(held)


def beside(path: Path) -> str:
    """The prefix of temporary folders beside a file or folder, which no user would choose."""
    return f".{path.name}.riyaz-"


def _leftovers(parent: Path, prefix: str) -> list[Path]:
    """The folders in `parent` that `temporary` made with this prefix."""
    made = re.compile(re.escape(prefix) + MADE)
    with os.scandir(parent) as entries:
        return [Path(entry) for entry in entries if made.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]


def _taken(folder: Path) -> int | None:
    """An open file that holds the folder's lock; None if a living process has it, or the folder is gone."""
    try:
        descriptor = open_folder(folder)
    except OSError:
        return None
    if descriptor is None:
        return None
    with contextlib.suppress(OSError):
        if try_lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return descriptor
    os.close(descriptor)
    return None
