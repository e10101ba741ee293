"""`riyaz serve` as a command: what it prints, a port in use, and its end by a signal with answers running."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import tiny_comparison
from conftest import Finished
from refusals import assert_refused
from tiny_comparison import command
from waiting import HANG, until

from riyaz.cli import ui
from riyaz.cli.ui import _bound
from riyaz.config import ServeConfig

ROOT = Path(__file__).parents[2]
# a client of the tests may stand still for as long as it wants
CODE = f"""
import sys
from riyaz.cli.main import main
from riyaz.serve import connection, unread
connection.UNREAD_SECONDS = unread.UNREAD_SECONDS = {HANG}
sys.exit(main(sys.argv[1:]))
"""
LONG = {"model": "tiny", "prompt": "the card", "max_tokens": 1000, "ignore_eos": True, "stream": True}


@contextmanager
def started(*arguments: object, verb: str = "serve", **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process of `riyaz serve` or another verb, and the address that it prints."""
    variables = os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment
    words = [sys.executable, "-c", CODE, verb, *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)
    try:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip().removesuffix("/v1")
        assert url.startswith("http://127.0.0.1:"), process.stderr.read()
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_one_line(model_folder: Path) -> None:
    with started(model_folder) as (_, url):
        port = url.rpartition(":")[2]
        told = command("serve", model_folder, "--port", port)
        assert told.status == 2 and f"port {port} is in use; choose another, or 0 for a free one" in told.line
        assert httpx.get(f"{url}/health", timeout=HANG).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "riyaz serve: names nothing to serve; give a model, an artifact, or --run FOLDER"),
        (("absent-model",), "absent-model"),
        (("MODEL", "--adapter", "x"), "--adapter: 'x' is not NAME=FOLDER; such as --adapter billing=workshop/lora"),
        (("MODEL", "--adapter", "../x=MODEL"), "'../x' cannot be a model's name"),
        (("MODEL", "--adapter", "x=absent"), "absent"),
        (("MODEL", "--run", "MODEL"), "is not a comparison"),
        (("MODEL", "--host", "0.0.0.0"), "--host: 0.0.0.0 can be reached from other machines, and there is no key"),
        (("MODEL", "--host", "no.such.host.invalid"), "--host: no.such.host.invalid"),
        (("MODEL", "--host", "192.0.2.1", "--api-key-file", "KEYS"), "cannot listen there"),
        (("MODEL", "--port", "99999"), "--port: 99999 is too large; give at most 65535"),
        (("MODEL", "--drain", "5"), "--drain"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    arguments: tuple[str, ...], line: str, model_folder: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("a-key-of-many-characters\n")
    words = [word.replace("MODEL", str(model_folder)).replace("KEYS", str(keys)) for word in arguments]
    told = command("serve", *words, *(() if "--port" in words else ("--port", "0")))
    assert told.status == 2 and line in told.line, told.err
    assert told.out == ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_last_event_for_answers_that_run(model_folder: Path, number: signal.Signals) -> None:
    with (
        started(model_folder, "--drain", "1s") as (process, url),
        httpx.stream("POST", f"{url}/v1/completions", json={**LONG, "n": 8}, timeout=HANG) as response,
    ):
        lines = response.iter_lines()
        assert next(lines).startswith("data: {")
        process.send_signal(number)
        *_, last = [line for line in lines if line]
        assert last == "data: [DONE]" or json.loads(last.removeprefix("data: "))["error"]["code"] == "unavailable"
        assert process.wait(HANG) == 0
        assert process.stderr is not None
        told = process.stderr.read()
        assert told.startswith("serving tiny; Ctrl-C ends") and "Traceback" not in told and "error" not in told


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_the_walk_from_a_comparison_to_an_answer(page: str, quick: Finished, one_core: None, tmp_path: Path) -> None:
    """The page's own code, with the address that the server printed."""
    text = (ROOT / page).read_text(encoding="utf-8")
    behind = text[text.index("\nriyaz serve workshop\n") :]
    block = next(block for block in re.findall(r"^```python\n(.*?)^```", behind, re.M | re.S) if "openai" in block)
    shutil.copytree(quick.out, tmp_path / "workshop")
    with started(tmp_path / "workshop") as (_, url):
        code = block.replace("http://127.0.0.1:8000", url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in tiny_comparison.CLOSED, "a label"


@pytest.mark.slow
def test_nothing_of_a_prompt_is_printed_and_torch_is_not_loaded(model_folder: Path) -> None:
    with started(model_folder) as (process, url):
        secret = "a secret of the user"
        for body in ({**LONG, "prompt": secret, "max_tokens": 1}, {"prompt": secret}, {**LONG, "model": "a\nERROR b"}):
            httpx.post(f"{url}/v1/completions", json=body, timeout=HANG)
        httpx.get(f"{url}/{secret}", timeout=HANG)
        assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text(), "no library of torch is loaded"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=HANG)
        first, page = err.splitlines()
        assert out == "" and first == "serving tiny; Ctrl-C ends" and page.startswith(f"the page: {url}/#token=")


@pytest.mark.slow
def test_ui_prints_the_link_to_the_page_of_a_folder(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n")
    with started(tmp_path, "--model", model_folder, "--no-browser", verb="ui") as (_, link):
        url, _, token = link.partition("/#token=")
        assert httpx.get(f"{url}/page/files", timeout=HANG).status_code == 401
        files = httpx.get(f"{url}/page/files", headers={"x-riyaz-token": token}, timeout=HANG).json()
        assert [entry["name"] for entry in files["entries"]] == ["rows.csv"]
        assert httpx.get(f"{url}/v1/models", timeout=HANG).json()["data"][0]["id"] == "tiny"


@pytest.mark.slow
def test_ui_shows_a_folder_without_any_model(tmp_path: Path) -> None:
    with started(tmp_path, "--no-browser", verb="ui", RIYAZ_HOME=str(tmp_path / "cache")) as (process, link):
        url, _, token = link.partition("/#token=")
        found = httpx.get(f"{url}/page/info", headers={"x-riyaz-token": token}, timeout=HANG).json()
        assert [each["id"] for each in found["models"]] == ["sample-animals", "sample-animals-ternary"]
        assert all(each["sample"] for each in found["models"]) and found["default_model"] == "smollm2-135m"
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=HANG)[1]
        assert "note: two tiny sample models answer, as there is no other: the model smollm2-135m has not been" in told


def test_ui_takes_a_free_port_where_the_usual_one_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        usual = ServeConfig(port=taken.getsockname()[1])
        with _bound(usual, any_port=True) as free:
            assert free.getsockname()[1] not in (0, usual.port)
        with assert_refused("is in use"):
            _bound(usual, any_port=False)


@pytest.mark.parametrize("arguments", [("absent",), (".", "--port", "70000"), (".", "--models", "0")])
def test_ui_that_cannot_start_is_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    told = command("ui", *arguments, "--no-browser")
    assert told.status == 2 and told.out == "" and len(told.err.splitlines()) == 1, told.err


def test_the_browser_is_given_a_file_of_this_user_and_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[str] = []
    monkeypatch.setattr(ui.webbrowser, "open", lambda link: shown.append(link) or True)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not ui.open_browser("http://127.0.0.1:1/#token=abc", tmp_path) and not shown
    monkeypatch.setenv("DISPLAY", ":0")
    assert ui.open_browser("http://127.0.0.1:1/#token=abc", tmp_path)
    (link,) = shown
    assert link == (tmp_path / "page.html").as_uri() and "abc" not in link
    assert "url=http://127.0.0.1:1/#token=abc" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_the_next_start_removes_the_private_folder_of_a_killed_page_and_no_other(
    model_folder: Path, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    words = (tmp_path, "--model", model_folder, "--no-browser")
    with started(*words, verb="ui", TMPDIR=str(private)) as (killed, _):
        (left,) = private.iterdir()
        killed.kill()
        killed.wait()
    assert list(private.iterdir()) == [left]
    with started(*words, verb="ui", TMPDIR=str(private)) as (living, _):
        (held,) = private.iterdir()
        assert held != left
        with started(*words, verb="ui", TMPDIR=str(private)) as (other, _):
            assert held in private.iterdir() and len(list(private.iterdir())) == 2
            other.terminate()
            other.wait(HANG)
        living.terminate()
        living.wait(HANG)
    assert list(private.iterdir()) == []


@pytest.mark.slow
def test_the_next_start_removes_what_an_upload_left_of_a_killed_server(model_folder: Path, tmp_path: Path) -> None:
    with started(tmp_path, "--model", model_folder, "--no-browser", verb="ui") as (process, link):
        url, _, token = link.partition("/#token=")
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=HANG) as client:
            head = f"POST /page/files?name=rows.csv HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Riyaz-Token: {token}\r\n"
            client.sendall(f"{head}Content-Length: 9000\r\n\r\n{'x' * 8000}".encode())
            until(lambda: len(list(tmp_path.glob("uploads/*"))) == 1, "the upload has begun")
            process.kill()
            process.wait()
    assert [path.name for path in tmp_path.glob("uploads/*")] == [f".rows.csv.riyaz-{process.pid}.tmp"]
    with started(tmp_path, "--model", model_folder, "--no-browser", verb="ui") as (again, _):
        assert list(tmp_path.glob("uploads/*")) == []
        again.terminate()
        again.wait(HANG)
