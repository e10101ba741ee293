"""The page's built files, which need neither key nor token: they hold nothing of the user's."""

import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from riyaz.files import is_bare
from riyaz.serve.problems import Problem

BUILT = Path(__file__).parents[1] / "static"
INDEX = "index.html"
NOT_BUILT = "the page is not built in this checkout; build it with: cd page && npm ci && npm run build\n"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# "no-cache", since names of files hold no hash: a browser asks each time whether there is a newer one
HEADERS = {
    "cache-control": "no-cache", "content-security-policy": POLICY, "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer", "cross-origin-opener-policy": "same-origin",
}  # fmt: skip
mimetypes.add_type("text/javascript", ".js")  # some systems say otherwise, and browsers then refuse modules
mimetypes.add_type("font/woff2", ".woff2")


async def index(request: Request) -> Response:
    """GET /: the page; one line where its files are not built."""
    if not (BUILT / INDEX).is_file():
        return PlainTextResponse(NOT_BUILT, 503, HEADERS)
    return FileResponse(BUILT / INDEX, headers=HEADERS, media_type="text/html; charset=utf-8")


async def asset(request: Request) -> Response:
    """GET /assets/NAME: a file that the page loads."""
    name = request.path_params["name"]
    path = BUILT / "assets" / name
    if not is_bare(name) or not path.is_file():
        raise Problem(404, "there is no such file of the page")
    return FileResponse(path, headers=HEADERS)
