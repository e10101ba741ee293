"""/page/files: what is in the page's folder, and files that are dropped on the page."""

import asyncio
import os
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz import artifact, hardware
from riyaz.adapters import CONFIG
from riyaz.errors import shown
from riyaz.files import atomic_file
from riyaz.results import COMPARE
from riyaz.serve.http import MB, incoming
from riyaz.serve.page.place import UPLOADS, Page, expect_file_name
from riyaz.serve.page.runs import KINDS
from riyaz.serve.problems import Problem
from riyaz.serve.state import page_of, state_of

MOST = 1000  # entries of a folder that are listed
DATA = (".jsonl", ".json", ".csv", ".tsv", ".xlsx", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz")
DOCUMENTS = (".html", ".pdf", ".docx")
TEXTS = (".txt", ".md", ".txt.gz", ".md.gz")
SPARE = 16 * MB  # bytes of the disk that an upload leaves free


async def listed(request: Request) -> Response:
    """GET /page/files?under=FOLDER: the entries of a folder, without hidden ones and links that lead out of it."""
    page = page_of(request)
    folder = page.inside(request.query_params.get("under", "."), "under")
    if not folder.is_dir():
        raise Problem(400, f"{shown(page.name(folder))} is no folder", "under")
    entries = await asyncio.to_thread(entries_of, page, folder)
    return JSONResponse({"folder": page.name(folder), "entries": entries[:MOST], "more": max(0, len(entries) - MOST)})


def entries_of(page: Page, folder: Path) -> list[dict[str, Any]]:
    """Name, kind and size of everything in a folder, folders first."""
    listed = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or (entry.is_symlink() and not _inside(page, path)):
                continue
            size = entry.stat().st_size if entry.is_file() else None
            listed.append({"name": entry.name, "path": page.name(path), "kind": kind_of(path), "bytes": size})
    return sorted(listed, key=lambda entry: (entry["bytes"] is not None, entry["name"].lower()))


def kind_of(path: Path) -> str:
    """What a file or folder is taken for: run, artifact, model, folder, data, documents, text, collection or other."""
    if path.is_dir():
        return _kind_of_folder(path)
    name = path.name.lower()
    kinds = {"data": DATA, "documents": DOCUMENTS, "text": TEXTS, "model": (".gguf",), "collection": (".sqlite",)}
    return next((kind for kind, endings in kinds.items() if name.endswith(endings)), "other")


def _kind_of_folder(path: Path) -> str:
    if any((path / name).is_file() for name in (COMPARE, *KINDS)):
        return "run"
    if any((path / name).is_file() for name in (artifact.NAME, CONFIG)):
        return "artifact"
    return "model" if (path / "config.json").is_file() else "folder"


def _inside(page: Page, path: Path) -> bool:
    try:
        page.inside(page.name(path))
    except Problem:
        return False
    return True


async def upload(request: Request) -> Response:
    """POST /page/files?name=NAME: the body becomes uploads/NAME, whole or not at all; `replace` for one that exists."""
    page, name = page_of(request), request.query_params.get("name", "")
    expect_file_name(name)
    path = uploads_of(page) / name
    if path in _arriving:
        raise Problem(409, f"another upload of {shown(name)} is not finished; wait for it", "name")
    if path.exists() and request.query_params.get("replace") != "true":
        raise Problem(409, f"there is a file {shown(name)} already; replace it, or choose another name", "name")
    _arriving.add(path)
    try:
        size = await _written(request, path, int(state_of(request).config.max_upload_mb * MB))
    finally:
        _arriving.discard(path)
    return JSONResponse({"path": page.name(path), "kind": kind_of(path), "bytes": size}, 201)


_arriving: set[Path] = set()  # files that are being uploaded


def uploads_of(page: Page) -> Path:
    """The folder of uploads. Raises Problem where a link or a file stands in its place."""
    folder = page.folder / UPLOADS
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Problem(400, f"{UPLOADS}: cannot be made ({error.strerror}); remove what stands there", "name") from None
    if folder.is_symlink():
        raise Problem(400, f"{UPLOADS} is a link, and files are written only inside the page's folder", "name")
    return folder


async def _written(request: Request, path: Path, most: int) -> int:
    """Write a body to a file as it comes; returns its size. Raises Problem, RiyazError."""
    length = request.headers.get("content-length", "0")
    _expect_room(int(length[:20]) if length.isdecimal() else 0, most, path)
    size = 0
    with atomic_file(path) as file:
        async for chunk in incoming(request):
            size += len(chunk)
            _expect_room(size, most, path)
            await asyncio.to_thread(file.write, chunk)
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())  # which may take long: the loop does not wait
    return size


def _expect_room(size: int, most: int, path: Path) -> None:
    """Raises Problem for a file that is larger than uploads may be, or than the disk has room for."""
    if size > most:
        limit = f"at most {most / MB:,.0f} MB are taken (--max-upload-mb)"
        raise Problem(413, f"the file is too large: {limit}; put it into the page's folder yourself", "name")
    if size and hardware.disk_free(path.parent) < SPARE:
        raise Problem(507, "the disk is full: nothing was kept; free some space and upload the file again", "name")
