"""What clients without a key can make the server do: bodies without end, heads that never come, and what others see."""

import asyncio
import gc
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import httpx
import pytest
from live_server import Running, running
from loop_turns import turns
from waiting import HANG, until

from riyaz.serve import connection
from riyaz.serve.opening import Opener
from riyaz.serve.server import Server

KEY = "a-key-of-the-test-0123"
CHUNKS = b"1\r\nx\r\n" * 10_000
HEAD = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n{}\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
CALLS = 3000  # of functions in a turn of the event loop: 1,200 begin some requests, 28,000 parse 4,096 bytes of CHUNKS


@pytest.fixture(scope="module")
def guarded(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, api_key_file=keys, max_body_mb=1, drain=HANG) as server:
        yield server


def connected(server: Running) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=HANG)


def health_of(client: socket.socket) -> bytes:
    """The answer to a first request; the connection stays open."""
    client.sendall(HEALTH)
    told = b""
    while not told.endswith(b"}"):
        told += client.recv(65536)
        assert told, "the server has closed"
    return told


def answer_to(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [("/v1/completions", "", 401), ("/nothing", f"X-Api-Key: {KEY}\r\n", 404), ("/health", "", 405)],
)  # fmt: skip
def test_a_body_without_end_is_answered_and_closed(guarded: Running, path: str, header: str, status: int) -> None:
    with connected(guarded) as client:
        client.sendall(HEAD.format(path, header).encode() + CHUNKS)
        told = answer_to(client)
    assert told.startswith(f"HTTP/1.1 {status} ".encode()) and b"\r\nconnection: close\r\n" in told.lower()


def test_what_others_wait_while_strangers_send_bodies_without_end(guarded: Running) -> None:
    """A turn of the event loop, in which the chunks of strangers were parsed."""
    over, sent = threading.Event(), list[int]()

    def attack() -> None:
        while not over.is_set():
            with connected(guarded) as client:
                try:
                    client.sendall(HEAD.format("/v1/completions", "").encode() + CHUNKS)
                    while not over.is_set():
                        client.sendall(CHUNKS)
                        sent.append(len(CHUNKS))
                except OSError:  # the server has closed
                    continue

    attackers = [threading.Thread(target=attack) for _ in range(4)]
    with turns(guarded) as counted:
        for each in attackers:
            each.start()
        try:
            until(
                lambda: guarded.http.get("/health").status_code == 200 and sum(sent) > 4_000_000, "megabytes are sent"
            )
        finally:
            over.set()
            for each in attackers:
                each.join()
    assert counted.most < CALLS


