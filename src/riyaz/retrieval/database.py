"""The SQLite file of a collection: open it, write in transactions, replace it, and explain SQLite's errors."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riyaz import folders
from riyaz.errors import RiyazError
from riyaz.files import chunks, disk_error

APPLICATION = int.from_bytes(b"Riyz")  # in the file's header, which tells a collection from other databases
MAGIC = b"SQLite format 3\0"
SIDE_FILES = ("-journal", "-wal", "-shm")  # endings of the files that SQLite keeps beside a database
BROKEN = (sqlite3.Error, UnicodeDecodeError)  # the latter for an SQLite message that is not UTF-8
BUSY_SECONDS = 5.0
REBUILD = "rebuild it: riyaz rag add … --rebuild"


def first_bytes(path: Path) -> bytes:
    """The first 100 bytes of a file; none if it does not exist. Raises RiyazError, also for a device or a pipe."""
    if path.exists() and not path.is_file():
        raise RiyazError("is not a file that can hold a collection", str(path), "name a file")
    try:
        with open(path, "rb") as file:
            return file.read(100)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RiyazError(f"cannot be read: {error.strerror}", str(path), "check the path") from error


def is_collection(file: Path) -> bool:
    """Whether a file is a collection by its first bytes; False for one that cannot be read."""
    try:
        begins = first_bytes(file) if file.is_file() else b""
    except RiyazError:
        return False
    return begins.startswith(MAGIC) and begins[68:72] == APPLICATION.to_bytes(4)


@contextmanager
def opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection, rolled back and closed when the block ends; SQLite's errors become RiyazError."""
    if path.is_dir():
        raise RiyazError("is a folder", str(path), "name a file")
    begins, unfinished = first_bytes(path), _beside(path, "-journal").exists()  # after a first `add` was killed
    if begins and not begins.startswith(MAGIC) and not unfinished:  # SQLite would overwrite a file of a few bytes
        raise RiyazError("is not a Riyaz collection", str(path), "name a file that riyaz rag add has written")
    if mode == "rw" and not path.exists():
        raise RiyazError("no such file", str(path), "create it with riyaz rag add")
    database = None
    try:
        database = _connection(path, mode)
        yield database
    except BROKEN as error:
        if database is not None:
            database.close()  # before the file is opened again, which would release its locks
        raise _explained(error, path) from error
    finally:
        if database is not None:
            database.close()


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction with exclusive write access to the database (created if missing), committed when the block ends."""
    before = _inode(path)
    with opened(path, "rwc") as database:
        before = before or _inode(path)
        database.execute("BEGIN IMMEDIATE")
        if _inode(path) != before:  # the open file has been replaced, so the write would be lost
            raise RiyazError("another process has replaced it meanwhile", str(path), "run the same command again")
        yield database
        database.execute("COMMIT")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path for a new database, which atomically replaces the one at `path` when the block ends. The old one must be
    a collection, intact or broken, that no process writes; it stays locked until then. Raises RiyazError otherwise."""
    if path.is_dir():
        raise RiyazError("is a folder", str(path), "name a file")
    if not _beside(path, "-journal").exists():  # else the first bytes may come from an unfinished write
        _check_ours(first_bytes(path), path)
    old = _locked(path)
    try:
        # Read through SQLite: to close a second handle of the file would release this process's locks
        _check_ours(_application(old, path) if old else first_bytes(path), path)
        with folders.temporary(path.parent, folders.beside(path)) as work:
            yield work / path.name
            # Side files that SQLite could not use up belong to a broken old file and would damage the new one
            for ending in SIDE_FILES:
                _beside(path, ending).unlink(missing_ok=True)
            os.replace(work / path.name, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        if old:
            old.close()


def _connection(path: Path, mode: str) -> sqlite3.Connection:
    # isolation_level None: only an explicit BEGIN starts a transaction
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
    """The database at `path`, rolled back after a killed writer and locked against others; None if there is none that
    SQLite can open. Raises RiyazError if another process writes it."""
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
    """The first 72 bytes with the database's application id, as `_check_ours` reads them; none if it is empty."""
    if path.stat().st_size == 0:
        return b""
    return bytes(68) + database.execute("PRAGMA application_id").fetchone()[0].to_bytes(4, signed=True)


def _check_ours(begins: bytes, path: Path) -> None:
    if begins and begins[68:72] != APPLICATION.to_bytes(4):
        raise RiyazError("is not a Riyaz collection, so it is not replaced", str(path), "remove it yourself")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _explained(error: Exception, path: Path) -> RiyazError:
    """An error of SQLite as a RiyazError that says what to do."""
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RiyazError("another process is writing it", str(path), "wait until it is done")
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        what = "the disk is full" if code == sqlite3.SQLITE_FULL else "the disk is full or failing"
        return RiyazError(what, str(path), "nothing was changed; free some space and run the same command again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return RiyazError("cannot be opened or written here", str(path), "check the path and its permissions")
    if code == sqlite3.SQLITE_NOTADB:
        return RiyazError("is not a Riyaz collection", str(path), "name a file that riyaz rag add has written")
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CORRUPT and (failure := _unread(path)):
        return failure
    what = "a text in it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
    return RiyazError(f"broken: {what}", str(path), REBUILD)


def _unread(path: Path) -> RiyazError | None:
    """The error of a file that cannot be read, or could not and is whole: SQLite calls that malformed too."""
    try:
        for _ in chunks(path):
            pass
        with contextlib.closing(_connection(path, "rw")) as database:
            if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return None
    except OSError as error:
        return RiyazError(f"cannot be read: {error.strerror}", str(path), "nothing was changed; check the disk")
    except BROKEN:
        return None
    return RiyazError("a disk I/O error, and now it is whole", str(path), "run the same command again; check the disk")
