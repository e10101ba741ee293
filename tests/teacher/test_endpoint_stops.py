"""Requests of an endpoint that end early: the first failure, a failure to keep, Ctrl-C, a wait for the next try."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from fake_endpoint import Fake, Handler, fake_endpoint

from riyaz.data import Message
from riyaz.errors import RiyazError
from riyaz.teacher import endpoint
from riyaz.teacher.endpoint import KEY, Endpoint, ask


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, and no request that a test waits for is tried again."""
    monkeypatch.delenv(KEY, raising=False)


def workers() -> int:
    """Threads of `ask` that live. The end of the program waits for none of them."""
    alive = [thread for thread in threading.enumerate() if "(work)" in thread.name]
    assert all(thread.daemon for thread in alive)
    return len(alive)


@pytest.fixture
def stalling() -> Iterator[tuple[Fake, list[str]]]:
    """A server that answers conversations "0", "1" and so on while "stall" hangs; and what clients broke off."""
    broken: list[str] = []

    def reply(handler: Handler) -> None:
        content = handler.body["messages"][0]["content"]
        if content == "stall":
            handler.connection.settimeout(10)
            return broken.append("off") if handler.connection.recv(1) == b"" else None
        time.sleep(0.05)
        handler.document({"error": "no"}, 400) if content == "fail" else handler.answer(content)

    with fake_endpoint(reply) as fake:
        yield fake, broken


def of_texts(texts: str) -> list[list[Message]]:
    return [[{"role": "user", "content": text}] for text in texts.split()]


def wait_until(reached: Callable[[], bool]) -> None:
    """Fails after 5 s."""
    deadline = time.monotonic() + 5
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_first_failure_ends_it_after_what_had_arrived(stalling: tuple[Fake, list[str]]) -> None:
    fake, broken = stalling
    kept: dict[int, str] = {}
    begin = time.monotonic()
    with pytest.raises(RiyazError, match="400 Bad Request"):
        ask(Endpoint(fake.address, "m"), of_texts("stall 1 2 3 4 fail 6 7 8 9 10 11 12"), 7, kept.__setitem__)
    assert time.monotonic() - begin < 3 and set(kept) >= {1, 2, 3} and set(kept.values()) <= {*"123467"}
    assert all(kept[place] == str(place) for place in kept)
    wait_until(lambda: broken == ["off"] and workers() == 0)
    assert len(fake.calls) <= 9, "nothing is sent after the failure"


def test_answers_that_arrived_before_the_failure_was_seen_are_kept() -> None:
    kept: dict[int, str] = {}
    keeping, failed = threading.Event(), threading.Event()

    def reply(handler: Handler) -> None:
        content = handler.body["messages"][0]["content"]
        if content == "fail":
            keeping.wait(5)
            handler.document({}, 400)
            failed.set()
        if content == "later":
            failed.wait(5)
            time.sleep(0.1)
        handler.answer(content)

    def keep(place: int, text: str) -> None:
        kept[place] = text
        keeping.set()
        time.sleep(0.5 if len(kept) == 1 else 0)  # the failure comes, and other answers after it

    with fake_endpoint(reply) as fake, pytest.raises(RiyazError, match="400 Bad Request"):
        ask(Endpoint(fake.address, "m"), of_texts("first fail later later"), 7, keep)
    assert kept == {0: "first", 2: "later", 3: "later"}


def test_a_failure_to_keep_ends_it(stalling: tuple[Fake, list[str]]) -> None:
    def full(place: int, text: str) -> None:
        raise RiyazError("the disk is full")

    with pytest.raises(RiyazError, match="the disk is full"):
        ask(Endpoint(stalling[0].address, "m"), of_texts("stall 1 2"), 7, full)
    wait_until(lambda: stalling[1] == ["off"] and workers() == 0)


def test_control_c_stops_at_once(stalling: tuple[Fake, list[str]]) -> None:
    fake, broken = stalling
    kept: dict[int, str] = {}

    def interrupt() -> None:
        wait_until(lambda: len(fake.calls) == 4 and workers() == 4)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=interrupt)
    begin = time.monotonic()
    other.start()
    with pytest.raises(KeyboardInterrupt):
        ask(Endpoint(fake.address, "m"), of_texts("stall 1 stall stall"), 7, kept.__setitem__)
    assert time.monotonic() - begin < 5 and kept == {1: "1"}
    other.join()
    wait_until(lambda: broken == ["off"] * 3 and workers() == 0)


def test_a_wait_for_the_next_try_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 60.0)
    first = threading.Event()

    def reply(handler: Handler) -> None:
        busy = not first.is_set()
        first.set()
        time.sleep(0 if busy else 0.3)
        handler.document({"error": "no"}, 503 if busy else 400)

    begin = time.monotonic()
    with fake_endpoint(reply) as fake, pytest.raises(RiyazError, match="400 Bad Request"):
        ask(Endpoint(fake.address, "m"), of_texts("1 2"), 7, lambda place, text: None)
    assert time.monotonic() - begin < 3
    wait_until(lambda: workers() == 0)
