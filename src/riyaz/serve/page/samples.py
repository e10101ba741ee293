"""GET /page/samples and /page/samples/text: what comes with the package for a first visit.

Its runs and limits are read by the routes of any run, under names that begin with `sample:`. Nothing writes there.
`examples/make_samples.py` makes all of it again.
"""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.json_files import read_json
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.state import page_of
from riyaz.sources import SAMPLES

ANSWERS, TEXT = "answers.json", "animals.txt"
MODELS = ("sample-animals", "sample-animals-ternary")  # names that every command knows


async def listed(request: Request) -> Response:
    """The text to learn from, with its bytes, and the answers of two models to the same prompts."""
    return JSONResponse(await asyncio.to_thread(_document))


def _document() -> dict[str, Any]:
    size = (SAMPLES / TEXT).stat().st_size
    return {"texts": [{"name": TEXT, "bytes": size}], "sides": read_json(SAMPLES / ANSWERS)}


async def text(request: Request) -> Response:
    """The sample text itself. Raises Problem 404 for another name."""
    if request.query_params.get("name") != TEXT:
        raise Problem(404, f"name: there is no such text; the sample text is {TEXT}", "name")
    page = page_of(request).samples()
    return JSONResponse({"name": TEXT, "text": await asyncio.to_thread(page.inside(TEXT).read_text, "utf-8")})


def is_sample(served: Served) -> bool:
    """Whether a model is one of those that come with the package."""
    return served.base is not None and served.base.source.path.resolve().is_relative_to(SAMPLES.resolve())
