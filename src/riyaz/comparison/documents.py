"""The user's documents in a comparison: their identity, and their index, made once before speeds are measured."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from riyaz.artifact import COLLECTION
from riyaz.comparison.folder import ComparisonFolder, Settings
from riyaz.config import DataConfig
from riyaz.data import Dataset
from riyaz.data.formats import load
from riyaz.data.tables import kind_of
from riyaz.errors import RiyazError
from riyaz.events import Listen, Note, Progress
from riyaz.retrieval.collection import add
from riyaz.retrieval.documents import Document, read_documents
from riyaz.sources import store

EMBEDDER = "minilm"


def identity(path: Path, listen: Listen) -> dict[str, Any]:
    """The documents' entry in settings.json: path, count, hash of the texts, notes, hash of the embedding model.

    Raises RiyazError when there are no documents.
    """
    documents, notes = read_documents(path)
    for note in notes:
        listen(Note(note))
    entry = store.find(EMBEDDER)
    if entry is None:
        text = f"documents are searched by words alone; `riyaz pull {EMBEDDER}` adds search by meaning"
        listen(Note(text))
    return {
        "path": str(path.absolute()), "documents": len(documents), "sha256": _digest(documents), "notes": notes,
        "embedder": entry and entry.sha256,
    }  # fmt: skip


def with_own_documents(rows: Dataset, path: Path, reading: DataConfig) -> Dataset:
    """The rows, each with the ids of the documents that are the row itself: those made of a row with the same prompt.
    They have none where the documents are not rows like these."""
    if path.is_dir() or not kind_of(path):
        return rows
    try:
        same = load(path, **reading.reading(), like=rows.reading)
        ids = {document.where: document.doc_id for document in read_documents(path)[0]}
    except RiyazError:
        return rows
    own: dict[str, list[str]] = {}
    for example in same.examples:
        if example.where in ids:
            own.setdefault(example.key, []).append(ids[example.where])
    examples = (replace(example, own_doc_ids=tuple(own.get(example.key, ()))) for example in rows.examples)
    return replace(rows, examples=tuple(examples))


def index(folder: ComparisonFolder, settings: Settings, listen: Listen) -> None:
    """Write the index of the comparison's documents, whole or not at all. Raises RiyazError if they have changed."""
    entry = settings.documents
    assert entry is not None
    documents, _ = read_documents(Path(entry.path))
    if _digest(documents) != entry.sha256:
        raise RiyazError("the documents have changed since the comparison began", entry.path, "choose another --out")
    embedder = None
    if entry.embedder:
        from riyaz.engine.opening import open_embedder

        embedder = open_embedder(EMBEDDER)

    def progress(done: int, total: int) -> None:
        listen(Progress("index", done, total))

    part = folder.path / f".{COLLECTION}.part"
    part.unlink(missing_ok=True)
    add(part, documents, embedder, progress)
    os.replace(part, folder.path / COLLECTION)


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file or folder; False if one of them does not exist."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def _digest(documents: list[Document]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{document.doc_id}\x1f{document.title}\x1f{document.text}\x1e".encode())
    return digest.hexdigest()
