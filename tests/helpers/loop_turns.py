"""What a server's event loop does between two looks at its connections, in which all who ask wait: in calls of
functions, since a clock counts what else the machine does."""

import sys
import threading
from asyncio import base_events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from live_server import Running
from waiting import HANG

TURN = base_events.BaseEventLoop._run_once.__code__


class Turns:
    """`most`: of all turns, the largest number of calls, of Python's functions and of C's."""

    def __init__(self) -> None:
        self.most = self._now = 0

    def count(self, frame: FrameType, event: str, _: object) -> None:
        """What `sys.setprofile` calls."""
        if event == "call" and frame.f_code is TURN:
            self._now = 0
        elif event in ("call", "c_call"):
            self._now += 1
            self.most = max(self.most, self._now)


@contextmanager
def lines(server: Running) -> Iterator[list[int]]:
    """How many lines of Python the event loop runs within the block, in all; as the one entry of a list."""
    counted = [0]

    def count(frame: FrameType, event: str, _: object) -> Any:
        counted[0] += event == "line"
        return count

    before = list[Any]()
    _in_loop(server, lambda: (before.append(sys.gettrace()), sys.settrace(count)))
    try:
        yield counted
    finally:
        _in_loop(server, lambda: sys.settrace(before[0]))


@contextmanager
def turns(server: Running) -> Iterator[Turns]:
    """The turns of the server's event loop within the block."""
    counted = Turns()
    _in_loop(server, lambda: sys.setprofile(counted.count))
    try:
        yield counted
    finally:
        _in_loop(server, lambda: sys.setprofile(None))


def _in_loop(server: Running, call: Callable[[], object]) -> None:
    """Call a function in the thread of the event loop."""
    loop, done = server.state.engine._loop, threading.Event()
    assert loop is not None
    loop.call_soon_threadsafe(lambda: (call(), done.set()))
    assert done.wait(HANG)
