"""Who may ask: one check before every route. Nothing is public but /health and the page's built files. What the page
asks for needs the token of this start, which is a key for the other routes too."""

import contextlib
import hashlib
import hmac
import ipaddress
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from riyaz.config import ServeConfig
from riyaz.errors import RiyazError
from riyaz.serve.http import error_response
from riyaz.serve.owners import asking_as, owner_of
from riyaz.serve.page.place import ASSETS, INDEX, PREFIX, REPORT, Page
from riyaz.serve.problems import Problem

PUBLIC = ("/health",)
TOKEN = "x-riyaz-token"
LOCAL = ("127.0.0.1", "localhost", "::1")
MAX_KEYS, MAX_KEY_FILE, SHORTEST = 1000, 2**20, 16
FIELDS = 8  # of a query that may have a ticket
SECRET = re.compile(rb"\n(authorization|x-api-key|x-riyaz-token):[ \t]*([^\r\n]*)", re.IGNORECASE)
ASKED_WITH = ("GET", "POST", "DELETE")
PORTS = {"http": 80, "https": 443}  # that browsers leave out of an origin


class Guard:
    """Checks Host, Origin and key of every request before the application gets it.

    A browser asks without a key whether a page of another origin may ask, so this is answered between the checks.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, page: Page | None = None) -> None:
        self._app, self._config, self._page = app, config, page
        self._keys = read_keys(config.api_key_file) if config.api_key_file else ()
        self._inner: ASGIApp = self._with_key
        if config.allow_origin:  # no cookies are involved, so every header may be sent and read
            self._inner = CORSMiddleware(
                self._inner, config.allow_origin, ASKED_WITH, allow_headers=["*"], expose_headers=["*"]
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that may be answered; answer any other with its error."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        try:
            self.check_names(Headers(scope=scope))
        except Problem as problem:
            return await error_response(problem, scope["path"])(scope, receive, send)
        with contextlib.suppress(Exception):  # answered and logged; uvicorn would print it with what it quotes
            await self._inner(scope, receive, send)

    async def _with_key(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.check_key(Headers(scope=scope), scope["path"], scope.get("query_string", b"").decode("latin-1"))
        except Problem as problem:
            return await error_response(problem, scope["path"])(scope, receive, send)
        asking_as(self._owner(Headers(scope=scope)))
        await self._app(scope, receive, send)

    def check_names(self, headers: Headers) -> None:
        """Raises Problem 403 for another Host or Origin."""
        host = headers.get("host", "")
        if not self._is_known(host):
            raise Problem(403, "this Host header is not one of the server's names", code="forbidden_host")
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", *self._config.allow_origin):
            raise Problem(403, "pages of this origin may not ask", code="forbidden_origin")

    def check_key(self, headers: Headers, path: str, query: str = "") -> None:
        """Raises Problem 401 without a key or token where one is needed."""
        if self._page is not None and path.startswith(PREFIX):
            if not (self._has_token(headers) or (path == REPORT and self._has_ticket(query))):
                what = "the page's token is missing or of an earlier start; open the link that the server printed"
                raise Problem(401, what, code="invalid_token")
        elif self._keys and not self._is_public(path) and not self._has_key(headers):
            raise Problem(401, "no valid API key; send it as Authorization: Bearer KEY or X-Api-Key: KEY")

    def brings_key(self, head: bytes) -> bool:
        """Whether the head of a request, as it came, has a key or the page's token, on a server with keys."""
        headers = Headers(raw=[(name.lower(), value) for name, value in SECRET.findall(head)])
        return bool(self._keys and headers) and (self._has_key(headers) or self._has_token(headers))

    def _is_public(self, path: str) -> bool:
        return path in PUBLIC or (self._page is not None and (path == INDEX or path.startswith(ASSETS)))

    def _has_token(self, headers: Headers) -> bool:
        return self._page is not None and self._page.is_token(headers.get(TOKEN, ""))

    def _has_ticket(self, query: str) -> bool:
        """Whether a report is asked for with the ticket that opens it alone."""
        try:
            fields = dict(parse_qsl(query, max_num_fields=FIELDS))
        except ValueError:  # there are more
            return False
        ticket = self._page.ticket(fields.get("path", "")) if self._page else ""
        return hmac.compare_digest(fields.get("ticket", "").encode(), ticket.encode())

    def _is_known(self, host: str) -> bool:
        """Whether a Host header names this server: an address, never a name that was not allowed, which might be
        someone else's for this address (DNS rebinding)."""
        try:
            name = "" if "@" in host else urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in (*LOCAL, self._config.host.lower(), *(each.lower() for each in self._config.allow_host)):
            return True
        return not is_local(self._config.host) and _is_address(name)

    def _owner(self, headers: Headers) -> int:
        """Whose a request is: of its key, else of the page's token; 0 on a server without keys, which is one user's."""
        if not self._keys:
            return 0
        return owner_of(_secret(headers) if self._has_key(headers) else headers.get(TOKEN, ""))

    def _has_key(self, headers: Headers) -> bool:
        secret = _secret(headers)
        digest = hashlib.sha256(secret.encode()).digest()
        matches = [hmac.compare_digest(digest, key) for key in self._keys]  # all of them, so that time says nothing
        return any(matches) or (self._page is not None and self._page.is_token(secret))


def _secret(headers: Headers) -> str:
    """The key that a request brings; empty without one."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The hashes of the keys in a file, one key on a line. Raises RiyazError."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "give a file of keys") from None
    lines = [line.strip() for line in data.splitlines() if line.strip()]
    if not lines or len(lines) > MAX_KEYS or len(data) > MAX_KEY_FILE:
        raise RiyazError(f"holds {len(lines):,} keys", str(path), f"give 1 to {MAX_KEYS:,}, one on a line")
    if any(len(line) < SHORTEST for line in lines):
        raise RiyazError("holds a key that can be guessed", str(path), f"give at least {SHORTEST} characters")
    return tuple(hashlib.sha256(line).digest() for line in lines)


def expect_guarded(config: ServeConfig) -> None:
    """Raises RiyazError where others could reach the server without a key."""
    if not is_local(config.host) and config.api_key_file is None:
        hint = "give --api-key-file, or listen on 127.0.0.1"
        raise RiyazError(f"{config.host} can be reached from other machines, and there is no key", "--host", hint)


def check_origins(origins: tuple[str, ...]) -> None:
    """Raises RiyazError for what no browser sends as an origin, which would never match."""
    for origin in origins:
        if not _is_origin(origin):
            what = f"{origin[:100]!r} is not an origin as browsers send it"
            hint = "give scheme, name and port alone, such as https://example.org or http://localhost:3000"
            raise RiyazError(what, "--allow-origin", hint)


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        usual_port = parts.port == PORTS.get(parts.scheme, 0)
    except ValueError:
        return False
    sent = f"{parts.scheme}://{parts.netloc.lower()}"
    return bool(parts.hostname) and text == sent and "@" not in text and not usual_port


def is_local(host: str) -> bool:
    """Whether only this machine reaches the address."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
