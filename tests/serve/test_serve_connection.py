"""What clients without a key can make the server do: bodies without end, heads that never come, and what others see."""

import gc
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import httpx
import pytest
from live_server import Running, running

from riyaz.serve import connection
from riyaz.serve.opening import Opener

KEY = "a-key-of-the-test-0123"
CHUNKS = b"1\r\nx\r\n" * 10_000
HEAD = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n{}\r\n"
LATE = 0.25  # seconds by which a stranger may delay another client


@pytest.fixture(scope="module")
def guarded(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, api_key_file=keys, max_body_mb=1) as server:
        yield server


def connected(server: Running) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


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
    over, sent = threading.Event(), list[int]()

    def attack() -> None:
        while not over.is_set():
            with connected(guarded) as client:
                try:
                    client.sendall(HEAD.format("/v1/completions", "").encode())
                    while not over.is_set():
                        client.sendall(CHUNKS)
                        sent.append(len(CHUNKS))
                except OSError:  # the server has closed
                    continue

    attackers = [threading.Thread(target=attack) for _ in range(4)]
    for each in attackers:
        each.start()
    waited = []
    try:
        for _ in range(40):
            began = time.perf_counter()
            assert guarded.http.get("/health").status_code == 200
            waited.append(time.perf_counter() - began)
            time.sleep(0.05)
    finally:
        over.set()
        for each in attackers:
            each.join()
    assert statistics.quantiles(waited, n=100)[98] < LATE and sum(sent) > 1_000_000, (max(waited), sum(sent))


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
        until = time.monotonic() + 5
        while sum(read) < len(body) and time.monotonic() < until:
            time.sleep(0.02)
    assert sum(read) > len(body) and len(read) < 1000, (sum(read), len(read))


@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\nHost: local", b"G"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_head_that_does_not_come_ends_the_connection(
    guarded: Running, begun: bytes, earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD", 0.5)
    with connected(guarded) as client:
        if earlier:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            told = client.recv(65536)
            while not told.endswith(b"}"):
                told += client.recv(65536)
            assert told.startswith(b"HTTP/1.1 200")
        client.sendall(begun)
        began = time.monotonic()
        assert answer_to(client) == b""
    assert time.monotonic() - began < 7  # without a byte of a further request uvicorn closes after 5 s


def test_a_head_may_come_in_pieces_and_a_connection_is_used_again(guarded: Running) -> None:
    request = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {KEY}\r\nContent-Type: application/json\r\n"
    body = b'{"model": "tiny", "prompt": "%s"}' % (b"the order " * 2000)
    whole = f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with connected(guarded) as client:
        for _ in range(3):
            for place in range(0, len(whole), 1500):
                client.sendall(whole[place : place + 1500])
                time.sleep(0.002)
            told = client.recv(4)
            while not told.endswith(b"}"):
                told += client.recv(65536)
            assert told.startswith(b"HTTP/1.1 200 ") and b"connection: close" not in told.lower()


def test_a_client_that_sends_first_and_reads_then_sees_why_it_is_refused(guarded: Running) -> None:
    def large() -> Iterator[bytes]:
        for _ in range(80):
            yield b" " * 100_000

    headers = {"content-type": "application/json", "x-api-key": KEY}
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
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
        assert ended.wait(5), "the connection ends"
    assert "not connected" not in caplog.text and "Traceback" not in caplog.text
    assert httpx.get(f"{guarded.url}/health").status_code == 200


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
        head = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n{length}\r\n"
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
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = client.recv(65536)
            while not answer.endswith(b"}"):
                answer += client.recv(65536)
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
        until = time.monotonic() + 2
        while left() > before and time.monotonic() < until:
            time.sleep(0.05)
        assert left() <= before
    finally:
        gc.enable()
