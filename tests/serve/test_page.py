"""The page's server side: its files, its token, its folder, the next word, uploads and votes."""

import asyncio
import errno
import json
import math
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import KEY, Running, assert_error, running
from waiting import HANG, until

from riyaz import files
from riyaz.predictor import open_model
from riyaz.serve import http
from riyaz.serve.opening import Opener
from riyaz.serve.page import routes, static
from riyaz.serve.page.place import Page
from riyaz.serve.page.votes import standings
from riyaz.serve.problems import Problem

TEXT = "the card"
PATHS = [route.path for route in routes.ROUTES if route.path.startswith("/page/")]
OUTSIDE = ("..", "../", "/etc/passwd", "a/../../x", "link", "link/x", "nul\0", "x" * 5000, "..\\x", "%2e%2e", "loop")
NOT_NAMES = ("", "../x", "a/b", "a\\b", ".hidden", "..", "c:x", "a\nb", "a\0b", "ü" * 150)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A folder with a model, a data file, a link that leads out of it and one that leads to itself."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(model_folder, folder / "tiny")
    (folder / "rows.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    (folder / ".secret").write_text("x")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x").write_text("secret")
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture(scope="module")
def page(place: Path) -> Page:
    return Page.of(place, "riyaz ui")


@pytest.fixture(scope="module")
def served(place: Path, page: Page) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(place / "tiny"))
    with running(opener, page=page, max_upload_mb=1.0) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


