"""Clients that leave, full queues, time limits, metrics: the engine is free again each time."""

import asyncio
import json
import shutil
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_llama
from live_server import Running, assert_error, running
from prometheus_client.parser import text_string_to_metric_families

from riyaz.engine import engine, scheduler
from riyaz.engine.engine import Engine
from riyaz.serve import completions, http, state
from riyaz.serve.generation import Piece
from riyaz.serve.opening import Opener
from riyaz.text import template

STEP = 0.03  # seconds of a step of the slow engine
LONG = {"model": "tiny", "prompt": "the card", "max_tokens": 500, "ignore_eos": True}
SHORT = {"model": "tiny", "prompt": "the card", "max_tokens": 2}
# Seconds after which nothing may be left of a client that went; what is asked for takes 15. On a quiet machine it is a
# hundredth of a second, which benchmarks/serving.py measures as cancel_ms.
FREE = 3


def opener(folder: Path) -> Opener:
    made = Opener("fp32")
    made.serve(str(folder))
    return made


def slow(lm: Engine, seconds: float = STEP) -> None:
    forward = lm.runner.forward

    def delayed(runs: Any) -> Any:
        time.sleep(seconds)
        return forward(runs)

    lm.runner.forward = delayed  # type: ignore[method-assign]
    lm.drafts.mode = "off"  # a step makes one token


@pytest.fixture
def served(model_folder: Path) -> Iterator[Running]:
    """A server whose engine is slow and reads prompts in pieces of 64 tokens."""
    made = opener(model_folder)
    slow(made.bases[0].lm)
    with running(made, piece=64) as found:
        yield found


