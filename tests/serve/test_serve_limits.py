"""Clients that leave, full queues, time limits, metrics: the engine is free again each time."""

import asyncio
import json
import shutil
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_llama
from engine_gate import Gate
from live_server import Running, assert_error, running
from prometheus_client.parser import text_string_to_metric_families
from waiting import HANG, until

from riyaz.engine import engine, scheduler
from riyaz.serve import completions, http, state
from riyaz.serve.generation import Piece
from riyaz.serve.opening import Opener
from riyaz.text import template

LONG = {"model": "tiny", "prompt": "the card", "max_tokens": 500, "ignore_eos": True}
SHORT = {"model": "tiny", "prompt": "the card", "max_tokens": 2}


def opener(folder: Path) -> Opener:
    made = Opener("fp32")
    made.serve(str(folder))
    return made


@pytest.fixture
def gated(model_folder: Path) -> Iterator[tuple[Running, Gate]]:
    """A server whose engine reads prompts in pieces of 64 tokens, and the gate before its steps."""
    made = opener(model_folder)
    gate = Gate(made.bases[0].lm)
    with running(made, piece=64, drain=HANG) as found:
        yield found, gate
        gate.open()


@pytest.fixture
def served(gated: tuple[Running, Gate]) -> Running:
    return gated[0]


@pytest.fixture
def gate(gated: tuple[Running, Gate]) -> Gate:
    return gated[1]


def waiting(served: Running, count: int) -> Callable[[], bool]:
    """Whether so much waits for the engine's thread, which stands before the gate."""
    return lambda: served.state.engine._inbox.qsize() == count


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["queued", "prompt", "answer"])
def test_a_client_that_leaves_frees_the_engine(
    served: Running, gate: Gate, phase: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = served.state.opener.bases[0].lm
    body = {**LONG, "stream": stream}
    clients, steps = 1, {"queued": 1, "prompt": 1, "answer": 4}[phase]
    if phase == "queued":
        monkeypatch.setattr(scheduler, "MAX_RUNNING", 1)
        clients, gone = 2, lambda: bool(lm._scheduler.waiting)
    elif phase == "prompt":
        body, gone = {**body, "prompt": "card " * 500}, lambda: any(each.unread for each in lm._scheduler.running)
    else:
        gone = lambda: any(len(each.tokens) > 2 for each in lm._scheduler.running)  # noqa: E731
    with ThreadPoolExecutor(clients) as pool, gate.closed():
        for place in range(clients):
            pool.submit(leave, served, body, lambda: gate.steps > steps and gone())
            until(lambda place=place: gate.steps == 1 and waiting(served, place)(), "it has asked")  # type: ignore[misc]
        gate.let(steps)
        until(waiting(served, clients), "the engine is told that they have gone")
    until(served.idle, "nothing is left of them")
    assert gate.steps == steps + 1 and lm.cached_bytes == 0, "not one step more"
    until(lambda: served.state.metrics.cancelled == clients, "they are counted")
    assert served.post("/v1/completions", SHORT).status_code == 200


def leave(served: Running, body: dict, when: Callable[[], bool], path: str = "/v1/completions") -> None:
    """Ask on a connection of its own and close it as soon as the condition holds."""
    host, port = served.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=HANG) as raw:
        raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        until(when, "the client leaves")


def test_a_full_queue_is_429_with_when_to_come_back(
    served: Running, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "MAX_RUNNING", -62)  # with a queue of 64 there are two places
    with ThreadPoolExecutor(2) as pool, gate.closed():
        first = [pool.submit(served.post, "/v1/completions", {**LONG, "max_tokens": 30}) for _ in range(2)]
        until(lambda: served.state.open == 2, "the places are taken")
        answer = served.post("/v1/completions", SHORT)
        found = assert_error(answer, 429)
        assert answer.headers["retry-after"] == "2" and found["type"] == "server_overloaded"
        streamed = served.post("/v1/completions", {**SHORT, "stream": True})
        assert assert_error(streamed, 429) and streamed.headers["retry-after"] == "2"
        assert_error(served.http.get("/ready"), 503)
        assert served.http.get("/health").status_code == 200
        gate.open()
        assert [each.result().status_code for each in first] == [200, 200]
    assert served.http.get("/ready").status_code == 200 and served.state.metrics.refused == 2
    assert_error(served.post("/v1/completions", {**SHORT, "n": 3}), 400)


