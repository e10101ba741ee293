"""What connections share: whose heads are read first and how long in one turn, and which connection is closed for a new
one."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import uvicorn

from riyaz.config import ServeConfig
from riyaz.serve import sharing
from riyaz.serve.opening import Opener
from riyaz.serve.server import Server
from riyaz.serve.sharing import Shared
from riyaz.serve.shelf import Shelf
from riyaz.serve.state import State


class Open:
    """A connection that says whether it was closed, and reads its head with `read`."""

    dropped = False

    def __init__(self, read: Callable[[], None] = lambda: None) -> None:
        self.read_head = read

    def drop(self) -> None:
        self.dropped = True


class Clock:
    """A clock that goes on only while a head is read."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def busy(self, seconds: float, then: Callable[[], None]) -> Open:
        """A connection whose head takes so long."""

        def read() -> None:
            self.now += seconds
            then()

        return Open(read)


async def turns(done: Callable[[], bool], most: int = 100) -> None:
    """Turns of the event loop until it is done."""
    for _ in range(most):
        if done():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"not done in {most} turns")


def test_heads_with_a_key_are_read_first_and_the_others_in_the_order_in_which_they_came() -> None:
    read: list[str] = []

    async def come() -> None:
        clock = Clock()
        shared = Shared(lambda head: b"key" in head, clock=clock)
        for place in range(4):
            shared.take(clock.busy(sharing.TURN, lambda place=place: read.append(f"stranger {place}")), b"")  # type: ignore[misc]
        shared.take(Open(lambda: read.append("key")), b"key")
        await turns(lambda: len(read) == 5)

    asyncio.run(come())
    assert read == ["stranger 0", "key", "stranger 1", "stranger 2", "stranger 3"]


def test_all_heads_that_come_in_one_turn_share_its_time() -> None:
    """500 heads that came at once were read in one turn, so all others waited for all of them."""
    read: list[int] = []
    counts: list[int] = []

    async def come() -> None:
        clock = Clock()
        shared = Shared(lambda head: False, clock=clock)
        for place in range(60):
            shared.take(clock.busy(sharing.TURN / 4, lambda place=place: read.append(place)), b"")  # type: ignore[misc]
        await turns(lambda: counts.append(len(read)) or len(read) == 60)

    asyncio.run(come())
    assert read == list(range(60)) and counts[0] == 4
    assert {after - before for before, after in itertools.pairwise(counts)} == {4}, counts


def test_a_head_that_fails_ends_its_connection_and_no_other() -> None:
    """It ended the connection of which a head came next, and the heads behind it were not read before another came."""
    read: list[int] = []
    reported: list[dict[str, Any]] = []

    def fail() -> None:
        raise OSError("of the test")

    clock = Clock()
    first = clock.busy(sharing.TURN, lambda: read.append(1))
    failing, last = Open(fail), Open(lambda: read.append(2))

    async def come() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
        shared = Shared(lambda head: False, clock=clock)
        for each in (first, failing, last):
            shared.take(each, b"")
        assert read == [1], "the others are read in a later turn"
        await turns(lambda: len(read) == 2)

    asyncio.run(come())
    assert read == [1, 2]
    assert failing.dropped and not first.dropped and not last.dropped
    assert [str(context["exception"]) for context in reported] == ["of the test"]


def test_the_connection_that_waits_longest_for_its_client_is_closed_for_a_new_one() -> None:
    shared = Shared(lambda head: False, most=3)
    first, second, third, fourth, fifth = (Open() for _ in range(5))
    assert all(shared.enter(each) for each in (first, second, third))
    shared.serve(first)
    assert shared.enter(fourth) and second.dropped and not third.dropped, "the first is served"
    shared.serve(third)
    shared.wait(first)
    shared.serve(fourth)
    shared.wait(third)
    assert shared.enter(fifth) and first.dropped and not third.dropped, "it waits for longer than the third"


def test_no_connection_is_closed_while_all_are_served() -> None:
    shared = Shared(lambda head: False, most=2)
    served = [Open(), Open()]
    for each in served:
        assert shared.enter(each)
        shared.serve(each)
    assert not shared.enter(Open()) and not any(each.dropped for each in served)
    shared.leave(served[0])
    assert shared.enter(Open()), "there is a place again"


def test_a_server_that_ends_closes_when_nobody_has_asked_since_its_last_look() -> None:
    """A balancer sends requests until its next check: one whose head was still to be read was lost, a 502."""
    shared = Shared(lambda head: False)
    config = uvicorn.Config(lambda scope, receive, send: None)
    server = Server(config, State(ServeConfig(drain=3600), Shelf(), Opener()), shared)

    async def looks() -> list[bool]:
        closes = [await server.on_tick(1)]
        server.should_exit = True
        closes.append(await server.on_tick(2))  # the first look
        shared.enter(Open())
        closes.append(await server.on_tick(3))
        shared.take(Open(), b"")
        closes.append(await server.on_tick(4))
        asyncio.get_running_loop().call_soon(shared.take, Open(), b"")  # it has come and is seen in this turn
        closes.append(await server.on_tick(5))
        return [*closes, await server.on_tick(6)]

    assert asyncio.run(looks()) == [False, False, False, False, False, True]
