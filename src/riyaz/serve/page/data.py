"""/page/data and /page/limits: how a data file is read, by `riyaz data`, and what was measured of a model's limits."""

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.errors import shown
from riyaz.files import is_bare
from riyaz.json_files import to_document
from riyaz.results import LIMITS, Limits
from riyaz.serve.http import unless_gone
from riyaz.serve.page.place import Page
from riyaz.serve.page.runs import ARMS
from riyaz.serve.page.starting import finished, model_of
from riyaz.serve.problems import Problem
from riyaz.serve.state import page_of, state_of

PAGE_ROWS = 50
COLUMNS = ("prompt_column", "answer_column")


async def preview(request: Request) -> Response:
    """GET /page/data?path=P&model=M&offset=N: `riyaz data` on a file or folder, with PAGE_ROWS rows from a place on."""
    page, query = page_of(request), request.query_params
    words = ["data", f"./{page.name(page.inside(query.get('path', '')))}", "--rows", str(PAGE_ROWS), "--skip-problems"]
    if query.get("offset", "").isdecimal():
        words += ["--offset", query["offset"][:12]]
    if query.get("model"):
        words += ["--model", model_of(page, query["model"], "model")]
    for name in COLUMNS:
        if query.get(name):
            words.append(f"--{name.replace('_', '-')}={query[name]}")
    return await unless_gone(request.receive, finished(page, words, {}, words[1], "data"))


async def limits(request: Request) -> Response:
    """GET /page/limits?path=P: limits.json of a folder, or of each arm of a comparison."""
    name = request.query_params.get("path", "")
    page = page_of(request).holding(name)
    path = page.inside(name)
    measured = await state_of(request).prepare(lambda: _limits(page, path))
    if not measured:
        what = f"no limits were measured of {shown(page.name(path))}; riyaz limits measures them"
        raise Problem(404, what, "path")
    return JSONResponse({"limits": measured})


def _limits(page: Page, path: Path) -> dict[str, Any]:
    """Every limits.json by what it is about: the folder itself or its arms. Raises RiyazError for a damaged one."""
    places = {page.name(path): path / LIMITS}
    if (path / ARMS).is_dir():
        arms = [arm for arm in sorted((path / ARMS).iterdir()) if is_bare(arm.name)]
        places |= {arm.name: arm / "kept/artifact" / LIMITS for arm in arms}
    there = {name: page.inside(page.name(place)) for name, place in places.items() if place.is_file()}
    return {name: to_document(Limits.read(place)) for name, place in there.items()}
