"""What connections share: the time of the event loop and their number, so that a client waits for a few of the others'
requests and not for all that came at once, and strangers cannot use up the server's files."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

TURN = 0.002  # seconds of one turn of the event loop in which heads of requests are read
MOST = 4096  # connections that are open at once


class Sharing(Protocol):
    """A connection."""

    def read_head(self) -> None:
        """Read the head that has come."""

    def drop(self) -> None:
        """Close it at once, with what was not sent."""


class Shared:
    """What the connections of one server share. `most`: how many may be open. `knows` says of a head whether it brings
    a key. `clock`: in seconds."""

    def __init__(
        self, knows: Callable[[bytes], bool], most: int = MOST, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.knows, self.most, self._clock = knows, most, clock
        self.came = 0  # connections and heads of requests until now
        self._first, self._others = deque[Sharing](), deque[Sharing]()
        self._spent, self._counting = 0.0, False
        self._waiting: dict[Sharing, None] = {}  # it is the client's turn: to send a head, to read; longest first
        self._served = set[Sharing]()

    def take(self, connection: Sharing, head: bytes) -> None:
        """Let the connection read its head in this turn of the loop where there is time for it, else in a later one:
        those with a key first, then first come first served."""
        self.came += 1
        (self._first if self.knows(head) else self._others).append(connection)
        self._run()
        self._count()

    def _next(self) -> None:
        self._spent, self._counting = 0.0, False
        self._run()
        self._count()

    def _count(self) -> None:
        """See to it that a further turn begins with all its time."""
        if self._spent and not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._next)

    def _run(self) -> None:
        began, before = self._clock(), self._spent
        while (waiting := self._first or self._others) and self._spent < TURN:
            connection = waiting.popleft()
            try:
                connection.read_head()
            except Exception as error:  # of this connection, whoever's turn it is
                context = {"message": "a request's head could not be read", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
                connection.drop()
            self._spent = before + self._clock() - began

    def enter(self, connection: Sharing) -> bool:
        """Count a new connection. Where there are too many, the one that waits longest for its client is closed; False
        where there is none."""
        self.came += 1
        if len(self._waiting) + len(self._served) >= self.most:
            if not self._waiting:
                return False
            longest = next(iter(self._waiting))
            self.leave(longest)
            longest.drop()
        self._waiting[connection] = None
        return True

    def leave(self, connection: Sharing) -> None:
        """A connection is closed."""
        self._waiting.pop(connection, None)
        self._served.discard(connection)

    def serve(self, connection: Sharing) -> None:
        """It is the server's turn: a request has come, or the client has read."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._served.add(connection)

    def wait(self, connection: Sharing) -> None:
        """It is the client's turn: an answer is to be read, or a further request may come."""
        if connection in self._served:
            self._served.discard(connection)
            self._waiting[connection] = None
