"""GET /page/learned: what a run, or an arm of a comparison, recorded of itself at its validations, and the lines of the
program that made it."""

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import riyaz
from riyaz.errors import RiyazError, shown
from riyaz.files import is_bare
from riyaz.json_files import to_document
from riyaz.results import LEARNED, Learned
from riyaz.serve.page.records import run_of
from riyaz.serve.page.runs import ARMS, KEPT
from riyaz.serve.problems import Problem
from riyaz.serve.state import page_of

MOST = 4 * 2**20  # bytes of a file that is read; a run writes less
PROGRAM = Path(riyaz.__file__).parent / "train.py"  # read, not imported: it needs torch
# What a step does, by what its line of the program begins with
PARTS = {
    "forward": "hidden = model(tokens, positions,", "loss": "loss = loss_of(model, micro,",
    "backward": "(loss / weight).backward()", "step": "masters.step(step + 1,",
}  # fmt: skip


async def learned(request: Request) -> Response:
    """The lines after step `after`, all where it is not given, and those of the program. `arm`: of an arm of a
    comparison."""
    path, arm = run_of(request).path, request.query_params.get("arm")
    if arm is not None and not is_bare(arm):
        raise Problem(404, f"there is no arm {shown(arm)}", "arm")
    path = (path / ARMS / arm / KEPT if arm else path) / LEARNED
    page = page_of(request).holding(request.query_params.get("path", ""))
    if path.exists():
        path = page.inside(page.name(path))  # a link may lead elsewhere
    after = request.query_params.get("after", "-1")
    if not after.removeprefix("-").isdecimal() or len(after) > 12:
        raise Problem(400, f"{after!r} is no step", "after")
    return JSONResponse(await asyncio.to_thread(lambda: {"lines": _lines(path, int(after)), "program": program()}))


def _lines(path: Path, after: int) -> list[Any]:
    """The lines of a file. Raises Problem for one that is too large or that no run wrote."""
    try:
        if path.is_file() and path.stat().st_size > MOST:
            raise Problem(400, f"{path.name} has more than {MOST:,} bytes", "path")
        return [to_document(line) for line in Learned.read(path) if line.step > after]
    except RiyazError as error:
        raise Problem(400, str(error), "path") from error


@cache
def program() -> list[dict[str, Any]]:
    """The lines of the training loop as the file has them: which part of a step each is, its number and its text."""
    text = PROGRAM.read_text(encoding="utf-8").splitlines()
    places = {
        part: next(i for i, line in enumerate(text) if line.strip().startswith(begins))
        for part, begins in PARTS.items()
    }
    return [{"part": part, "line": place + 1, "text": text[place].strip()} for part, place in places.items()]
