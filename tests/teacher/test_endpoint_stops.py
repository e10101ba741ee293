"""Requests of an endpoint that end early: the first failure, a failure to keep, Ctrl-C, a wait for the next try.

A server answers when what must come before has been seen, so each case goes the same way on a machine of any speed."""

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from fake_endpoint import Fake, Handler, fake_endpoint
from waiting import HANG, until

from riyaz.data import Message
from riyaz.errors import RiyazError
from riyaz.teacher import endpoint
from riyaz.teacher.endpoint import KEY, Endpoint, ask


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, and no answer comes too late."""
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setattr(endpoint, "TIMEOUT", HANG)


def workers() -> int:
    """Threads of `ask` that live. The end of the program waits for none of them."""
    alive = [thread for thread in threading.enumerate() if "(work)" in thread.name]
    assert all(thread.daemon for thread in alive)
    return len(alive)


@dataclass
class Answering:
    """A server that answers a conversation with its own text, refuses "fail" and leaves "stall" without an answer."""

    fake: Fake
    ready: dict[str, Callable[[], bool]] = field(default_factory=dict)  # of a text: when it is answered
    broken: list[str] = field(default_factory=list)  # what clients broke off

    def ask(self, texts: str, keep: Callable[[int, str], None]) -> None:
        """Ask for answers to these texts."""
        conversations: list[list[Message]] = [[{"role": "user", "content": text}] for text in texts.split()]
        ask(Endpoint(self.fake.address, "m"), conversations, 7, keep)

    def all_stopped(self, stalled: int) -> None:
        """Wait until so many requests have been broken off and no thread is left."""
        until(lambda: self.broken == ["stall"] * stalled and workers() == 0, "the end of every request")


@pytest.fixture
def answering() -> Iterator[Answering]:
    def reply(handler: Handler) -> None:
        text = handler.body["messages"][0]["content"]
        if text == "stall":
            return made.broken.append(text) if handler.connection.recv(1) == b"" else None
        until(made.ready.get(text, lambda: True), f"what {text!r} waits for")
        handler.document({"error": "no"}, 400) if text == "fail" else handler.answer(text)

    with fake_endpoint(reply) as fake:
        made = Answering(fake)
        yield made


def test_the_first_failure_ends_it_after_what_had_arrived(answering: Answering) -> None:
    kept: dict[int, str] = {}
    answering.ready["fail"] = lambda: len(kept) == 4 and len(answering.fake.calls) == 8
    with pytest.raises(RiyazError, match="400 Bad Request"):
        answering.ask("stall 1 2 3 4 fail stall stall 8 9 10", kept.__setitem__)
    assert kept == {1: "1", 2: "2", 3: "3", 4: "4"}
    answering.all_stopped(3)
    assert len(answering.fake.calls) == 8, "nothing is sent after the failure"


def test_answers_that_arrived_before_the_failure_was_seen_are_kept(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[int, str] = {}
    arrived: list[int] = []

    class Watched(queue.SimpleQueue):  # type: ignore[type-arg]
        """A queue that tells which answers and failures are in it."""

        def put(self, item: object, *more: object) -> None:
            super().put(item)
            if isinstance(item, tuple):
                arrived.append(item[0])

    def keep(place: int, text: str) -> None:
        kept[place] = text
        until(lambda: len(arrived) == 4, "the failure, and other answers after it")

    monkeypatch.setattr(endpoint, "queue", SimpleNamespace(SimpleQueue=Watched, Empty=queue.Empty))
    answering.ready |= {"fail": lambda: bool(kept), "later": lambda: 1 in arrived}
    with pytest.raises(RiyazError, match="400 Bad Request"):
        answering.ask("first fail later later", keep)
    assert kept == {0: "first", 2: "later", 3: "later"} and arrived[:2] == [0, 1]


def test_a_failure_to_keep_ends_it(answering: Answering) -> None:
    def full(place: int, text: str) -> None:
        raise RiyazError("the disk is full")

    answering.ready |= dict.fromkeys("12", lambda: len(answering.fake.calls) == 3)
    with pytest.raises(RiyazError, match="the disk is full"):
        answering.ask("stall 1 2", full)
    answering.all_stopped(1)


def test_control_c_stops_at_once(answering: Answering) -> None:
    kept: dict[int, str] = {}

    def interrupt() -> None:
        until(lambda: len(answering.fake.calls) == 4 and len(kept) == 1, "an answer, and three requests under way")
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        answering.ask("stall 1 stall stall", kept.__setitem__)
    assert kept == {1: "1"}
    other.join()
    answering.all_stopped(3)


def test_a_wait_for_the_next_try_ends_too(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take longer than `until` does."""
    wait, waits = threading.Event.wait, list[float | None]()

    def told(event: threading.Event, seconds: float | None = None) -> bool:
        waits.append(seconds)
        return wait(event, seconds)

    def reply(handler: Handler) -> None:
        busy = handler.body["messages"][0]["content"] == "busy"
        if not busy:
            until(lambda: HANG + 1 in waits, "the wait for the next try")
        handler.document({"error": "no"}, 503 if busy else 400)

    for name in ("FIRST_WAIT", "LONGEST_WAIT"):
        monkeypatch.setattr(endpoint, name, HANG + 1)
    monkeypatch.setattr(threading.Event, "wait", told)
    answering.fake.reply = reply
    with pytest.raises(RiyazError, match="400 Bad Request"):
        answering.ask("busy fail", lambda place, text: None)
    answering.all_stopped(0)
    assert len(answering.fake.calls) == 2
