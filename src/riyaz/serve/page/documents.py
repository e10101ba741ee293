"""/page/collections, /page/search, /page/document: the user's documents, searched, and each passage in its place."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz import artifact
from riyaz.artifact import Artifact
from riyaz.errors import RiyazError, shown
from riyaz.predictor.prompt import expect_short
from riyaz.retrieval.collection import Collection
from riyaz.retrieval.open_retriever import open_retriever
from riyaz.retrieval.search import Retriever
from riyaz.serve.fields import FLAG, Field, text, whole
from riyaz.serve.http import read_body, unless_gone
from riyaz.serve.page.place import Page
from riyaz.serve.page.runs import DEEPEST, MOST_FOLDERS
from riyaz.serve.page.starting import finished
from riyaz.serve.problems import Problem
from riyaz.serve.state import page_of, state_of

ENDING = ".sqlite"
MOST, AROUND = 50, 2000  # passages of one search; characters around a passage that are shown
SEARCH = {
    "collection": Field(text(1024, 1), required=True), "query": Field(text(None, 1), required=True),
    "k": Field(whole(1, MOST)),
}  # fmt: skip
ADD = {
    "collection": Field(text(1024, 1), required=True), "documents": Field(text(1024, 1), required=True),
    "lexical": Field(FLAG),
}  # fmt: skip
MAX_OPEN = 4  # collections that stay open
_open: dict[tuple[Path, int, int], Retriever] = {}  # by path, time and size: one that has changed is opened anew


async def listed(request: Request) -> Response:
    """GET /page/collections: every collection below the page's folder, or why one cannot be read."""
    page = page_of(request)
    collections = await state_of(request).prepare(lambda: [entry_of(page, path) for path in _files(page.folder)])
    return JSONResponse({"collections": collections})


def _files(folder: Path) -> Iterator[Path]:
    """Files with a collection's ending, as deep as runs are looked for."""
    left = MOST_FOLDERS
    for path, folders, names in os.walk(folder):
        left -= 1
        yield from (Path(path, name) for name in sorted(names) if name.endswith(ENDING) and not name.startswith("."))
        if len(Path(path).relative_to(folder).parts) >= DEEPEST or left <= 0:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def entry_of(page: Page, path: Path) -> dict[str, Any]:
    """A collection's documents by name, or the problem with it."""
    entry: dict[str, Any] = {"path": page.name(path), "documents": [], "passages": 0, "embedder": None, "problem": None}
    try:
        held = Collection.open(page.inside(page.name(path)))
    except (RiyazError, Problem) as error:
        return {**entry, "problem": str(error)}
    named = [{"id": each.doc_id, "title": each.title, "characters": len(each.text)} for each in held.documents]
    embedder = held.embedder[0] if held.embedder else None
    return {**entry, "documents": named, "passages": len(held.chunks()), "embedder": embedder}


async def search(request: Request) -> Response:
    """POST /page/search: the passages that fit a question best, each with its document, page and characters."""
    body, headers = await read_body(request, SEARCH)
    path = page_of(request).inside(body["collection"], "collection")
    expect_short(body["query"], "query")
    count = int(body.get("k", 5))
    hits = await state_of(request).prepare(lambda: _retriever(path).search([body["query"]], count)[0])
    return JSONResponse({"passages": [asdict(hit) for hit in hits]}, headers=headers)


def _retriever(path: Path) -> Retriever:
    """The open retriever of a collection as it is now. Raises RiyazError."""
    try:
        now = path.stat()
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path)) from None
    key = (path, now.st_mtime_ns, now.st_size)
    if key not in _open:
        while len(_open) >= MAX_OPEN:
            del _open[next(iter(_open))]
        _open[key] = open_retriever(path)
    return _open[key]


async def document(request: Request) -> Response:
    """GET /page/document?collection=C&id=D&start=N&end=M: a passage in its place, with the text around it. With
    `model` in the place of a collection it is in the documents that this model's answers cite."""
    query, state = request.query_params, state_of(request)
    if query.get("model"):
        root = Path(state.shelf.find(query["model"]).root)
        held = await state.prepare(lambda: Collection.open(_cited(root)))
    else:
        path = page_of(request).inside(query.get("collection", ""), "collection")
        held = await state.prepare(lambda: Collection.open(path))
    chosen = next((each for each in held.documents if each.doc_id == query.get("id")), None)
    if chosen is None:
        raise Problem(404, f"there is no document {shown(query.get('id', ''))} in this collection", "id")
    size = len(chosen.text)
    start, end = (min(int(query[name]), size) if _is_number(query.get(name)) else 0 for name in ("start", "end"))
    end = max(start, end)
    first, last = max(0, start - AROUND), min(size, end + AROUND)
    parts = {"before": chosen.text[first:start], "passage": chosen.text[start:end], "after": chosen.text[end:last]}
    page, last_page = chosen.pages_of(start, end) or (None, None) if chosen.pages else (None, None)
    place = {"start": start, "end": end, "characters": size, "page": page, "last_page": last_page}
    return JSONResponse({"id": chosen.doc_id, "title": chosen.title, **place, **parts})


def _cited(root: Path) -> Path:
    """The collection of an artifact that is served. Raises RiyazError."""
    folder = artifact.resolve(root)
    text = Artifact.read(folder).text
    return folder / (text.collection_file or artifact.COLLECTION)


def _is_number(text: str | None) -> bool:
    return text is not None and text.isdecimal() and len(text) < 16


async def add(request: Request) -> Response:
    """POST /page/collections: `riyaz rag add` of a file or folder to a collection, which may be new."""
    body, headers = await read_body(request, ADD)
    page = page_of(request)
    documents = page.name(page.inside(body["documents"], "documents"))
    place = page.new(body["collection"], "collection")
    if place.suffix != ENDING:
        raise Problem(400, f"collection: give a name that ends with {ENDING}", "collection")
    words = ["rag", "add", f"./{page.name(place)}", f"./{documents}", *(["--lexical"] if body.get("lexical") else [])]
    return await unless_gone(request.receive, finished(page, words, headers, page.name(place), "added"))
