"""Output that is made and not read: bounded in bytes and in seconds, so that a client that stops reading keeps neither
a place among the answers nor memory.

Events of a stream are taken as they are made, whether the client reads or not, so that an answer's place is free when
its generation ends. Where a mebibyte is unread no further event is taken. Where one event is unread for half a minute
the client is given up. So a client that reads 35 KB a second is never given up; one answer without log-probabilities
makes about 5.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

ABORT = "riyaz.abort"  # the extension of a scope that closes the connection at once
UNREAD = 2**20  # bytes of a stream that are kept until the client reads
UNREAD_SECONDS = 30.0  # in which an event, or UNREAD bytes of a longer answer, must be read


@dataclass(frozen=True)
class _Event:
    text: str
    size: int  # bytes
    made: float  # on the clock of time.monotonic


class Unread:
    """The events of a stream between whoever makes and whoever sends them: `fill` and `sent` run at once."""

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        self._events, self._waiting = events, deque[_Event]()
        self._bytes, self._over = 0, False
        self._error: Exception | None = None
        self._changed = asyncio.Event()

    async def fill(self) -> None:
        """Take the events as they are made, each in a turn of the loop, in which a client that has gone is noticed."""
        try:
            async for text in self._events:
                event = _Event(text, len(text.encode()), time.monotonic())
                self._waiting.append(event)
                self._bytes += event.size
                self._changed.set()
                await asyncio.sleep(0)
                while self._bytes > UNREAD:
                    await self._change()
        except Exception as error:
            self._error = error
        finally:
            self._over = True
            self._changed.set()

    async def sent(self) -> AsyncIterator[str]:
        """The events in order; one is unread until the next is asked for. Raises what was raised when they were
        made."""
        while self._waiting or not self._over:
            if not self._waiting:
                await self._change()
                continue
            yield self._waiting[0].text
            self._bytes -= self._waiting.popleft().size
            self._changed.set()
        if self._error is not None:
            raise self._error

    @property
    def patience(self) -> float:
        """Seconds until the oldest event has been unread for too long; at most 0 when it has."""
        made = self._waiting[0].made if self._waiting else time.monotonic()
        return made + UNREAD_SECONDS - time.monotonic()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
