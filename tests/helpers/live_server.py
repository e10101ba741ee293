"""A real server in a thread of the test, and OpenAI's own client with strict validation of responses. No limit of the
server ends anything by itself, also where the test's process stands still: a test of one sets it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import openai
import uvicorn
from waiting import HANG, until

from riyaz.config import ServeConfig
from riyaz.hardware import MB
from riyaz.serve import connection, http, server, unread
from riyaz.serve.opening import Opener
from riyaz.serve.page import readings
from riyaz.serve.page.place import Page
from riyaz.serve.state import State

KEY = "test-key-0123456789"
LIMITS = (
    (connection, "HEAD"), (connection, "AFTER_SECONDS"), (connection, "UNREAD_SECONDS"), (unread, "UNREAD_SECONDS"),
    (http, "READING"), (http, "WRITING"), (http, "PING"), (readings, "KEPT"),
)  # fmt: skip
for module, name in LIMITS:
    setattr(module, name, HANG)


@dataclass(frozen=True, eq=False)
class Running:
    """A server that listens; `http` is a plain client, `openai` the one with strict validation."""

    server: uvicorn.Server
    state: State
    url: str
    http: httpx.Client
    openai: openai.OpenAI

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.http.post(path, json=body, **options)

    def idle(self) -> bool:
        """Whether nothing runs, waits or is left in the engine."""
        engines = [base.lm for base in self.state.opener.bases]
        return self.state.open == 0 and all(not lm.running and not lm._scheduler.waiting for lm in engines)


@contextmanager
def running(
    opener: Opener, load: Callable[[], None] | None = None, page: Page | None = None, **options: Any
) -> Iterator[Running]:
    """A server on a free port until the end of the block; with `load` it begins while that is still called."""
    config = replace(ServeConfig(port=0, drain=0, queue_timeout=HANG), **options)
    opener.serving(config.piece, int(config.keep_mb * MB))
    state, listening, ready = State(config, opener.shelf, opener, page=page), server.bound(config), threading.Event()
    state.loaded = load is None
    made = server.made(state)
    made.config.timeout_keep_alive = int(HANG)
    thread = threading.Thread(target=server.run, args=(made, state, listening, ready.set, load))
    thread.start()
    try:
        until(lambda: made.started or not thread.is_alive(), "the server listens")
        assert load is not None or ready.wait(HANG)
        url = server.url_of(listening)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, _strict_response_validation=True)
        with httpx.Client(base_url=url, timeout=HANG) as plain:
            yield Running(made, state, url, plain, client)
    finally:
        made.should_exit = True
        thread.join(HANG)
        listening.close()
    assert not thread.is_alive()


def assert_error(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, which has the four members of OpenAI's."""
    assert response.status_code == status, (response.status_code, response.text)
    body = response.json()["error"]
    assert body.keys() >= {"message", "type", "param", "code"} and body["message"].isprintable(), body
    found: dict[str, Any] = body
    return found
