"""What clients without a key can make the server do: bodies without end, heads that never come, and what others see."""

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

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