def test_a_request_that_does_not_start_in_time_is_429(
    served: Running, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = served.state.opener.bases[0].lm
    lm.runner.cache_limit = lm.runner.bytes_of(150)
    with ThreadPoolExecutor(2) as pool, gate.closed():
        first = pool.submit(served.post, "/v1/completions", {**LONG, "max_tokens": 100})
        until(lambda: gate.steps == 1, "the first is begun")
        monkeypatch.setattr(served.state, "config", replace(served.state.config, queue_timeout=0.1))
        second = pool.submit(served.post, "/v1/completions", {**LONG, "max_tokens": 100})
        until(waiting(served, 1), "the second has come")
        gate.let(2)  # there is no memory for it
        assert "did not start within 0.1 s" in assert_error(second.result(), 429)["message"]
        until(lambda: gate.steps == 3 and len(lm.running) == 1, "the engine has seen it")
        gate.open()
        assert first.result().json()["choices"][0]["finish_reason"] == "length"
    until(served.idle, "nothing is left of it")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_cut(
    served: Running, gate: Gate, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time is up when the test says so."""
    limit, alarms, loop = 0.001, list[Callable[[], object]](), served.state.engine._loop
    assert loop is not None
    later = loop.call_later

    def call_later(after: float, call: Callable[..., object], *given: Any, **more: Any) -> Any:
        if after != limit:
            return later(after, call, *given, **more)
        alarms.append(lambda: call(*given))
        return later(HANG, lambda: None)

    monkeypatch.setattr(loop, "call_later", call_later)
    monkeypatch.setattr(served.state, "config", replace(served.state.config, request_timeout=limit))
    with ThreadPoolExecutor(1) as pool, gate.closed(6):
        asked = pool.submit(served.post, "/v1/completions", {**LONG, "n": 2, "stream": stream})
        until(lambda: gate.steps == 7, "the answers have begun")
        (alarm,) = alarms
        loop.call_soon_threadsafe(alarm)
        answer = asked.result()
        assert answer.status_code == 200 and answer.text.count('"finish_reason":"length"') == 2
        until(waiting(served, 2), "the engine is told")
    until(served.idle, "nothing is left of them")
    assert gate.steps == 7
    if not stream:
        assert 2 < answer.json()["usage"]["completion_tokens"] <= 12 and answer.json()["choices"][0]["text"]


def test_a_server_that_ends_says_so_until_its_last_answer_is_whole(served: Running, gate: Gate) -> None:
    asked = {**LONG, "max_tokens": 60, "stream": True}
    with gate.closed(2), served.http.stream("POST", "/v1/completions", json=asked) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: {")
        served.server.should_exit = True  # as SIGTERM does
        until(lambda: served.state.draining, "it is about to end")
        with httpx.Client(base_url=served.url, timeout=HANG) as other:
            for answer in (other.get("/health"), other.post("/v1/completions", json=SHORT)):
                assert "about to end" in assert_error(answer, 503)["message"] and answer.headers["retry-after"] == "2"
        gate.open()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    until(lambda: served.server.server_state.connections == set(), "all connections are closed")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.url}/health", timeout=HANG)


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
    with socket.create_connection((host, int(port)), timeout=HANG) as raw:
        raw.sendall(f'{head}Content-Length: 100\r\n\r\n{{"model": '.encode())
        assert b"408" in raw.recv(4096).splitlines()[0]


def test_a_client_that_reads_nothing_keeps_no_place(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    write = http._Writer.write

    async def stuck(self: Any, text: str, more: bool = True) -> None:
        if self.started:
            await asyncio.Event().wait()  # as a socket whose buffers are full
        await write(self, text, more)

    monkeypatch.setattr(http._Writer, "write", stuck)
    monkeypatch.setattr(http, "WRITING", 0.2 - served.state.config.request_timeout)
    with suppress(httpx.HTTPError):
        served.post("/v1/completions", {**SHORT, "stream": True})
    until(lambda: served.idle() and served.state.metrics.cancelled == 1, "the server gives it up")


def test_one_request_that_fails_leaves_the_others(served: Running, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = served.post("/v1/completions", {**LONG, "max_tokens": 40}).json()["choices"][0]["text"]
    whole, fails = engine.choose, {"model": "tiny", "prompt": "my order", "max_tokens": 40, "ignore_eos": True}

    def choose(request: Any, *others: Any) -> Any:
        if request.limit == 39:
            raise ValueError("no token can follow")
        return whole(request, *others)

    monkeypatch.setattr(engine, "choose", choose)
    with ThreadPoolExecutor(2) as pool, gate.closed():
        beside = pool.submit(served.post, "/v1/completions", {**LONG, "max_tokens": 40})
        until(lambda: gate.steps == 1, "it is begun")
        failing = pool.submit(served.post, "/v1/completions", {**fails, "max_tokens": 39})
        until(waiting(served, 1), "the other one has come")
        gate.open()
        assert_error(failing.result(), 500)
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
    with socket.create_connection((host, int(port)), timeout=HANG) as raw:
        raw.sendall(f'{head}Content-Length: 100\r\n\r\n{{"prompt": "a secret'.encode())
        connections = served.server.server_state.connections
        until(lambda: any(each._asked for each in [*connections]), "the body is read")  # type: ignore[union-attr]
    until(lambda: served.state.metrics.cancelled == 1, "it is noticed that the client has gone")
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
        assert left.wait(HANG)  # the whole loop waits
        for place in range(100):
            made.append(place)
            yield Piece(0, "more")

    monkeypatch.setattr(completions, "generated", events)
    host, port = served.url.removeprefix("http://").split(":")
    data = json.dumps({**SHORT, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=HANG) as raw:
        raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        said = b""
        while b"first" not in said:
            said += raw.recv(65536)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left.set()
    until(lambda: served.state.metrics.cancelled == 1, "it is noticed that the client has gone")
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


def test_an_error_after_the_first_event_is_an_event(
    served: Running, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = served.state.opener.bases[0].lm
    with gate.closed(2), served.http.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as response:
        lines = response.iter_lines()
        assert response.status_code == 200 and next(lines).startswith("data: {")

        def fails(runs: Any) -> Any:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(lm.runner, "forward", fails)
        gate.open()
        *_, last = [line for line in lines if line]
    assert last.startswith('data: {"error":')
    until(served.idle, "nothing is left of it")


def test_a_stream_that_waits_is_kept_open(served: Running, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PING", 0.05)
    with gate.closed(), served.http.stream("POST", "/v1/completions", json={**SHORT, "stream": True}) as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(4)] == [": ping", ""] * 2
        gate.open()
        assert [line for line in lines if line][-1] == "data: [DONE]"


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
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=HANG) as client:
            answers = await asyncio.gather(*(client.post("/v1/completions", json=SHORT) for _ in range(200)))
        return Counter(answer.status_code for answer in answers)

    with running(opener(model_folder)) as served:
        statuses = asyncio.run(ask_all(served.url))
        assert statuses.keys() <= {200, 429} and statuses[200] >= 128 and sum(statuses.values()) == 200
        until(served.idle, "nothing is left of them")
    assert threading.active_count() < 20
