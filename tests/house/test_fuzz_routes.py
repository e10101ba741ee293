"""Some hundred mutated requests to every route of a real server; `make fuzz-routes` sends thousands."""

import math
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fuzz_routes
import pytest
from fuzz_routes import ROUTES, Request, Server
from starlette.routing import Route

from riyaz.serve import app
from riyaz.serve.page import routes

EACH = 10  # requests of a route
# They read nothing of a request, or are the same as another: /rerank is /v1/rerank.
LEFT_OUT = {"/health", "/ready", "/version", "/rerank", routes.INDEX, routes.REPORT, "/page/data"}


def test_every_route_is_fuzzed() -> None:
    known = {route.path: route.methods or set() for route in [*app.ROUTES, *routes.ROUTES] if isinstance(route, Route)}
    for path in known.keys() - LEFT_OUT:
        assert any(each.split()[1] == path.replace("{name:path}", "{name}") for each in ROUTES), path


@pytest.mark.slow
def test_whatever_comes_is_answered_and_the_server_lives(tmp_path: Path) -> None:
    with fuzz_routes.started(tmp_path) as server:
        counts = {route: fuzz_routes.fuzz(server, route, EACH, 5, 0, math.inf) for route in ROUTES}
    wrong = [f"{route} {outcome}" for route, each in counts.items() for outcome in each if "WRONG" in outcome]
    assert not wrong, wrong[:5]
    assert not fuzz_routes.tracebacks(server), server.log.read_text("utf-8", "replace")[-3000:]
    assert all(each.total() == EACH for each in counts.values())
    seen = {outcome for each in counts.values() for outcome in each}
    assert seen >= {"200", "400", "404", "none", "stopped"}
    assert server.waits and server.ill == [], "/health was asked all the while"
    assert server.process.returncode == 0


@contextmanager
def answering(content: bytes) -> Iterator[Server]:
    """What answers one connection with these bytes and closes it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        client, _ = listening.accept()
        client.recv(1000)
        client.sendall(content)
        client.close()

    thread = threading.Thread(target=once)
    thread.start()
    yield Server(listening.getsockname()[1], "", None, Path())  # type: ignore[arg-type]
    thread.join()
    listening.close()


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 1\r\n\r\nx", "WRONG 500: b'x'"),
        (b"HTTP/1.1 502 Oh\r\nContent-Length: 0\r\n\r\n", "WRONG 502: b''"),
        (b"HTTP/1.1 503 Oh\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 200 Oh\r\nContent-Length: 5\r\n\r\nx", "WRONG IncompleteRead"),
        (b"", "WRONG RemoteDisconnected"),
    ],
)
def test_what_is_wrong_is_seen(content: bytes, outcome: str) -> None:
    with answering(content) as server:
        found = fuzz_routes.answer(server, Request(b"GET / HTTP/1.1\r\n\r\n", whole=True))
    assert found.startswith(outcome)


@pytest.mark.parametrize(("content", "waits", "ill"), [
    (b"HTTP/1.1 200 Oh\r\nContent-Length: 1\r\n\r\nx", 1, 0),
    (b"HTTP/1.1 503 Oh\r\nContent-Length: 0\r\n\r\n", 0, 1),
])  # fmt: skip
def test_a_server_that_is_not_well_is_seen(content: bytes, waits: int, ill: int) -> None:
    class Once(threading.Event):
        """Stops before the second question."""

        def wait(self, timeout: float | None = None) -> bool:
            was, _ = self.is_set(), self.set()
            return was

    with answering(content) as server:
        fuzz_routes.watch(server, Once())
    assert (len(server.waits), len(server.ill)) == (waits, ill)


def test_a_request_is_the_same_every_time() -> None:
    for route in ROUTES:
        twice = [fuzz_routes.request_of(route, random.Random(f"3 {route}"), "token") for _ in range(2)]
        assert twice[0] == twice[1]
