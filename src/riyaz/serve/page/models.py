"""POST /page/adapters: chat with an artifact, an adapter, an arm of a comparison or a model of the page's folder."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz import adapters, artifact
from riyaz.errors import RiyazError, shown
from riyaz.files import is_bare
from riyaz.serve.adapters import serve_folder
from riyaz.serve.fields import Field, text
from riyaz.serve.http import read_body
from riyaz.serve.opening import plain_name
from riyaz.serve.page.info import entry_of
from riyaz.serve.page.place import Page
from riyaz.serve.shelf import Served
from riyaz.serve.state import State, page_of, state_of

BODY = {"path": Field(text(1024, 1), required=True), "name": Field(text(96, 1))}


async def add(request: Request) -> Response:
    """Serve it from now on, under the name that is given or its own; one that is served already is named again."""
    body, headers = await read_body(request, BODY)
    state, page = state_of(request), page_of(request)
    path = page.inside(body["path"])
    target = page.inside(artifact.resolve(path))  # by a link too it must lie there
    name = body.get("name") or name_of(page, target)
    known = next((each for each in state.shelf if Path(each.root).resolve() == target), None)
    if known is None:
        known = await _model(state, name, target) if _is_model(target) else await _artifact(state, name, target)
    return JSONResponse(await state.prepare(lambda: entry_of(known)), 201, headers)


def name_of(page: Page, path: Path) -> str:
    """The name of a model by its place: `workshop/lora` for an arm, else the last part of its path."""
    parts = Path(page.name(path)).parts
    if parts[-2:] == ("kept", "artifact") and len(parts) > 4:
        arm = parts[-3] if is_bare(parts[-3]) else plain_name(parts[-3])
        return f"{plain_name(parts[-5])}/{arm}"
    return plain_name(str(path))


def _is_model(path: Path) -> bool:
    own = any((path / name).is_file() for name in (artifact.NAME, adapters.CONFIG))
    if not own and path.is_dir() and not (path / "config.json").is_file():
        raise RiyazError("holds no model, artifact or adapter", shown(path.name), "choose another folder")
    return not own


async def _artifact(state: State, name: str, path: Path) -> Served:
    return await serve_folder(state, name, lambda: path, "path", further=True)


async def _model(state: State, name: str, path: Path) -> Served:
    """A whole model, opened beside running answers."""
    async with state.loading:
        served = await state.open_files(lambda: state.opener.further(name, path))
        state.shelf.put(served)
    return served