def until(condition: Any, seconds: float = 30.0) -> float:
    """Seconds until the condition holds."""
    begun = time.perf_counter()
    while not condition():
        assert time.perf_counter() - begun < seconds, "it never holds"
        time.sleep(0.002)
    return time.perf_counter() - begun


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["queued", "prompt", "answer"])
def test_a_client_that_leaves_frees_the_engine(
    served: Running, phase: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = served.state.opener.bases[0].lm
    body = {**LONG, "stream": stream}
    blocker = None
    if phase == "queued":
        monkeypatch.setattr(scheduler, "MAX_RUNNING", 1)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(leave, served, body, lambda: bool(lm._scheduler.waiting))
            blocker = leave(served, body, lambda: bool(lm._scheduler.waiting))
    elif phase == "prompt":
        body = {**body, "prompt": "card " * 500}
        leave(served, body, lambda: any(answer.unread for answer in lm._scheduler.running))
    else:
        leave(served, body, lambda: any(len(answer.tokens) > 2 for answer in lm._scheduler.running))
    assert until(served.idle) < FREE and blocker is None
    assert lm.cached_bytes == 0
    until(lambda: served.state.metrics.cancelled >= 1)
    assert served.post("/v1/completions", SHORT).status_code == 200


def leave(served: Running, body: dict, when: Any) -> None:
    """Ask on a connection of its own and close it as soon as the condition holds."""
    host, port = served.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        until(when)


def test_a_full_queue_is_429_with_when_to_come_back(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_RUNNING", -62)  # with a queue of 64 there are two places
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(served.post, "/v1/completions", {**LONG, "max_tokens": 30}) for _ in range(2)]
        until(lambda: served.state.open == 2)
        answer = served.post("/v1/completions", SHORT)
        found = assert_error(answer, 429)
        assert answer.headers["retry-after"] == "2" and found["type"] == "server_overloaded"
        streamed = served.post("/v1/completions", {**SHORT, "stream": True})
        assert assert_error(streamed, 429) and streamed.headers["retry-after"] == "2"
        assert_error(served.http.get("/ready"), 503)
        assert served.http.get("/health").status_code == 200
        assert [each.result().status_code for each in first] == [200, 200]
    assert served.http.get("/ready").status_code == 200 and served.state.metrics.refused == 2
    assert_error(served.post("/v1/completions", {**SHORT, "n": 3}), 400)


def test_a_request_that_does_not_start_in_time_is_429(model_folder: Path) -> None:
    made = opener(model_folder)
    lm = made.bases[0].lm
    slow(lm)
    with running(made, queue_timeout=0.3) as served:
        lm.runner.cache_limit = lm.runner.bytes_of(150)
        with ThreadPoolExecutor(1) as pool:
            running_one = pool.submit(served.post, "/v1/completions", {**LONG, "max_tokens": 100})
            until(lambda: len(lm.running) == 1)
            found = assert_error(served.post("/v1/completions", {**LONG, "max_tokens": 100}), 429)
            assert "did not start within 0.3 s" in found["message"]
            assert running_one.result().json()["choices"][0]["finish_reason"] == "length"
        until(served.idle)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_cut(model_folder: Path, stream: bool) -> None:
    made = opener(model_folder)
    slow(made.bases[0].lm)
    with running(made, request_timeout=1.5) as served:
        answer = served.post("/v1/completions", {**LONG, "n": 2, "stream": stream})
        assert answer.status_code == 200 and answer.text.count('"finish_reason":"length"') == 2
        assert until(served.idle) < FREE
        if not stream:
            assert 2 < answer.json()["usage"]["completion_tokens"] < 200 and answer.json()["choices"][0]["text"]


def test_a_server_that_ends_says_so_until_its_last_answer_is_whole(model_folder: Path) -> None:
    made = opener(model_folder)
    slow(made.bases[0].lm)
    with running(made, drain=60) as served:
        with served.http.stream("POST", "/v1/completions", json={**LONG, "max_tokens": 60, "stream": True}) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: {")
            served.server.should_exit = True  # as SIGTERM does
            until(lambda: served.state.draining)
            for answer in (httpx.get(f"{served.url}/health"), httpx.post(f"{served.url}/v1/completions", json=SHORT)):
                assert "about to end" in assert_error(answer, 503)["message"] and answer.headers["retry-after"] == "2"
            assert [line for line in lines if line][-1] == "data: [DONE]"
        until(lambda: served.server.server_state.connections == set(), 20)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/health")


def test_more_tokens_than_the_server_allows_are_refused(model_folder: Path) -> None:
    with running(opener(model_folder), max_tokens=10) as served:
        assert assert_error(served.post("/v1/completions", LONG), 400)["param"] == "max_tokens"
        hello = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "ignore_eos": True}
        assert served.post("/v1/chat/completions", hello).json()["usage"]["completion_tokens"] == 10
        found = assert_error(served.post("/v1/chat/completions", {**hello, "max_completion_tokens": 11}), 400)
        assert found["param"] == "max_completion_tokens"


def test_more_answers_than_there_can_be_places_are_refused_for_good(model_folder: Path) -> None:
    with running(opener(model_folder)) as served:
        found = assert_error(served.post("/v1/completions", {**SHORT, "prompt": ["a"] * 17, "n": 8}), 400)
        assert "136 answers are asked for at once, and this server takes 128" in found["message"]


def test_a_body_that_never_ends_is_given_up(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READING", 0.1)
    host, port = served.url.removeprefix("http://").split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(f'{head}Content-Length: 100\r\n\r\n{{"model": '.encode())
        assert b"408" in raw.recv(4096).splitlines()[0]


def test_a_client_that_reads_nothing_keeps_no_place(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    write = http._Writer.write

    async def stuck(self: Any, text: str, more: bool = True) -> None:
        if self.started:
            await asyncio.sleep(3600)  # as a socket whose buffers are full
        await write(self, text, more)

    monkeypatch.setattr(http._Writer, "write", stuck)
    monkeypatch.setattr(http, "WRITING", -599.5)
    begun = time.perf_counter()
    with suppress(httpx.HTTPError):
        served.post("/v1/completions", {**SHORT, "stream": True}, timeout=40)
    assert time.perf_counter() - begun < 30, "the server gave it up, not the client"
    assert until(lambda: served.idle() and served.state.metrics.cancelled == 1) < FREE


def test_one_request_that_fails_leaves_the_others(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = served.post("/v1/completions", {**LONG, "max_tokens": 40}).json()["choices"][0]["text"]
    whole, fails = engine.choose, {"model": "tiny", "prompt": "my order", "max_tokens": 40, "ignore_eos": True}

    def choose(request: Any, *others: Any) -> Any:
        if request.limit == 39:
            raise ValueError("no token can follow")
        return whole(request, *others)

    monkeypatch.setattr(engine, "choose", choose)
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(served.post, "/v1/completions", {**LONG, "max_tokens": 40})
        until(lambda: len(served.state.opener.bases[0].lm.running) == 1)
        assert_error(served.post("/v1/completions", {**fails, "max_tokens": 39}), 500)
        assert beside.result().json()["choices"][0]["text"] == plain


def test_the_log_says_where_and_never_what(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(runs: Any) -> Any:
        raise ZeroDivisionError("a secret of the user\nERROR forged")

    monkeypatch.setattr(served.state.opener.bases[0].lm.runner, "forward", fails)
    assert_error(served.post("/v1/completions", SHORT), 500)
    assert len(caplog.records) == 1 and "ZeroDivisionError in a request, at test_serve_limits.py:" in caplog.text
    assert "secret" not in caplog.text and "forged" not in caplog.text


def test_whoever_leaves_while_sending_and_what_no_handler_expects_print_nothing(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(f'{head}Content-Length: 100\r\n\r\n{{"prompt": "a secret'.encode())
        time.sleep(0.2)
    until(lambda: served.state.metrics.cancelled == 1)
    assert caplog.records == []

    def fails(*arguments: Any) -> Any:
        raise ZeroDivisionError("a secret of the user")

    monkeypatch.setattr(completions, "prompts_of", fails)
    assert_error(served.post("/v1/completions", SHORT), 500)
    assert "secret" not in caplog.text and len(caplog.records) == 1
    monkeypatch.undo()
    assert served.post("/v1/completions", SHORT).status_code == 200


def test_a_stream_whose_client_left_is_not_written_to(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Many events are ready at once, and before the loop has noticed that the client has reset its connection."""
    left, made = threading.Event(), []

    async def events(*_: object) -> AsyncIterator[Piece]:
        yield Piece(0, "first")
        assert left.wait(20)  # the whole loop waits
        for place in range(100):
            made.append(place)
            yield Piece(0, "more")

    monkeypatch.setattr(completions, "generated", events)
    host, port = served.url.removeprefix("http://").split(":")
    data = json.dumps({**SHORT, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        said = b""
        while b"first" not in said:
            said += raw.recv(65536)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left.set()
    until(lambda: served.state.metrics.cancelled == 1)
    assert caplog.records == [] and len(made) < 10


def test_a_failing_engine_fails_its_requests_only(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = served.state.opener.bases[0].lm

    def fails(runs: Any) -> Any:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(lm.runner, "forward", fails)
        found = assert_error(served.post("/v1/completions", SHORT), 500)
        assert "ZeroDivisionError" not in found["message"] and found["type"] == "server_error"
        assert_error(served.post("/v1/completions", {**SHORT, "stream": True}), 500)
    assert served.idle() and served.post("/v1/completions", SHORT).status_code == 200


def test_an_error_after_the_first_event_is_an_event(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = served.state.opener.bases[0].lm
    with served.http.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as response:
        lines = response.iter_lines()
        assert response.status_code == 200 and next(lines).startswith("data: {")

        def fails(runs: Any) -> Any:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(lm.runner, "forward", fails)
        *_, last = [line for line in lines if line]
    assert last.startswith('data: {"error":') and until(served.idle) < FREE


def test_a_stream_that_waits_is_kept_open(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PING", 0.05)
    answer = served.post("/v1/completions", {**SHORT, "prompt": "card " * 300, "stream": True})
    assert answer.text.startswith(": ping\n\n") and answer.text.endswith("data: [DONE]\n\n")


def test_a_template_process_that_is_killed_is_started_again(served: Running) -> None:
    hello = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    assert served.post("/v1/chat/completions", hello).status_code == 200
    process = template._worker._process
    assert process is not None
    process.kill()
    assert served.post("/v1/chat/completions", hello).status_code == 200


def test_a_model_whose_files_are_gone_answers_on(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "tiny")
    with running(opener(folder)) as served:
        shutil.rmtree(folder)
        assert served.post("/v1/completions", SHORT).status_code == 200


def test_metrics_are_what_prometheus_reads(served: Running) -> None:
    for body in (SHORT, {**SHORT, "stream": True}, {**SHORT, "stop": "e"}):
        assert served.post("/v1/completions", body).status_code == 200
    assert_error(served.post("/v1/completions", {**SHORT, "model": 'a"} 1\nevil 1'}), 404)
    answer = served.http.get("/metrics")
    found = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    value = {name: family.samples[0].value for name, family in found.items() if family.samples}
    assert value["riyaz:generation_tokens"] in (5, 6) and value["riyaz:prompt_tokens"] > 0
    assert (
        value["riyaz:requests_running"] == value["riyaz:requests_waiting"] == value["riyaz:kv_cache_usage_ratio"] == 0
    )
    ended = sum(sample.value for sample in found["riyaz:request_success"].samples)
    counts = {s.name: s.value for s in found["riyaz:time_to_first_token_seconds"].samples if s.name.endswith("_count")}
    assert ended == counts["riyaz:time_to_first_token_seconds_count"] == 3
    assert [s.labels for s in found["riyaz:adapter_loaded"].samples] == [{"name": "tiny"}] and "evil" not in answer.text
    assert {s.labels["status"]: s.value for s in found["riyaz:request_errors"].samples} == {"404": 1}


def test_hundreds_of_clients_at_once_leave_nothing(model_folder: Path) -> None:
    async def ask_all(url: str) -> Counter[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            answers = await asyncio.gather(*(client.post("/v1/completions", json=SHORT) for _ in range(200)))
        return Counter(answer.status_code for answer in answers)

    with running(opener(model_folder)) as served:
        statuses = asyncio.run(ask_all(served.url))
        assert statuses.keys() <= {200, 429} and statuses[200] >= 128 and sum(statuses.values()) == 200
        until(served.idle)
    assert threading.active_count() < 20
