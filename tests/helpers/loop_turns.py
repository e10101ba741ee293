"""What a server's event loop does between two looks at its connections, in which all who ask wait: in calls of
functions, since a clock counts what else the machine does."""

import sys
import threading
from asyncio import base_events
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
def turns(server: Running) -> Iterator[Turns]:
    """The turns of the server's event loop within the block."""
    loop, counted, set_up = server.state.engine._loop, Turns(), threading.Event()
    assert loop is not None

    def profile(count: object) -> None:
        sys.setprofile(count)  # type: ignore[arg-type]
        set_up.set()

    loop.call_soon_threadsafe(profile, counted.count)
    assert set_up.wait(HANG)
    try:
        yield counted
    finally:
        loop.call_soon_threadsafe(profile, None)
