"""Who may ask: Host, Origin, keys, bodies; and that the server lives on after each."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import KEY, Running, assert_error, running
from refusals import assert_refused
from waiting import HANG

from riyaz.config import ServeConfig
from riyaz.serve import app, guard, server
from riyaz.serve.opening import Opener

ASK = {"model": "tiny", "prompt": "the card", "max_tokens": 1}
NOT_OURS = ("evil.example", "127.0.0.1.nip.io", "localhost.evil.example", "", "[", "10.0.0.7", "evil.example@localhost")
PATHS = [route.path.replace("{name:path}", "tiny") for route in app.ROUTES]


def opener(folder: Path) -> Opener:
    made = Opener("fp32")
    made.serve(str(folder))
    return made


@pytest.fixture(scope="module")
def served(model_folder: Path) -> Iterator[Running]:
    with running(opener(model_folder)) as found:
        yield found


@pytest.fixture(scope="module")
def locked(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"another-key-0123456789\n{KEY}\n")
    with running(opener(model_folder), api_key_file=keys, allow_host=("models.example",)) as found:
        yield found


@pytest.mark.parametrize("host", NOT_OURS)
def test_another_host_is_refused_on_every_route(served: Running, host: str) -> None:
    for path in PATHS:
        found = assert_error(served.http.get(path, headers={"host": host}), 403)
        assert found["code"] == "forbidden_host"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:80", "LOCALHOST"])
def test_this_machines_names_are_known(served: Running, host: str) -> None:
    assert served.http.get("/version", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost"])
def test_pages_of_other_origins_are_refused(served: Running, origin: str) -> None:
    answer = served.http.post("/v1/completions", json=ASK, headers={"origin": origin})
    assert assert_error(answer, 403)["code"] == "forbidden_origin"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = {"origin": origin, "access-control-request-method": "POST"}
    assert_error(served.http.options("/v1/completions", headers=asked), 403)
    assert served.http.post("/v1/completions", json=ASK, headers={"origin": served.url}).status_code == 200


def test_without_a_key_only_health_answers(locked: Running) -> None:
    for path in [*PATHS, "/nothing", "/v1/models/../health", "//health", "/health/"]:
        if path != "/health":
            found = assert_error(locked.http.get(path), 401)
            assert found["type"] == "authentication_error"
    assert locked.http.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {KEY}"}, 200), ({"authorization": f"bearer  {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
        ({"x-api-key": "another-key-0123456789"}, 200), ({"authorization": KEY}, 401), ({"x-api-key": KEY[:-1]}, 401),
        ({"authorization": "Bearer"}, 401), ({"authorization": "Bearer x", "x-api-key": KEY}, 401),
        ({"host": "models.example", "x-api-key": KEY}, 200), ({"host": "evil.example", "x-api-key": KEY}, 403),
    ],
)  # fmt: skip
def test_both_headers_go_through_one_check(locked: Running, headers: dict[str, str], status: int) -> None:
    assert locked.http.get("/v1/models", headers=headers).status_code == status


OTHER = "https://shop.example"


@pytest.fixture(scope="module")
def open_to_others(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("others") / "keys.txt"
    keys.write_text(f"{KEY}\n")
    with running(opener(model_folder), api_key_file=keys, allow_origin=(OTHER, "http://localhost:3000")) as found:
        yield found


def test_a_named_origin_is_answered_before_it_sends_a_key(open_to_others: Running) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    for path in PATHS:
        answer = open_to_others.http.options(path, headers={"origin": OTHER, **asked})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == OTHER
        assert answer.headers["access-control-allow-headers"] == asked["access-control-request-headers"]
        assert "POST" in answer.headers["access-control-allow-methods"] and "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in answer.headers
    for origin in "https://evil.example", f"{OTHER}.evil.example", "null", "*":
        answer = open_to_others.http.options("/v1/completions", headers={"origin": origin, **asked})
        assert_error(answer, 403)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_named_origin_reads_answers_and_errors(open_to_others: Running) -> None:
    answer = open_to_others.http.post("/v1/completions", json=ASK, headers={"origin": OTHER})
    assert_error(answer, 401)
    assert answer.headers["access-control-allow-origin"] == OTHER
    headers = {"origin": OTHER, "x-api-key": KEY}
    for more, status in ({}, 200), ({"stream": True}, 200), ({"max_tokens": -1}, 400):
        answer = open_to_others.http.post("/v1/completions", json=ASK | more, headers=headers)
        assert answer.status_code == status and answer.headers["access-control-allow-origin"] == OTHER
        assert answer.headers["access-control-expose-headers"] == "*"
    alone = open_to_others.http.post("/v1/completions", json=ASK, headers={"x-api-key": KEY})
    assert "access-control-allow-origin" not in alone.headers


@pytest.mark.parametrize(
    "origin", ["*", "null", "example.org", "https://example.org/", "https://example.org/app", "https://example.org:443",
               "http://a.org:80", "HTTPS://example.org", "https://Example.org", "https://a@example.org", "https://[::1",
               "https://example.org:99999", "https://", "file://"],
)  # fmt: skip
def test_an_origin_that_no_browser_sends_is_refused_at_start(origin: str) -> None:
    with assert_refused("--allow-origin:", "is not an origin as browsers send it"):
        server.bound(ServeConfig(port=0, allow_origin=("https://example.org", origin)))


def test_origins_of_apps_and_ports_are_taken() -> None:
    for origin in "https://example.org", "http://localhost:3000", "http://[::1]:8080", "chrome-extension://abcdef":
        with server.bound(ServeConfig(port=0, allow_origin=(origin,))) as listening:
            assert listening.getsockname()[1] > 0


def test_an_address_that_others_reach_needs_a_key(tmp_path: Path) -> None:
    with assert_refused("--host: 0.0.0.0 can be reached from other machines, and there is no key; give --api-key-file"):
        server.bound(ServeConfig(host="0.0.0.0", port=0))
    with assert_refused("holds 0 keys"):
        empty = tmp_path / "keys.txt"
        empty.write_text("\n\n")
        guard.read_keys(empty)
    with assert_refused("holds a key that can be guessed"):
        empty.write_text("secret\n")
        guard.read_keys(empty)
    with assert_refused("cannot be read (No such file or directory)"):
        guard.read_keys(tmp_path / "absent")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b'"x"', 400), (b"null", 400), (b"\xff\xfe", 400), (b"[" * 100_000, 400),
        (b'{"model": NaN}', 400), (b'{"temperature": 1e999, "model": "tiny", "prompt": "a"}', 400),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400), (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
        (b'{"model": "tiny", "prompt": "\\ud800", "max_tokens": 1}', 200), (b" " * 3_000_000, 413),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_one_line(served: Running, body: bytes, status: int) -> None:
    answer = served.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    if status != 200:
        assert_error(answer, status)
    assert served.post("/v1/completions", ASK).status_code == 200


def test_a_body_without_a_length_is_read_up_to_the_limit(served: Running) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    answer = served.http.post("/v1/completions", content=endless(), headers={"content-type": "application/json"})
    assert_error(answer, 413)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_read(served: Running, kind: str) -> None:
    """A page of another origin may send other types without asking first."""
    assert_error(served.http.post("/v1/completions", content=json.dumps(ASK), headers={"content-type": kind}), 415)


def test_other_methods_and_paths_have_the_error_body(served: Running) -> None:
    assert assert_error(served.http.get("/v1/chat/completions"), 405)["code"] == "method_not_allowed"
    for path, methods in (("/v1/adapters", "GET, HEAD, POST"), ("/v1/adapters/a", "DELETE"), ("/health", "GET, HEAD")):
        response = served.http.request("PATCH", path)
        assert assert_error(response, 405)["message"] == f"PATCH {path}: Method Not Allowed"
        assert response.headers["allow"] == methods
    for path in ("/nothing", "/v1", "/%2e%2e/etc/passwd", "/v1/models/..%2f..%2fetc"):
        assert_error(served.http.get(path), 404)


@pytest.mark.parametrize("data", [b"\0\1\2\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 100_000])
def test_what_is_no_http_ends_its_connection_only(served: Running, data: bytes) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=HANG) as raw:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(4096):
            pass
    assert served.http.get("/health").status_code == 200
