"""Two servers behind a real haproxy, with the configuration of docs/from-one-machine-to-a-thousand.md: one is killed,
one ends, and an adapter is loaded on one only."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import tiny_llama
from test_serve_command import LONG, started
from waiting import HANG, until

from riyaz import adapters
from riyaz.families import describe
from riyaz.sources import open_source

PAGE = (Path(__file__).parents[2] / "docs/from-one-machine-to-a-thousand.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Serving replicas\n")[2].partition("\n## ")[0]
CONFIGURATION = re.findall(r"^```haproxy\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)[0]
CHATS = [f"chat {number}" for number in range(20)]
CLIENTS = 8  # requests at a time
PATIENT = (  # the test's processes may stand still for longer
    ("timeout http-request 30s", "timeout http-request 11m"), ("timeout connect 2s", "timeout connect 11m"),
    ("fall 2 ", "fall 1000 "),
)  # fmt: skip


@pytest.fixture(scope="module")
def haproxy() -> str:
    """The program, which Debian has where only root looks for it."""
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        pytest.skip("no haproxy; apt-get install haproxy")
    return program


@contextmanager
def balanced(haproxy: str, folder: Path, *urls: str) -> Iterator[httpx.Client]:
    """A client of the page's balancer on a free port, with these servers as `one` and `two`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd, port = listening.fileno(), listening.getsockname()[1]
        text, binds = re.subn(r"bind :8000\n", f"bind fd@{fd}\n", CONFIGURATION)
        addresses = iter([url.removeprefix("http://") for url in urls])
        text, servers = re.subn(r"(server \w+) 10\.0\.0\.\d:8000", lambda found: f"{found[1]} {next(addresses)}", text)
        assert (binds, servers) == (1, len(urls))
        for line, patient in PATIENT:
            assert line in text
            text = text.replace(line, patient)
        (folder / "haproxy.cfg").write_text(text)
        process = subprocess.Popen([haproxy, "-db", "-f", str(folder / "haproxy.cfg")], pass_fds=[fd])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANG) as client:
            assert client.get("/health").status_code == 200
            yield client
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Asked:
    """One request, whether it was begun after a certain event, and what came of it."""

    chat: str
    late: bool
    status: int
    replica: str | None  # None where the balancer itself answered
    text: str


