"""An engine whose steps wait until a test lets them go on: what happens beside an answer does not depend on who is
faster."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waiting import HANG

from riyaz.engine.engine import Engine


class Gate:
    """Stands before each step of a model, open at first. `steps`: how many have come to it. A step makes one token."""

    def __init__(self, lm: Engine) -> None:
        self.steps = 0
        self._open, self._free = True, threading.Semaphore(0)
        forward = lm.runner.forward

        def passing(runs: Any) -> Any:
            self.steps += 1
            assert self._open or self._free.acquire(timeout=HANG)
            return forward(runs)

        lm.runner.forward = passing  # type: ignore[method-assign]
        lm.drafts.mode = "off"

    @contextmanager
    def closed(self, steps: int = 0) -> Iterator[None]:
        """Within the block only so many more steps go through; they are counted anew."""
        self.steps, self._free, self._open = 0, threading.Semaphore(steps), False
        try:
            yield
        finally:
            self.open()

    def let(self, steps: int) -> None:
        """Let so many more steps through."""
        self._free.release(steps)

    def open(self) -> None:
        """Let all steps through, also the one that waits."""
        self._open = True
        self._free.release()
