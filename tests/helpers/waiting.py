"""Waiting for what another thread or process does. No test passes or fails by the time that something takes: these
limits are reached only by what never ends, also where the tests' processes stand still for minutes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

HANG = 600.0  # seconds for `timeout=`, `wait` and `join`: what takes so long hangs
POLL = 0.01  # seconds between two looks
LOOKS = 30_000  # looks, not seconds: five minutes, in which a process that stands still does not look


def until(look: Callable[[], T], what: str) -> T:
    """The first true value that `look` returns. Raises AssertionError with `what` was waited for after many looks."""
    for _ in range(LOOKS):
        if found := look():
            return found
        time.sleep(POLL)
    raise AssertionError(f"it never came: {what}")