def ask(client: httpx.Client, chat: str, late: Callable[[], bool] = lambda: False, **fields: object) -> Asked:
    """One turn of a chat."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "where is my order"}], "max_tokens": 12}
    begun_late = late()
    answer = client.post("/v1/chat/completions", json={**body, **fields}, headers={"x-conversation-id": chat})
    return Asked(chat, begun_late, answer.status_code, answer.headers.get("x-replica"), answer.text)


def homes(client: httpx.Client) -> dict[str, str]:
    """The replica of each chat; both have some."""
    found = {chat: ask(client, chat).replica for chat in CHATS}
    assert {*found.values()} == {"one", "two"} and found == {chat: ask(client, chat).replica for chat in CHATS}
    return {chat: str(replica) for chat, replica in found.items()}


def long_answer(client: httpx.Client, chat: str) -> object:
    """The stream of a long answer, to be entered."""
    return client.stream("POST", "/v1/completions", json={**LONG, "n": 8}, headers={"x-conversation-id": chat})


def is_well(url: str) -> bool:
    """Whether a server answers that it is."""
    try:
        return httpx.get(f"{url}/health", timeout=HANG).status_code == 200
    except httpx.TransportError:
        return False


def test_the_page_explains_lines_that_its_configuration_has() -> None:
    lines = {line.strip() for line in CONFIGURATION.splitlines()}
    explained = re.findall(r"^\| `([^`]+)` \|", SECTION, re.MULTILINE)
    assert len(explained) > 5 and lines.issuperset(explained), {*explained} - lines
    header = re.findall(r"balance hdr\(([\w-]+)\)", CONFIGURATION)
    assert header and re.findall(r'chat = \{"([\w-]+)"', SECTION) == header
    said = re.findall(r"/v1/\w+", SECTION.partition("**An adapter")[2].partition("**A replica")[0])
    assert said and all(path in CONFIGURATION for path in said)


def test_haproxy_takes_the_configuration(haproxy: str, tmp_path: Path) -> None:
    for text, status in ((CONFIGURATION, 0), (CONFIGURATION.replace("hash-type consistent", "hash-type so-so"), 1)):
        (tmp_path / "haproxy.cfg").write_text(text)
        told = subprocess.run([haproxy, "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True)
        assert told.returncode == status and ("WARNING" not in told.stderr or status), told.stderr


@pytest.mark.slow
def test_when_a_replica_is_killed_only_what_it_was_answering_fails(
    haproxy: str, model_folder: Path, tmp_path: Path
) -> None:
    with (
        started(model_folder, "--no-page") as (killed, one),
        started(model_folder, "--no-page") as (_, two),
        balanced(haproxy, tmp_path, one, two) as client,
    ):
        home, dead = homes(client), threading.Event()
        with long_answer(client, next(chat for chat in CHATS if home[chat] == "one")) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: {")
            with ThreadPoolExecutor(CLIENTS) as pool:
                chats = [CHATS[place % len(CHATS)] for place in range(180)]
                asked = [pool.submit(ask, client, chat, dead.is_set) for chat in chats]
                until(lambda: sum(each.done() for each in asked) >= 60, "some are answered")
                killed.kill()
                killed.wait()
                dead.set()
                asked += [pool.submit(ask, client, chat, dead.is_set) for chat in CHATS]
                answers = [each.result() for each in asked]
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        failed = [each for each in answers if each.status != 200]
        assert all(not each.late and home[each.chat] == "one" and each.status == 502 for each in failed), failed
        assert {each.replica for each in answers if home[each.chat] == "two"} == {"two"}, "no other chat has moved"
        moved = [each for each in answers if each.late and home[each.chat] == "one"]
        assert moved and {(each.status, each.replica) for each in moved} == {(200, "two")}
        assert len({each.text.partition('"message"')[2].partition("}")[0] for each in answers if each.replica}) == 1


@pytest.mark.slow
def test_a_replica_that_ends_loses_no_request(haproxy: str, model_folder: Path, tmp_path: Path) -> None:
    with (
        started(model_folder, "--no-page", "--drain", "600s") as (ends, one),
        started(model_folder, "--no-page") as (_, two),
        balanced(haproxy, tmp_path, one, two) as client,
    ):
        home = homes(client)
        chats = [chat for chat in CHATS if home[chat] == "one"]
        with long_answer(client, chats[0]) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: {")
            with ThreadPoolExecutor(CLIENTS) as pool:
                asked = [pool.submit(ask, client, CHATS[place % len(CHATS)]) for place in range(100)]
                ends.send_signal(signal.SIGTERM)
                until(lambda: not is_well(one), "it is about to end, or has ended")
                long = ask(client, chats[0], padding="x" * 60_000)  # a field that no server knows
                assert {each.result().status for each in asked} == {200}
            assert (long.status, long.replica) == (200, "two")
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert ends.wait(HANG) == 0
        assert {(each.status, each.replica) for each in (ask(client, chat) for chat in CHATS)} == {(200, "two")}


@pytest.mark.slow
def test_an_adapter_is_loaded_on_every_replica(haproxy: str, model_folder: Path, tmp_path: Path) -> None:
    out, inner = tiny_llama.plan(tiny_llama.Tiny())["model.layers.0.self_attn.q_proj.weight"]
    pair = adapters.Pair(np.ones((2, inner), np.float32), np.ones((out, 2), np.float32), 1.0)
    adapter = adapters.Adapter(pairs={"model.layers.0.self_attn.q_proj": pair})
    (tmp_path / "adapters/billing").mkdir(parents=True)
    family = describe(open_source(model_folder))
    adapters.peft.write(adapter, tmp_path / "adapters/billing", family, base=str(model_folder))
    body = {"lora_name": "billing", "lora_path": "billing"}
    with (
        started(model_folder, "--no-page", "--adapters", tmp_path / "adapters") as (_, one),
        started(model_folder, "--no-page", "--adapters", tmp_path / "adapters") as (_, two),
        balanced(haproxy, tmp_path, one, two) as client,
    ):
        home = homes(client)
        refused = client.post("/v1/load_lora_adapter", json=body)
        assert (refused.status_code, refused.text) == (403, "load adapters on every replica")
        assert client.delete("/v1/adapters/billing").status_code == 403
        assert client.get("/v1/adapters").json()["data"] == []
        for url, expected in ((one, {"one": 200, "two": 404}), (two, {"one": 200, "two": 200})):
            assert httpx.post(f"{url}/v1/load_lora_adapter", json=body, timeout=HANG).status_code == 200
            answers = [ask(client, chat, model="billing") for chat in CHATS]
            assert all((each.status, each.replica) == (expected[home[each.chat]], home[each.chat]) for each in answers)
