"""POST /page/votes/train: a comparison of a method that learns from the votes, with the base as it is.

A client names a served model and a method, and no path: the rows are those of the page's own file of votes. The run
gets a copy of them, since training refuses ties, and since a run goes on with the rows that it began with.
"""

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.config import MIN_ROWS
from riyaz.errors import shown
from riyaz.files import new_sha256, write_bytes
from riyaz.json_files import json_line
from riyaz.serve.fields import Field, text
from riyaz.serve.http import read_body
from riyaz.serve.opening import own_name, plain_name
from riyaz.serve.page.files import uploads_of
from riyaz.serve.page.place import Page
from riyaz.serve.page.starting import begun_run
from riyaz.serve.page.votes import FILE, both_of
from riyaz.serve.problems import Problem
from riyaz.serve.state import page_of, state_of
from riyaz.sources import Source, store

BODY = {"model": Field(text(96, 1), required=True), "method": Field(text(64, 1), required=True)}
DIGITS = 8  # of the rows' hash, by which files and runs of other rows have other names


async def train(request: Request) -> Response:
    """Begin it on the base of a model; the run's path, its command and its process."""
    body, headers = await read_body(request, BODY)
    state, page = state_of(request), page_of(request)
    if body["method"] not in page.from_votes:
        raise Problem(400, f"method: {shown(body['method'])} does not learn from votes", "method")
    source = state.shelf.find(body["model"]).open.source
    _, taken = await state.prepare(lambda: both_of(page.folder / FILE))
    if taken.prompts < MIN_ROWS:
        have = f"{len(taken.rows)} votes on {taken.prompts} different prompts can be learned from"
        raise Problem(409, f"{FILE}: {have}; training needs {MIN_ROWS} prompts")
    out, words = await asyncio.to_thread(lambda: command_of(page, taken.rows, source, body["method"]))
    return JSONResponse(await begun_run(page, out, words), 201, headers)


def command_of(page: Page, rows: list[dict[str, Any]], source: Source, method: str) -> tuple[Path, list[str]]:
    """(folder of the run, words of its command line), after the rows are written. Raises Problem, RiyazError."""
    content = b"".join(map(json_line, rows))
    digest = new_sha256(content).hexdigest()[:DIGITS]
    data, model = uploads_of(page) / f"votes-{len(rows)}-{digest}.jsonl", model_word(page, source)
    write_bytes(data, content)
    out = page.new(f"runs/{method}-{plain_name(model)}-{digest}", "out")
    words = ["compare", f"./{page.name(data)}", "--model", model, "--methods", ",".join(page.from_votes[method])]
    return out, [*words, "--out", page.name(out)]


def model_word(page: Page, source: Source) -> str:
    """A model as the command line takes it: its name if it was pulled, else its path, which the server's own command
    line or a check of the page has named."""
    path, name = source.path.resolve(), own_name(source)
    stored = store.find(name)
    if stored is not None and stored.path.resolve() == path:
        return name
    return f"./{page.name(path)}" if path.is_relative_to(page.folder) else str(path)
