"""One page opened in a browser context of its own; remembers requests, dialogs and errors."""

from collections.abc import Callable
from typing import Any

from live_server import Running
from waiting import LOOKS

Handler = Callable[[Any], None]
FRAMES = "left => new Promise(done => { const next = () => left-- ? requestAnimationFrame(next) : done(); next(); })"


class Visit:
    """A screen of the page, opened with its token."""

    def __init__(
        self, browser: Any, served: Running, screen: str, width: int = 1300, theme: str = "light",
        routes: dict[str, Handler] | None = None, token: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        size = {"width": width, "height": 900}
        self.context = browser.new_context(viewport=size, color_scheme=theme, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.dialogs: list[str] = []
        self.url = served.url
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.on("request", self._note)
        for pattern, handler in (routes or {}).items():
            self.page.route(pattern, handler)
        key = served.state.page.token if token is None else token
        sign = "&" if "?" in screen else "?"
        self.page.goto(f"{served.url}/#/{screen}{sign}token={key}")

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.outside.append(request.url)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def width(self) -> int:
        """The width of the page's content, which is the window's where nothing is wider."""
        return int(self.page.evaluate("document.documentElement.scrollWidth"))

    def assert_quiet(self) -> None:
        """Nothing complained, nothing asked another origin, nothing ran."""
        assert not (self.errors or self.outside or self.dialogs), (self.errors, self.outside, self.dialogs)
        assert self.page.evaluate("window.pwned") is None


def frames(page: Any, count: int) -> None:
    """Let the browser draw so many frames, at most 60 a second; a page that is slow draws them later."""
    page.evaluate(FRAMES, count)


def drawn_until(page: Any, look: Callable[[], object], what: str) -> None:
    """Let the browser draw until `look` returns something true. Raises AssertionError with `what` was waited for."""
    for _ in range(LOOKS):
        if look():
            return
        frames(page, 1)
    raise AssertionError(f"it never came: {what}")


def json_of(body: Any, status: int = 200) -> Handler:
    """A handler that answers with JSON."""
    return lambda route: route.fulfill(status=status, json=body)


def stream_of(pieces: list[str], top: int = 10) -> Handler:
    """A handler that answers /v1/chat/completions with these tokens, each with candidates."""
    import json

    lines = []
    for place, piece in enumerate(pieces):
        other = [{"token": f"w{n}", "logprob": -2.0 - n, "bytes": []} for n in range(top - 1)]
        scored = {"token": piece, "logprob": -0.3 - place % 4, "bytes": []}
        content = [{**scored, "top_logprobs": [{"token": piece, "logprob": -0.3, "bytes": []}, *other]}]
        choice = {"index": 0, "delta": {"content": piece}, "logprobs": {"content": content}, "finish_reason": None}
        lines.append(json.dumps({"choices": [choice], "usage": None}))
    end = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(pieces)}, "timings": {}}
    body = "".join(f"data: {line}\n\n" for line in [*lines, json.dumps(end), "[DONE]"])
    return lambda route: route.fulfill(status=200, body=body, headers={"content-type": "text/event-stream"})