def test_the_page_needs_no_token_and_allows_nothing_from_elsewhere(
    served: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = tmp_path / "static"
    (built / "assets").mkdir(parents=True)
    (built / "index.html").write_text("<!doctype html>")
    (built / "assets/index-a1.js").write_text("export {}")
    (built / "secret.js").write_text("")
    monkeypatch.setattr(static, "BUILT", built)
    index = httpx.get(served.url, timeout=HANG)
    assert index.status_code == 200 and index.text == "<!doctype html>"
    policy = index.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert index.headers["cache-control"] == "no-cache" and index.headers["x-content-type-options"] == "nosniff"
    script = httpx.get(f"{served.url}/assets/index-a1.js", timeout=HANG)
    assert (
        script.headers["content-type"].startswith("text/javascript") and script.headers["cache-control"] == "no-cache"
    )
    wrong = ("/assets/none.js", "/assets/..%2fsecret.js", "/assets/.js", "/assets/", "/index.html")
    for path in (*wrong, "/assets/" + "x" * 3000):
        assert_error(httpx.get(served.url + path, timeout=HANG), 404)


def test_a_checkout_without_the_built_files_says_so(
    served: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(static, "BUILT", tmp_path)
    answer = httpx.get(served.url, timeout=HANG)
    assert answer.status_code == 503 and answer.text == static.NOT_BUILT and answer.text.count("\n") == 1


@pytest.mark.parametrize("token", [None, "", "wrong", KEY, "ü"])
def test_without_the_token_nothing_of_the_page_is_read_or_written(served: Running, token: str | None) -> None:
    headers = {} if token is None else {"x-riyaz-token": token.encode()}
    for path in [*PATHS, "/page/", "/page/none"]:
        for method in ("GET", "POST"):
            found = assert_error(httpx.request(method, served.url + path, headers=headers, timeout=HANG), 401)
            assert found["code"] == "invalid_token" and "open the link that the server printed" in found["message"]


def test_the_token_comes_after_host_and_origin(served: Running) -> None:
    assert_error(served.http.get("/page/info", headers={"host": "evil.example"}), 403)
    assert_error(served.http.get("/page/info", headers={"origin": "http://evil.example"}), 403)
    assert_error(served.http.get("/", headers={"host": "evil.example"}), 403)


def test_the_token_is_a_key_and_a_key_is_no_token(place: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(KEY)
    page = Page.of(place)
    with running(Opener(), page=page, api_key_file=keys) as found:
        get = found.http.get
        assert get("/v1/models", headers={"x-api-key": page.token}).json()["data"] == []
        assert get("/v1/models", headers={"authorization": f"Bearer {page.token}"}).status_code == 200
        assert_error(get("/v1/models", headers={"x-api-key": page.token[:-1]}), 401)
        assert_error(get("/page/info", headers={"x-api-key": KEY}), 401)
        assert get("/", headers={}).status_code in (200, 503)
        assert_error(found.post("/tokenize", {"prompt": "a"}, headers={"x-api-key": KEY}), 404)


def test_a_server_without_the_page_has_none(place: Path) -> None:
    with running(Opener()) as found:
        for path in ("/", "/page/info", "/assets/a.js"):
            assert_error(found.http.get(path), 404)


def test_info_says_what_is_served_and_what_is_free(served: Running, place: Path) -> None:
    found = served.http.get("/page/info").json()
    (model,) = found["models"]
    assert (model["id"], model["base"], model["kind"], model["method"]) == ("tiny", None, "generated", None)
    assert (
        model["context"] == served.state.shelf.find("tiny").predictor.context
        and found["folder"] == place.name
        and found["command"] == "riyaz ui"
    )
    assert found["limits"]["upload_bytes"] == 2**20 and found["resources"].keys() >= {"memory_free", "disk_free"}


def test_info_answers_while_models_are_loaded(place: Path, page: Page) -> None:
    wait, opener = threading.Event(), Opener("fp32")
    with running(opener, lambda: (wait.wait(HANG), None)[1], page=page) as found:
        headers = {"x-riyaz-token": page.token}
        assert found.http.get("/page/info", headers=headers).json()["loaded"] is False
        assert found.http.get("/page/files", headers=headers).status_code == 200
        assert_error(found.post("/page/next", {"model": "tiny", "text": TEXT}, headers=headers), 503)
        wait.set()


def test_the_next_word_is_the_librarys(served: Running, place: Path) -> None:
    found = served.post("/page/next", {"model": "tiny", "text": TEXT, "top": 5}).json()
    model = open_model(place / "tiny", "fp32")
    ids = [*model.tokenizer.beginning, *model.tokenizer.encode(TEXT)]
    assert [each["id"] for each in found["tokens"]] == ids
    wanted = model.lm.next_tokens(ids, model.lm.runner.vocab_size)
    assert [each["id"] for each in found["candidates"]] == [token for token, _ in wanted[:5]]
    assert [each["logprob"] for each in found["candidates"]] == pytest.approx([p for _, p in wanted[:5]], abs=1e-4)
    assert found["entropy"] == pytest.approx(-sum(math.exp(p) * p for _, p in wanted), abs=1e-3)
    assert (found["layers"], found["width"]) == (2, 64) and found["vocabulary"] == model.lm.runner.vocab_size
    for entry in found["sums"]:  # a slider's temperature: the probabilities add up to one
        total = sum(math.exp(p / entry["temperature"] - entry["sum"]) for _, p in wanted)
        assert total == pytest.approx(1, abs=1e-3), entry
    assert [entry["temperature"] for entry in found["sums"]][:2] == [0.1, 0.15] and found["sums"][-1][
        "temperature"
    ] == 2


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"model": "gone", "text": TEXT}, 404, "there is no model 'gone'"),
        ({"model": "tiny"}, 400, "text: is missing"), ({"model": "tiny", "text": ""}, 400, "text"),
        ({"model": "tiny", "text": "a " * 9000}, 400, "context"),
        ({"model": "tiny", "text": "a", "top": 0}, 400, "top"),
        ({"model": "tiny", "text": "a", "top": 9999}, 400, "top"),
    ],
)  # fmt: skip
def test_a_next_word_that_cannot_be_asked_is_one_line(
    served: Running, body: dict[str, Any], status: int, says: str
) -> None:
    assert says in assert_error(served.post("/page/next", body), status)["message"]


