"""Clients that stop reading: their places are free when generation ends, what is unread is bounded, and others are
answered."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from engine_gate import Gate
from live_server import Running, running
from waiting import HANG, until

from riyaz.serve import connection, unread
from riyaz.serve.opening import Opener
from riyaz.serve.unread import Unread

STREAM = {"model": "tiny", "prompt": "the card", "ignore_eos": True, "stream": True, "logprobs": 20}
SHORT = {"model": "tiny", "prompt": "the order", "max_tokens": 2}
LONG = "the card " * 180
SMALL = 4096  # bytes that the client's system takes for it


@pytest.fixture
def served(model_folder: Path) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener) as server:
        yield server


def asking(server: Running, body: dict[str, Any]) -> socket.socket:
    """A client that has asked, reads nothing by itself, and for which its system reads little."""
    address, data = urlsplit(server.url), json.dumps(body).encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    client.settimeout(HANG)
    client.connect((address.hostname, address.port))
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


def rest(client: socket.socket) -> bytes:
    """What still comes, until the server has closed."""
    parts = [b""]
    with suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (unread, connection):
        monkeypatch.setattr(module, "UNREAD_SECONDS", 0.3)


def connections(server: Running) -> int:
    return len(server.server.server_state.connections)


def test_streams_that_nobody_reads_keep_no_places(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack: 16 connections of 8 answers each took all 128 places for ten minutes. Here each answer is longer, so
    that it fits neither what is kept nor what the system takes."""
    monkeypatch.setattr(unread, "UNREAD", 50_000)
    gate = Gate(served.state.opener.bases[0].lm)
    with ExitStack() as clients:
        with gate.closed():
            for _ in range(2):
                asked = {**STREAM, "n": 8, "max_tokens": 450, "prompt": LONG, "echo": True}
                clients.enter_context(asking(served, asked))
            until(lambda: served.state.open == 16, "the places are taken")
        until(lambda: served.state.open == 0, "their places are free")
        assert served.state.metrics.cancelled == 0 and connections(served) >= 2, "nobody is given up"
        assert served.idle() and served.post("/v1/completions", SHORT).status_code == 200


def test_a_stream_that_nobody_reads_is_given_up_and_its_generation_stops(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    impatient(monkeypatch)
    monkeypatch.setattr(unread, "UNREAD", 30_000)
    gate = Gate(served.state.opener.bases[0].lm)
    with asking(served, {**STREAM, "max_tokens": 900}) as client:
        with gate.closed(500):
            until(lambda: served.state.metrics.cancelled == 1, "it is given up")
            until(lambda: not served.state.engine._inbox.empty(), "the engine is told")
        until(served.idle, "nothing is left of it")
        assert gate.steps == 501 and served.state.metrics.generation_tokens > 10
        until(lambda: connections(served) == 0, "the connection is closed")
        assert not rest(client).endswith(b"0\r\n\r\n"), "it is no whole stream"
    assert caplog.records == []


def test_who_reads_a_little_now_and_then_is_given_up(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    impatient(monkeypatch)
    with asking(served, {**STREAM, "n": 4, "max_tokens": 300}) as client, suppress(ConnectionResetError):
        until(lambda: not client.recv(100) or served.state.metrics.cancelled, "it is given up")
    until(lambda: served.state.metrics.cancelled == 1 and connections(served) == 0, "the connection is closed")
    until(served.idle, "nothing is left of it")
    assert caplog.records == []


def test_an_answer_in_one_piece_that_nobody_reads_is_given_up(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    whole = {**STREAM, "stream": False, "echo": True, "max_tokens": 0, "prompt": [LONG] * 32}
    with asking(served, whole) as client:
        assert client.recv(17) == b"HTTP/1.1 200 OK\r\n" and served.state.open == 0
        until(lambda: connections(served) == 0, "the connection is closed")


def test_who_reads_slowly_has_the_same_answer(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unread is bounded meanwhile, so the events wait to be made."""
    asked = {**STREAM, "max_tokens": 150, "n": 4, "seed": 3, "temperature": 0.8}
    wanted = texts(served.post("/v1/completions", asked).content)
    monkeypatch.setattr(unread, "UNREAD", 5000)
    most: list[int] = []
    change = Unread._change

    async def counted(self: Unread) -> None:
        most.append(self._bytes)
        await change(self)

    monkeypatch.setattr(Unread, "_change", counted)
    parts = []
    with asking(served, asked) as client:
        until(lambda: max(most, default=0) > 5000, "more is unread than may be")
        while not b"".join(parts[-3:]).endswith(b"0\r\n\r\n"):
            parts.append(client.recv(8000))
            assert parts[-1], "the server has closed"
    assert texts(b"".join(parts)) == wanted and len(wanted) == 600
    assert 5000 < max(most) < 5000 + 4000, "one event more than may be unread"


def texts(stream: bytes) -> list[tuple[int, str, Any]]:
    lines = [line.removeprefix("data: ") for line in stream.decode().splitlines() if line.startswith('data: {"id')]
    choices = [json.loads(line)["choices"][0] for line in lines]
    return sorted(((each["index"], each["text"], each["logprobs"]) for each in choices), key=lambda each: each[0])


def test_events_without_end_are_taken_as_far_as_the_bound() -> None:
    made = 0

    async def events() -> AsyncGenerator[str, None]:
        nonlocal made
        while True:
            made += 1
            yield "x" * 1000

    async def taken() -> None:
        kept = Unread(events())
        filling = asyncio.ensure_future(kept.fill())
        for _ in range(2 * unread.UNREAD // 1000):
            await asyncio.sleep(0)
        assert made == 1 + unread.UNREAD // 1000 and 0 < kept.patience < unread.UNREAD_SECONDS
        sent = kept.sent()
        for _ in range(3000):
            assert await anext(sent) == "x" * 1000
            await asyncio.sleep(0)
        assert 3000 < made < 3000 + 2 + unread.UNREAD // 1000
        filling.cancel()

    asyncio.run(taken())


def test_what_goes_wrong_while_events_are_made_is_raised_behind_them() -> None:
    async def events() -> AsyncGenerator[str, None]:
        yield "one"
        yield "two"
        raise ZeroDivisionError

    async def read() -> None:
        kept, seen = Unread(events()), []
        filling = asyncio.ensure_future(kept.fill())
        with pytest.raises(ZeroDivisionError):
            async for event in kept.sent():
                seen.append(event)
        await filling
        assert seen == ["one", "two"]

    asyncio.run(read())