def test_the_rest_of_a_refused_body_goes_by_in_large_pieces(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """4,096 bytes at a time bodies of strangers took so many turns that completions of others waited for .7 s."""
    read: list[int] = []
    whole = connection.Connection.data_received

    def counted(made: connection.Connection, piece: bytes) -> None:
        read.append(len(piece))
        whole(made, piece)

    monkeypatch.setattr(connection.Connection, "data_received", counted)
    body = b"x" * 12_000_000
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with connected(guarded) as client:
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        assert answer_to(client).startswith(b"HTTP/1.1 401 ")
        until(lambda: sum(read) > len(body), "the whole body goes by")
    assert len(read) < 1000


@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\nHost: local", b"G"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_head_that_does_not_come_ends_the_connection(
    guarded: Running, begun: bytes, earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else ends it: the test would hang."""
    if not begun:  # of a further request; then uvicorn's own limit closes
        monkeypatch.setattr(guarded.server.config, "timeout_keep_alive", 0.1)
    if not earlier:
        monkeypatch.setattr(connection, "HEAD", 0.1)
    with connected(guarded) as client:
        if earlier:
            assert health_of(client).startswith(b"HTTP/1.1 200")
            monkeypatch.setattr(connection, "HEAD", 0.1)
        client.sendall(begun)
        assert answer_to(client) == b""


def test_a_head_may_come_in_pieces_and_a_connection_is_used_again(
    guarded: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole_read = connection.Connection.data_received

    def counted(made: connection.Connection, piece: bytes) -> None:
        whole_read(made, piece)
        read.append(len(piece))

    monkeypatch.setattr(connection.Connection, "data_received", counted)
    request = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {KEY}\r\nContent-Type: application/json\r\n"
    body = b'{"model": "tiny", "prompt": "%s"}' % (b"the order " * 2000)
    whole = f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with connected(guarded) as client:
        for _ in range(3):
            read.clear()
            for place in (1, 60, *range(1500, len(whole), 1500), len(whole)):
                client.sendall(whole[sum(read) : place])
                until(lambda place=place: sum(read) == place, "the piece is read")  # type: ignore[misc]
            told = client.recv(4)
            while not told.endswith(b"}"):
                told += client.recv(65536)
            assert told.startswith(b"HTTP/1.1 200 ") and b"connection: close" not in told.lower()


def test_a_client_that_sends_first_and_reads_then_sees_why_it_is_refused(guarded: Running) -> None:
    def large() -> Iterator[bytes]:
        for _ in range(80):
            yield b" " * 100_000

    headers = {"content-type": "application/json", "x-api-key": KEY}
    with httpx.Client(base_url=guarded.url, timeout=HANG) as client:
        assert client.post("/v1/completions", content=large(), headers=headers).status_code == 413
        assert client.post("/v1/completions", content=large()).status_code == 401


@pytest.mark.parametrize(
    ("lines", "size", "status"),
    [(90, 10_000, 200), (102, 10, 431), (3000, 10, 431), (1, connection.HEAD_BYTES, 431), (1, 2_000_000, 431)],
)
def test_a_head_is_bounded_before_it_is_read(guarded: Running, lines: int, size: int, status: int) -> None:
    fields = "".join(f"X-{place}: y\r\n" for place in range(lines - 1)) + f"X-Long: {'x' * size}\r\n"
    with connected(guarded) as client:
        client.sendall(f"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n".encode())
        told = answer_to(client)
    assert told.startswith(f"HTTP/1.1 {status} ".encode())
    if status == 431:
        assert told.endswith(b"a head has at most 16,384 bytes and 100 lines")


def test_what_is_no_head_is_refused_at_once(guarded: Running) -> None:
    for first in (b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b" GET / HTTP/1.1\r\n\r\n", b"GET  \r\n\r\n"):
        with connected(guarded) as client:
            client.sendall(first)
            assert answer_to(client).startswith(b"HTTP/1.1 400 "), first


def test_a_client_that_goes_while_it_is_refused_is_no_error(
    guarded: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone: list[connection._Closing] = []
    ended = threading.Event()
    with connected(guarded) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it resets as it closes
        write, lost = connection._Closing.__getattr__, connection.Connection.connection_lost

        def wrote(transport: connection._Closing, name: str) -> Any:
            if name == "write_eof":
                gone.append(transport)
                client.close()
            return write(transport, name)

        def is_lost(self: connection.Connection, exc: Exception | None) -> None:
            lost(self, exc)
            if self.transport in gone:
                ended.set()

        monkeypatch.setattr(connection._Closing, "__getattr__", wrote)
        monkeypatch.setattr(connection.Connection, "connection_lost", is_lost)
        client.sendall(b"GET /health HTTP/1.1\r\nX: " + b"x" * connection.HEAD_BYTES)
        assert ended.wait(HANG), "the connection ends"
    assert "not connected" not in caplog.text and "Traceback" not in caplog.text
    assert guarded.http.get("/health").status_code == 200


@pytest.mark.parametrize("length", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_no_body_is_read_before_the_key_is_checked(
    guarded: Running, length: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies in many small pieces took the time of the others, although nobody asked for them."""
    read: list[int] = []
    receive = h11.Connection.receive_data

    def counted(self: h11.Connection, data: bytes) -> None:
        if self.our_role is h11.SERVER:
            read.append(len(data))
        receive(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", counted)
    for key, status in ((KEY, 400), ("no key", 401)):
        head = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n{length}\r\nConnection: close\r\n"
        whole = f"{head}Content-Type: application/json\r\n\r\n".encode()
        body = b"1\r\n[\r\n" * 1000 + b"0\r\n\r\n" if "chunked" in length else b"[" * 1_000_000
        read.clear()
        with connected(guarded) as client:
            client.sendall(whole + body)
            assert answer_to(client).startswith(f"HTTP/1.1 {status} ".encode()) or status == 400
        assert (sum(read) == len(whole)) is (status == 401), (key, sum(read))


def test_a_request_that_gives_its_length_twice_is_the_last_of_its_connection(guarded: Running) -> None:
    """RFC 9112, section 6.3: what follows such a request may be read otherwise by a proxy before the server."""
    both = "GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with connected(guarded) as client:
        client.sendall(both.encode() + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = answer_to(client)
    assert told.count(b"HTTP/1.1 200 ") == 1 and b"\r\nconnection: close\r\n" in told.lower()


def test_a_new_connection_takes_the_place_of_the_one_that_waits_longest(
    guarded: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared,) = guarded.server.config.http.args  # type: ignore[union-attr]
    assert guarded.http.get("/health").status_code == 200
    monkeypatch.setattr(shared, "most", 3)
    with connected(guarded) as first, connected(guarded) as second, connected(guarded) as third:
        for client in (second, third, first):
            health_of(client)
        with connected(guarded) as fourth:
            fourth.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert answer_to(fourth).startswith(b"HTTP/1.1 200 ")
            assert answer_to(second) == b"", "it has waited longest"
        first.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer_to(first).startswith(b"HTTP/1.1 200 ")
    monkeypatch.setattr(shared, "enter", lambda made: False)
    with connected(guarded) as refused:
        assert answer_to(refused).startswith(b"HTTP/1.1 503 ")


def test_nothing_refers_to_a_connection_that_is_closed(guarded: Running) -> None:
    """What refers to itself or is waited for stays until the next collection of all objects, while which all wait."""

    def left() -> int:
        return sum(isinstance(each, connection.Connection) for each in gc.get_objects())

    gc.collect()
    before = left()
    gc.disable()
    try:
        for request in (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"G", b"\r\n\r\n", b""):
            for close in (True, False):
                with connected(guarded) as client:
                    client.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if close else request)
                    if close and request:
                        client.shutdown(socket.SHUT_WR)
                        answer_to(client)
                    elif len(request) > 4:
                        client.recv(65536)
        until(lambda: left() <= before, "no connection of these is left")
    finally:
        gc.enable()


def test_a_request_that_waits_to_be_read_when_the_server_closes_is_refused(
    guarded: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was lost: its connection was closed."""
    (shared,) = guarded.server.config.http.args  # type: ignore[union-attr]
    held: list[connection.Connection] = []
    monkeypatch.setattr(shared, "take", lambda made, head: held.append(made))
    loop = guarded.state.engine._loop
    assert loop is not None
    with connected(guarded) as whole, connected(guarded) as part, connected(guarded) as idle:
        whole.sendall(HEALTH)
        part.sendall(HEALTH[:-2])
        until(lambda: held, "the head waits")
        made = guarded.server.server_state.connections
        until(lambda: sum(bool(each._held) for each in made) == 2, "both are there")  # type: ignore[union-attr]
        port = idle.getsockname()[1]
        for each in [each for each in made if each._held or each.client[1] == port]:  # type: ignore[union-attr,index]
            loop.call_soon_threadsafe(each.shutdown)
        for client in (whole, part):
            assert answer_to(client).startswith(b"HTTP/1.1 503 ")
        assert answer_to(idle) == b""


def test_what_came_while_the_server_stood_still_is_read_before_it_closes(guarded: Running) -> None:
    (shared,) = guarded.server.config.http.args  # type: ignore[union-attr]
    other, loop = Server(guarded.server.config, guarded.state, shared), guarded.state.engine._loop
    other.should_exit = True
    assert loop is not None

    async def looks() -> list[bool]:
        closes = [await other.on_tick(1), await other.on_tick(2)]
        with connected(guarded) as client:  # meanwhile the loop stands still
            client.sendall(HEALTH)
            closes.append(await other.on_tick(3))
        return closes

    assert asyncio.run_coroutine_threadsafe(looks(), loop).result(HANG) == [False, True, False]
