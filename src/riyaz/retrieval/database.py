"""The SQLite file under a collection: opened and closed, its errors in our words, another file put in its place."""

import glob
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from riyaz.errors import RiyazError

APPLICATION = int.from_bytes(b"Riyz")  # in the file's header, so that a foreign database is known at once
MAGIC = b"SQLite format 3\0"
BESIDE = ("-journal", "-wal", "-shm")  # what SQLite keeps beside a file
BROKEN = (sqlite3.Error, UnicodeDecodeError)  # an error of SQLite may quote what is no text
BUSY_SECONDS = 5.0
REBUILD = "make it again: riyaz rag add … --rebuild"


def head(path: Path) -> bytes:
    """The first bytes of a file, none where there is no file."""
    try:
        with open(path, "rb") as file:
            return file.read(100)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror}", str(path), "check the path") from error


@contextmanager
def opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection that is rolled back and closed in the end; SQLite's errors as ours."""
    if path.is_dir():
        raise RiyazError("is a folder", str(path), "name a file")
    found, started = head(path), _beside(path, "-journal").exists()  # a first `add` that was killed
    if found and not found.startswith(MAGIC) and not started:  # SQLite would overwrite a file of a few bytes
        raise RiyazError("is not a Riyaz collection", str(path), "name a file that riyaz rag add has written")
    if mode == "rw" and not path.exists():
        raise RiyazError("no such file", str(path), "make it with riyaz rag add")
    database = None
    try:
        database = _connection(path, mode)
        yield database
    except BROKEN as error:
        raise _explained(error, path) from error
    finally:
        if database is not None:
            database.close()


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction that alone may write the database, made if it is not there; committed when the block ends."""
    before = _inode(path)
    with opened(path, "rwc") as database:
        before = before or _inode(path)
        database.execute("BEGIN IMMEDIATE")
        if _inode(path) != before:  # what is open is the old file, which nobody will read again
            raise RiyazError("another process has just replaced it", str(path), "run the same command again")
        yield database
        database.execute("COMMIT")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name for a new database, which takes the place of the one at `path` when the block ends, whole or not at
    all. What is there must be a collection, whole or broken, that nobody writes; nobody can until it is replaced."""
    if path.is_dir():
        raise RiyazError("is a folder", str(path), "name a file")
    if not _beside(path, "-journal").exists():  # with one the first bytes may be those of an unfinished write
        _check_ours(head(path), path)
    old = _locked(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Not by reading the file once more: to close it would give up the locks of this process
        _check_ours(_application(old, path) if old else head(path), path)
        _remove(temporary)
        if old:  # so nobody else is at this, and what lies there was left by one who was killed
            for rest in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                _remove(rest)
        yield temporary
        # Those of a broken file, for SQLite has put in order and removed what it could: fatal to the new one
        for ending in BESIDE:
            _beside(path, ending).unlink(missing_ok=True)
        os.replace(temporary, path)
    finally:
        if old:
            old.close()
        _remove(temporary)


def _connection(path: Path, mode: str) -> sqlite3.Connection:
    # No statement of ours begins a transaction by itself: isolation_level None
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = FULL", "journal_mode = DELETE"):
            database.execute(f"PRAGMA {pragma}")
    except BROKEN:
        database.close()
        raise
    return database


def _locked(path: Path) -> sqlite3.Connection | None:
    """The database with what a killed writer left undone, locked against writers; None where there is none that
    SQLite can open. RiyazError when another process writes it."""
    if not path.exists():
        return None
    database = None
    try:
        database = _connection(path, "rw")
        database.execute("BEGIN IMMEDIATE")
        return database
    except BROKEN as error:
        if database is not None:
            database.close()
        if _code(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, 0):
            raise _explained(error, path) from error
        return None


def _application(database: sqlite3.Connection, path: Path) -> bytes:
    """As many of the first bytes as say whose the database is; none when it is empty."""
    if path.stat().st_size == 0:
        return b""
    return bytes(68) + database.execute("PRAGMA application_id").fetchone()[0].to_bytes(4, signed=True)


def _check_ours(first: bytes, path: Path) -> None:
    if first and first[68:72] != APPLICATION.to_bytes(4):
        raise RiyazError("is not a Riyaz collection, so it is not replaced", str(path), "remove it yourself")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _remove(path: Path) -> None:
    """Remove a database of ours with the files that SQLite keeps beside it."""
    for ending in ("", *BESIDE):
        with suppress(FileNotFoundError, NotADirectoryError):
            _beside(path, ending).unlink()


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _explained(error: Exception, path: Path) -> RiyazError:
    """What an error of SQLite means to the person in front of it."""
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RiyazError("another process is writing it", str(path), "wait until that is done")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        what = "the disk is full" if code == sqlite3.SQLITE_FULL else "the disk is full or does not work"
        return RiyazError(what, str(path), "nothing was changed; free some space and run the same command again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return RiyazError("cannot be opened or written here", str(path), "check the path and its permissions")
    if code == sqlite3.SQLITE_NOTADB:
        return RiyazError("is not a Riyaz collection", str(path), "name a file that riyaz rag add has written")
    what = "a text in it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
    return RiyazError(f"broken: {what}", str(path), REBUILD)
