"""A collection from a stranger: whatever stands in its columns, it is used as text or ends in one line."""

import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_embedder import BagEmbedder

from riyaz.errors import RiyazError
from riyaz.retrieval import collection as collections
from riyaz.retrieval import database
from riyaz.retrieval.collection import Collection, add, verify
from riyaz.retrieval.documents import Document
from riyaz.retrieval.search import Retriever

DOCUMENTS = [Document("a", "T", "The cat sat.", "a.txt", (0, 4)), Document("b", "U", "The dog barks.", "b.txt")]
NEW = [Document("c", "", "New.", "c.txt")]
COLUMNS = {
    "documents": ("doc_id", "title", "text", "source", "pages", "sha256"),
    "chunks": ("id", "doc_id", "heading", "start", "stop", "sha256"),
    "vectors": ("chunk", "vector", "sha256"),
}
KEYS = ("format", "version", "dim", "embedder", "embedder_sha256", "documents")
NO_TEXT = ["x'6d'", "x'ff00'", "7", "2.5", "9e999", "9223372036854775807", "NULL"]
VALUES = [*NO_TEXT, "-1", "''", "CAST(x'ff1b5d' AS TEXT)", "'x' || char(0) || 'y'", "char(27) || '[2J'"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection that is never changed."""
    path = tmp_path_factory.mktemp("sound") / "kept"
    add(path, DOCUMENTS, BagEmbedder())
    return path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "kept"))


def change(path: Path, table: str, statement: str) -> bool:
    """Change a table as if it had neither types nor NOT NULL; False for what SQLite itself refuses."""
    loose = collections.TABLES[table].replace("INTEGER NOT", "NOT")
    for word in (" TEXT", " BLOB", " NOT NULL"):
        loose = loose.replace(word, "")
    _schema(path, table, loose)
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(statement)
        database.commit()
    except sqlite3.Error:
        return False
    finally:
        database.close()
    _schema(path, table, collections.TABLES[table])
    return True


def _schema(path: Path, table: str, sql: str) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql, table))
    database.commit()
    database.close()


def search(path: Path) -> None:
    """What `riyaz rag ask` does, with an embedder that says what the collection says."""
    found = Collection.open(path)
    embedder = BagEmbedder(found.embedder[0]) if found.embedder else None
    if embedder and found.embedder:
        embedder.sha256 = found.embedder[1]
    for hit in Retriever(found, embedder).search(["the cat"], 3)[0]:
        assert isinstance(hit.text, str) and isinstance(hit.title, str) and isinstance(hit.heading, str)


USES: list[Callable[[Path], object]] = [
    search, verify, lambda path: add(path, NEW, BagEmbedder()),
    lambda path: add(path, NEW, BagEmbedder(), rebuild=True),
]  # fmt: skip


def said(use: Callable[[Path], object], path: Path) -> str:
    try:
        return " | ".join(found) if isinstance(found := use(path), list) else ""
    except RiyazError as error:
        return str(error)


@pytest.mark.parametrize("value", NO_TEXT)
@pytest.mark.parametrize("key", KEYS)
def test_what_a_collection_says_of_itself_is_text_or_it_is_broken(path: Path, key: str, value: str) -> None:
    assert change(path, "meta", f"UPDATE meta SET value = {value} WHERE key = '{key}'")
    for use in USES[:3]:
        line = said(use, path)
        assert f"'{key}' in its table meta is not text" in line and "--rebuild" in line, line
        assert use is verify or line.startswith(f"{path}: ")
    assert said(USES[3], path) == "" == said(search, path), "and a rebuild mends it"


@pytest.mark.parametrize("value", VALUES)
def test_any_value_in_any_column_is_one_line_or_harmless(sound: Path, tmp_path: Path, value: str) -> None:
    changed = 0
    for table, names in (COLUMNS | {"meta": ("key", "value")}).items():
        for statement in (f"UPDATE {table} SET {name} = {value}" for name in names):
            path = Path(shutil.copy(sound, tmp_path / "kept"))
            if not change(path, table, f"{statement} WHERE rowid = 1"):
                continue
            changed += 1
            lines = [said(use, path) for use in USES[:2]]
            assert not any("\n" in line for line in lines)
            if lines[0]:
                assert "--rebuild" in lines[0] or "name a file that riyaz rag add has written" in lines[0], lines
                assert lines[1], f"verify finds it too: {statement}"
    assert changed > 10


def test_a_schema_that_is_no_text_is_one_line_and_is_replaced(path: Path) -> None:
    whole = path.read_bytes()
    for name in (b"doc_id TEXT PRIMARY", b"vector BLOB", b"heading"):
        path.write_bytes(whole.replace(name, b"\xbe" + name[1:], 1))
        for use in USES[:3]:
            assert "--rebuild" in said(use, path) or "its tables differ" in said(use, path)
        assert said(USES[3], path) == "" == said(search, path)


@pytest.mark.parametrize("vector", [np.ones(32), np.full(64, np.nan), np.full(65, 0.1), np.zeros(0)])
def test_vectors_of_another_length_are_one_line(path: Path, vector: np.ndarray) -> None:
    blob = vector.astype("<f4").tobytes()
    database = sqlite3.connect(path)
    database.execute("UPDATE vectors SET vector = ?, sha256 = ?", (blob, hashlib.sha256(blob).hexdigest()))
    database.execute("UPDATE meta SET value = ? WHERE key = 'dim'", (str(max(1, len(vector))),))
    database.commit()
    database.close()
    line = said(search, path)
    assert line.startswith(f"{path}: broken: ") and "vector" in line and "--rebuild" in line


def test_a_collection_whose_disk_fails_is_not_called_malformed(path: Path, tmp_path: Path) -> None:
    """SQLite says so of a read that fails, and to rebuild what is whole."""

    def fails(place: Path) -> str:
        with pytest.raises(RiyazError) as refused, database.opened(place, "rw"):
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return str(refused.value)

    assert fails(path) == f"{path}: a disk I/O error, and now it is whole; run the same command again; check the disk"
    content = path.read_bytes()
    path.write_bytes(content[:-4096])
    assert fails(path) == f"{path}: broken: database disk image is malformed; rebuild it: riyaz rag add … --rebuild"
    path.write_bytes(content)
    unreadable = tmp_path / "unreadable"
    unreadable.symlink_to("/proc/self/mem")  # opens, and its first byte cannot be read
    failure = database._unread(unreadable)
    assert failure and str(failure).endswith("cannot be read: Input/output error; nothing was changed; check the disk")
