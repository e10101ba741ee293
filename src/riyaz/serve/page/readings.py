"""Readings for the screen Inside: how many wait, and the last one, which the screen asks for part by part."""

import asyncio
import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

from riyaz.inside import Inside
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served

MOST = 16  # requests that wait or are answered
AGAIN = 2  # seconds after which a client may ask again
KEPT = 60.0  # seconds for which a reading is kept after it was last asked for; it may take hundreds of megabytes


@dataclass(eq=False)
class Readings:
    """One reading of one model is kept, and dropped a while after it was last asked for."""

    open: int = 0
    _kept: "tuple[weakref.ref[Served], Inside] | None" = None
    _dropping: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue. Raises Problem 429 where it is full."""
        if self.open >= MOST:
            message = f"the queue is full: {self.open} readings wait"
            extra = {"queue_length": self.open, "queue_limit": MOST}
            raise Problem(429, message, headers={"Retry-After": str(AGAIN)}, extra=extra)
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    def last(self, served: Served, ids: tuple[int, ...], at: int | None) -> Inside | None:
        """The kept reading, if it is of these tokens by this model; `at`: and of this token, any where it is None."""
        if self._kept is None or self._kept[0]() is not served:
            return None
        inside = self._kept[1]
        own = tuple(token for token in inside.ids if token >= 0)
        return inside if own == ids and at in (None, inside.at - inside.soft) else None

    def keep(self, served: Served, inside: Inside) -> None:
        """Keep a reading in the place of the last one; called in the event loop."""
        self._kept = weakref.ref(served), inside
        if self._dropping is not None:
            self._dropping.cancel()
        self._dropping = asyncio.get_running_loop().call_later(KEPT, self.drop)

    def drop(self) -> None:
        """Keep none any longer."""
        self._kept = None