def test_a_model_deleted_while_it_is_open_answers_on(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "tiny", tmp_path / "tiny")
    page, opener = Page.of(tmp_path), Opener("fp32")
    opener.serve(str(tmp_path / "tiny"))
    with running(opener, page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        before = found.post("/page/next", {"model": "tiny", "text": TEXT}).json()
        shutil.rmtree(tmp_path / "tiny")
        assert found.post("/page/next", {"model": "tiny", "text": TEXT}).json() == before
        assert [model["id"] for model in found.http.get("/page/info").json()["models"]] == ["tiny"]


def test_the_folder_is_listed_without_hidden_files_and_ways_out(served: Running) -> None:
    found = served.http.get("/page/files").json()
    named = {entry["name"]: entry["kind"] for entry in found["entries"] if entry["name"] != "uploads"}
    assert named == {"tiny": "model", "rows.jsonl": "data"} and found["folder"] == "." and found["more"] == 0
    inner = served.http.get("/page/files", params={"under": "tiny"}).json()
    assert "tiny/config.json" in [entry["path"] for entry in inner["entries"]]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_folder(served: Running, name: str) -> None:
    found = assert_error(served.http.get("/page/files", params={"under": name}), 404)
    assert found["message"].endswith("in the page's folder") and found["param"] == "under"


def test_a_file_is_no_folder(served: Running) -> None:
    assert_error(served.http.get("/page/files", params={"under": "rows.jsonl"}), 400)


def test_an_upload_becomes_a_file_once(served: Running, place: Path) -> None:
    params = {"name": "Übung 1.csv"}
    made = served.http.post("/page/files", params=params, content=b"a,b\n1,2\n")
    assert made.status_code == 201 and made.json() == {"path": "uploads/Übung 1.csv", "kind": "data", "bytes": 8}
    assert (place / "uploads/Übung 1.csv").read_bytes() == b"a,b\n1,2\n"
    assert_error(served.http.post("/page/files", params=params, content=b"x"), 409)
    assert served.http.post("/page/files", params={**params, "replace": "true"}, content=b"new").status_code == 201
    assert (place / "uploads/Übung 1.csv").read_bytes() == b"new"


@pytest.mark.parametrize("name", NOT_NAMES)
def test_an_upload_has_a_plain_name(served: Running, name: str) -> None:
    assert_error(served.http.post("/page/files", params={"name": name}, content=b"x"), 400)


def test_a_huge_upload_is_refused_before_and_while_it_comes(served: Running, place: Path) -> None:
    told = assert_error(served.http.post("/page/files", params={"name": "huge"}, content=b"x" * (2**20 + 1)), 413)
    assert "at most 1 MB are taken (--max-upload-mb)" in told["message"]

    def unsized() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 2**16

    assert_error(served.http.post("/page/files", params={"name": "huge"}, content=unsized()), 413)
    assert not [path.name for path in (place / "uploads").iterdir() if "huge" in path.name], "nothing is kept"


def test_two_uploads_of_one_name_do_not_mix(served: Running, place: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"first "
        begun.set()
        go.wait(HANG)
        yield b"whole"

    answers: list[httpx.Response] = []
    headers = {"x-riyaz-token": served.http.headers["x-riyaz-token"]}
    url = f"{served.url}/page/files?name=both"
    post = lambda: answers.append(httpx.post(url, content=slow(), headers=headers, timeout=HANG))  # noqa: E731
    first = threading.Thread(target=post)
    first.start()
    assert begun.wait(HANG)
    until(lambda: list((place / "uploads").glob(".both.*.tmp")), "the server has begun with it")
    refused = served.http.post("/page/files", content=b"second", params={"name": "both"})
    assert "is not finished" in assert_error(refused, 409)["message"]
    go.set()
    first.join()
    assert answers[0].status_code == 201 and (place / "uploads/both").read_bytes() == b"first whole"


def begun_upload(served: Running, name: str, size: int) -> socket.socket:
    """A connection on which a file of so many bytes is to come."""
    address = urlsplit(served.url)
    client = socket.create_connection((address.hostname, address.port), timeout=HANG)
    head = f"POST /page/files?name={name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n"
    client.sendall(f"{head}X-Riyaz-Token: {served.http.headers['x-riyaz-token']}\r\n\r\n".encode())
    return client


def test_an_upload_that_hardly_comes_is_given_up(served: Running, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte now and then kept a connection and a half-written file for ever."""
    with begun_upload(served, "drip", 500_000) as client:
        client.sendall(b"x" * 1000)
        until(lambda: list((place / "uploads").glob(".drip.*.tmp")), "the server has begun with it")
        monkeypatch.setattr(http, "READING", 0.1)
        told = b""
        client.sendall(b"x")  # from here on the server waits for so long, and nothing comes
        while b"too slowly" not in told:  # head and body may come one after the other
            told += client.recv(4096)
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and b"connection: close" in head.lower()
    assert b"too slowly: 1,00" in body
    assert not [path.name for path in (place / "uploads").iterdir() if "drip" in path.name], "nothing is kept"


@pytest.mark.parametrize(
    ("size", "pause", "most"),
    [
        (2000, 0.1, 30_000),  # 20 kB a second, for five times as long as a short body may take
        (800, 0.1, 12_000),
        (600, 0.1, 7200),  # 6 kB a second
        (1, 0.2, 2),  # a byte now and then
    ],
)
def test_a_body_may_take_long_where_it_comes(
    size: int, pause: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, came = [7.0], list[bytes]()
    monkeypatch.setattr(http, "READING", 0.3)
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(15):
            now[0] += pause
            yield b"x" * size

    async def read() -> None:
        async for part in http.incoming(SimpleNamespace(stream=stream)):  # type: ignore[arg-type]
            came.append(part)

    if most == 15 * size:
        asyncio.run(read())
    else:
        with pytest.raises(Problem, match="the body comes too slowly"):
            asyncio.run(read())
    assert sum(map(len, came)) == most


def test_a_full_disk_is_one_line_and_keeps_nothing(
    served: Running, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    told = assert_error(served.http.post("/page/files", params={"name": "full"}, content=b"x"), 507)
    assert "the disk is full" in told["message"]
    assert not [path.name for path in (place / "uploads").iterdir() if "full" in path.name]
    vote = {"prompt": "q", "a": {"model": "m", "text": "x"}, "b": {"model": "n", "text": "y"}, "choice": "a"}
    before = (place / "preferences.jsonl").read_bytes() if (place / "preferences.jsonl").exists() else b""
    assert "the disk is full" in assert_error(served.post("/page/votes", vote), 507)["message"]
    assert (place / "preferences.jsonl").read_bytes() == before


def test_an_upload_through_a_link_is_refused(place: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/uploads").symlink_to(elsewhere)
    page = Page.of(tmp_path / "in")
    with running(Opener(), page=page) as found:
        headers = {"x-riyaz-token": page.token}
        answer = found.http.post("/page/files", params={"name": "x"}, content=b"x", headers=headers)
    assert "is a link" in assert_error(answer, 400)["message"] and not list(elsewhere.iterdir())


def test_votes_are_preference_rows_and_the_board_counts_them(served: Running, place: Path) -> None:
    path = place / "preferences.jsonl"
    path.write_text('{"prompt": "an older li')  # of a process that was killed
    sides = {"a": {"model": "one", "text": "yes"}, "b": {"model": "two", "text": "no"}}
    for choice in ("a", "a", "b", "tie"):
        assert served.post("/page/votes", {"prompt": "q", **sides, "choice": choice}).status_code == 201
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert [(row.get("chosen"), row.get("rejected")) for row in rows] == [("yes", "no")] * 2 + [
        ("no", "yes"),
        (None, None),
    ]
    found = served.http.get("/page/votes").json()
    first, second = found["models"]
    assert found["votes"] == 4 and (first["model"], first["wins"], first["losses"], first["undecided"]) == (
        "one",
        2,
        1,
        1,
    )
    assert first["low"] < first["share"] == 2 / 3 < first["high"] and second["share"] == 1 / 3
    assert_error(served.post("/page/votes", {"prompt": "q", **sides, "choice": "c"}), 400)
    assert_error(served.post("/page/votes", {"prompt": "q", "a": {}, "b": {}, "choice": "a"}), 400)


def test_a_vote_between_two_answers_of_one_model_is_kept_and_counts_for_none(served: Running, place: Path) -> None:
    sides = {"a": {"model": "one", "text": "yes"}, "b": {"model": "one", "text": "no"}}
    (place / "preferences.jsonl").unlink(missing_ok=True)
    for choice in ("a", "tie"):
        assert served.post("/page/votes", {"prompt": "q", **sides, "choice": choice}).status_code == 201
    board = served.http.get("/page/votes").json()
    assert board["votes"] == 2 and board["models"] == []
    row = json.loads((place / "preferences.jsonl").read_text().splitlines()[0])
    assert (row["chosen"], row["rejected"]) == ("yes", "no")


def test_a_model_without_decided_votes_has_no_share() -> None:
    (one, two) = standings([{"a": {"model": "x"}, "b": {"model": "y"}, "choice": "bad"}])
    assert one["share"] is two["share"] is None and (one["low"], one["high"]) == (0, 1)
