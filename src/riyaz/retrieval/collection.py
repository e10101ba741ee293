"""A collection: documents, their chunks and vectors in one SQLite file, which may be copied while no process writes it.

`add` is one transaction with a rollback journal: a process killed at any moment leaves the former contents. A file may
come from a stranger, so its schema must be exactly ours, and every value is checked before it is used.
"""

import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from riyaz.errors import RiyazError
from riyaz.files import disk_error
from riyaz.json_files import refuse_newer
from riyaz.retrieval.chunks import OVERLAP, SIZE, Chunk, chunk, passage, word_offsets
from riyaz.retrieval.database import APPLICATION, BROKEN, REBUILD, opened, replacing, writing
from riyaz.retrieval.documents import Document
from riyaz.retrieval.embedder import Embedder, Progress
from riyaz.retrieval.lexical import BM25, words_and_prefixes
from riyaz.retrieval.relevance import threshold

FORMAT, VERSION = "riyaz collection", 1
THRESHOLD = "threshold"  # the key of the calibrated relevance in the table meta
TABLES = {
    "meta": "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "documents": "CREATE TABLE documents (doc_id TEXT PRIMARY KEY, title TEXT NOT NULL, text TEXT NOT NULL, "
    "source TEXT NOT NULL, pages TEXT NOT NULL, sha256 TEXT NOT NULL)",
    "chunks": "CREATE TABLE chunks (id INTEGER PRIMARY KEY, doc_id TEXT NOT NULL REFERENCES documents(doc_id), "
    "heading TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, sha256 TEXT NOT NULL)",
    "vectors": "CREATE TABLE vectors (chunk INTEGER PRIMARY KEY REFERENCES chunks(id), vector BLOB NOT NULL, "
    "sha256 TEXT NOT NULL)",
}


@dataclass(frozen=True)
class Added:
    """Result of `add`: numbers of documents that are new, unchanged, or replace another text, and of chunks written."""

    added: int
    unchanged: int
    replaced: int
    chunks: int


@dataclass(frozen=True, eq=False)
class Collection:
    """A collection read into memory when it was opened; documents sorted by doc_id."""

    path: Path
    documents: tuple[Document, ...]
    embedder: tuple[str, str] | None  # name and sha256 of the model that made the vectors
    threshold: float | None  # below this relevance nothing here fits a question; None in files of earlier versions
    _chunks: list[Chunk]
    _vectors: np.ndarray | None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a whole collection. Raises RiyazError if it is missing, not ours, broken, too new, or empty."""
        path = Path(path)
        with opened(path, "rw") as database:
            database.execute("BEGIN")
            problem = _format_problem(path, database)
            if problem:
                raise RiyazError(problem, str(path), "name a file that riyaz rag add has written")
            meta = _meta(database)
            documents, chunks, vectors, problems = _contents(database, meta)
            least = _threshold_of(meta)
        if problems:
            raise RiyazError(f"broken: {problems[0]}", str(path), REBUILD)
        if not documents:
            raise RiyazError("holds no documents", str(path), "add some: riyaz rag add")
        return cls(path, tuple(documents), _embedder_of(meta), least, chunks, vectors)

    def chunks(self) -> list[Chunk]:
        """All chunks, sorted by doc_id and start."""
        return self._chunks

    def vectors(self) -> np.ndarray | None:
        """(chunks, dim) float32, one row for each of `chunks()`; None in a collection without an embedder."""
        return self._vectors


def add(
    path: Path,
    documents: Sequence[Document],
    embedder: Embedder | None,
    progress: Progress | None = None,
    *,
    rebuild: bool = False,
) -> Added:
    """Add documents to a collection, all or none; one with the same doc_id as an old one replaces it if they differ.

    With `rebuild` a new file with only these documents replaces the old one once it is complete. Raises RiyazError if
    the collection was made with another embedder, is in use, or cannot be written.
    """
    path = Path(path)
    if rebuild:  # the target of a link: SQLite keeps its journal beside it
        with replacing(Path(os.path.realpath(path))) as new:
            return add(new, documents, embedder, progress)
    fresh = not path.exists()
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, path.parent) from error
        with writing(path) as database:
            return _add(path, database, documents, embedder, progress)
    except BaseException:
        if fresh and path.exists() and path.stat().st_size == 0:
            path.unlink()
        raise


def verify(path: Path, mode: str = "rw") -> list[str]:
    """Problems of a collection, each with a hint; [] if it is intact. With the mode "ro" nothing is written: a killed
    write is not taken back. Raises RiyazError if the file is missing or cannot be read."""
    path = Path(path)
    try:
        with opened(path, mode) as database:
            database.execute("BEGIN")
            try:
                problem = _format_problem(path, database)
            except RiyazError as newer:
                return [f"{newer.what}; {newer.hint}"]
            if problem:
                return [f"{problem}; name a file that riyaz rag add has written"]
            rows = database.execute("PRAGMA integrity_check(5)").fetchall()
            problems = [" ".join(f"SQLite: {row[0]}".split()) for row in rows if row[0] != "ok"]
            if not problems:
                meta = _meta(database)
                problems = _contents(database, meta, hashes=True)[3]
                _threshold_of(meta)
    except RiyazError as error:
        if not isinstance(error.__cause__, BROKEN) or "broken" not in error.what:
            raise
        problems = [error.what]
    return [f"{problem}; {REBUILD}" for problem in problems]


def _add(
    path: Path,
    database: sqlite3.Connection,
    documents: Sequence[Document],
    embedder: Embedder | None,
    progress: Progress | None,
) -> Added:
    """`add` inside its transaction; chunking and embedding come before the first write."""
    meta_before: dict[str, str] = {}
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        problem = _format_problem(path, database)
        if problem:
            raise RiyazError(problem, str(path), "name a new file or a collection")
        meta_before = _meta(database)
    _check_embedder(path, meta_before, embedder)
    stored = (
        {row[0]: row[1:] for row in database.execute("SELECT doc_id, sha256, title, pages FROM documents")}
        if meta_before
        else {}
    )
    changed = [item for item in documents if stored.get(item.doc_id) != (_sha(item.text), item.title, _pages(item))]
    offsets, window = (embedder.token_offsets, embedder.window) if embedder else (word_offsets, None)
    chunks = [piece for item in changed for piece in chunk(item, offsets, window=window)]
    vectors = embedder.embed([piece.text for piece in chunks], progress) if embedder and chunks else None
    if not meta_before:
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        for statement in TABLES.values():
            database.execute(statement)
    _write(database, changed, chunks, vectors)
    counts = {name: _count(database, name) for name in ("documents", "chunks")}
    meta = {"format": FORMAT, "version": VERSION, "size": SIZE, "overlap": OVERLAP} | counts
    if embedder:
        meta |= {"embedder": embedder.name, "embedder_sha256": embedder.sha256, "dim": embedder.dim}
    database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, str(meta[key])) for key in meta])
    if changed or THRESHOLD not in meta_before:
        _calibrate(path, database, embedder)
    replaced = sum(item.doc_id in stored for item in changed)
    return Added(len(changed) - replaced, len(documents) - len(changed), replaced, len(chunks))


def _calibrate(path: Path, database: sqlite3.Connection, embedder: Embedder | None) -> None:
    """Store the relevance below which nothing in the collection fits a question."""
    _, chunks, vectors, problems = _contents(database, _meta(database))
    if problems:
        raise RiyazError(f"broken: {problems[0]}", str(path), REBUILD)
    least = threshold(chunks, vectors, BM25([passage(each) for each in chunks], words_and_prefixes), embedder)
    database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (THRESHOLD, repr(least)))


def _write(
    database: sqlite3.Connection, documents: Sequence[Document], chunks: Sequence[Chunk], vectors: np.ndarray | None
) -> None:
    for item in documents:
        old = "SELECT id FROM chunks WHERE doc_id = ?"
        database.execute(f"DELETE FROM vectors WHERE chunk IN ({old})", (item.doc_id,))
        database.execute("DELETE FROM chunks WHERE doc_id = ?", (item.doc_id,))
        row = (item.doc_id, item.title, item.text, item.where, _pages(item), _sha(item.text))
        database.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)", row)
    first = database.execute("SELECT coalesce(max(id), 0) + 1 FROM chunks").fetchone()[0]
    rows = [(c.doc_id, c.heading, c.start, c.end, _sha(c.text)) for c in chunks]
    database.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?)", [(first + i, *r) for i, r in enumerate(rows)])
    blobs = [] if vectors is None else [row.astype("<f4").tobytes() for row in vectors]
    vector_rows = [(first + i, blob, _sha(blob)) for i, blob in enumerate(blobs)]
    database.executemany("INSERT INTO vectors VALUES (?, ?, ?)", vector_rows)


def _check_embedder(path: Path, meta: dict[str, str], embedder: Embedder | None) -> None:
    """Raises RiyazError unless the collection is empty or was made with this embedder (None: without one)."""
    if not meta or meta.get("documents") == "0":
        return
    there, here = _embedder_of(meta), (embedder.name, embedder.sha256) if embedder else None
    if there == here:
        return
    names = [f"{name} ({sha[:12]})" if name else "no embedder" for name, sha in (there or ("", ""), here or ("", ""))]
    what = f"was made with {names[0]}, not with {names[1]}"
    raise RiyazError(what, str(path), "use the same again, or replace the collection with --rebuild")


def _embedder_of(meta: dict[str, str]) -> tuple[str, str] | None:
    return (meta["embedder"], meta.get("embedder_sha256", "")) if "embedder" in meta else None


def _threshold_of(meta: dict[str, str]) -> float | None:
    """The calibrated threshold; None in a collection that has none. Raises sqlite3.DatabaseError if it is no number."""
    try:
        least = float(meta.get(THRESHOLD, "nan"))
    except ValueError:
        least = math.inf
    if THRESHOLD in meta and not math.isfinite(least):
        raise sqlite3.DatabaseError(f"{THRESHOLD!r} in its table meta is not a number")
    return least if THRESHOLD in meta else None


def _format_problem(path: Path, database: sqlite3.Connection) -> str:
    """Why a readable database is not a collection of this version, "" if it is. Raises RiyazError for a newer one."""
    schema = {
        (str(row[0]), str(row[1])): row[2] for row in database.execute("SELECT type, name, sql FROM sqlite_master")
    }
    if not schema:
        return "holds no documents" if _pragma(database, "page_count") == 0 else "is not a Riyaz collection"
    if _pragma(database, "application_id") != APPLICATION:
        return "is not a Riyaz collection"
    meta = _meta(database) if ("table", "meta") in schema else {}
    version = meta.get("version", "")
    if version.isascii() and version.isdigit():
        refuse_newer(int(version[:9]), VERSION, str(path))
    tables = {name: sql for (kind, name), sql in schema.items() if not name.startswith("sqlite_autoindex_")}
    if tables != TABLES or version != str(VERSION):
        return "is not a Riyaz collection: its tables differ"
    return ""


def _meta(database: sqlite3.Connection) -> dict[str, str]:
    """The key-value pairs of the table meta. SQLite stores any type in any column, so a value that is not text raises
    sqlite3.DatabaseError."""
    rows = database.execute("SELECT key, value FROM meta").fetchall()
    for key, value in rows:
        if not isinstance(key, str) or not isinstance(value, str):
            name = key[:40] if isinstance(key, str) else "a key"
            raise sqlite3.DatabaseError(f"{name!r} in its table meta is not text")
    return dict(rows)


def _contents(
    database: sqlite3.Connection, meta: dict[str, str], hashes: bool = False
) -> tuple[list[Document], list[Chunk], np.ndarray | None, list[str]]:
    """Documents, chunks, vectors and their problems; with `hashes` the hash of every text and vector is checked too."""
    problems: list[str] = []
    documents: dict[str, Document] = {}
    for row in database.execute("SELECT * FROM documents ORDER BY doc_id"):
        item = _document(row)
        if item is None or (hashes and _sha(item.text) != row[5]):
            problems.append(f"document {str(row[0])[:80]!r} is not as it was written")
        else:
            documents[item.doc_id] = item
    digits = meta.get("dim", "")[:6]
    dim = int(digits) if digits.isascii() and digits.isdigit() else 0
    chunks, blobs = [], []
    query = (
        "SELECT c.*, v.vector, v.sha256 FROM chunks c LEFT JOIN vectors v ON v.chunk = c.id ORDER BY doc_id, start, id"
    )
    for number, doc_id, heading, start, stop, sha, vector, vector_sha in database.execute(query):
        piece = _chunk(documents, doc_id, heading, start, stop)
        if piece is None or (hashes and _sha(piece.text) != sha):
            problems.append(f"chunk {number} of document {str(doc_id)[:80]!r} is not as it was written")
        elif (vector is None) != (dim == 0):
            problems.append(f"chunk {number} has {'no' if dim else 'a'} vector")
        elif dim and not _is_valid(vector, dim, vector_sha if hashes else None):
            problems.append(f"the vector of chunk {number} is not as it was written")
        else:
            chunks.append(piece)
            blobs.append(vector)
    for name, there in (("documents", len(documents)), ("chunks", len(chunks))):
        if not problems and meta.get(name) != str(there):
            problems.append(f"{there} {name} where {str(meta.get(name))[:20]} were written")
    if hashes and not problems and _count(database, "vectors") != (len(chunks) if dim else 0):
        problems.append("some vectors belong to no chunk")
    matrix = None
    if dim and not problems:
        matrix = np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), dim).astype(np.float32)
    return list(documents.values()), chunks, matrix, problems


def _document(row: tuple[Any, ...]) -> Document | None:
    if not all(isinstance(value, str) for value in row):
        return None
    doc_id, title, text, where, pages, _ = row
    try:
        offsets = json.loads(pages)
    except (ValueError, RecursionError):
        return None
    if not isinstance(offsets, list) or not all(type(i) is int and 0 <= i <= len(text) for i in offsets):
        return None
    return Document(doc_id, title, text, where, tuple(offsets))


def _chunk(documents: dict[str, Document], doc_id: Any, heading: Any, start: Any, stop: Any) -> Chunk | None:
    item = documents.get(doc_id) if isinstance(doc_id, str) else None
    if item is None or not isinstance(heading, str) or type(start) is not int or type(stop) is not int:
        return None
    if not 0 <= start < stop <= len(item.text):
        return None
    return Chunk(doc_id, item.title, heading, start, stop, item.text[start:stop])


def _is_valid(vector: Any, dim: int, sha: Any) -> bool:
    """Whether a blob is a vector of `dim` finite float32 numbers with the hash `sha`, if that is given."""
    if not isinstance(vector, bytes) or len(vector) != 4 * dim or (sha is not None and _sha(vector) != sha):
        return False
    return bool(np.isfinite(np.frombuffer(vector, "<f4")).all())


def _sha(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def _pages(item: Document) -> str:
    return json.dumps(list(item.pages))


def _count(database: sqlite3.Connection, table: str) -> int:
    return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return database.execute(f"PRAGMA {name}").fetchone()[0]
