"""Work whose time must grow no faster than its input: what searches a long text again from each place is stopped."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 60  # seconds of this process's computing, some hundred times what is needed; they stand still while it does


class NotLinear(BaseException):
    """No Exception: readers of strange files turn those into a line about the file."""


@contextmanager
def linear() -> Iterator[None]:
    """Fails where what is inside computes for MOST seconds. Its input must be so long that a search from each place
    takes longer: some 300,000 characters for a regular expression, 60,000 for a loop of Python."""

    def stop(number: int, frame: object) -> None:
        raise NotLinear(f"computed for {MOST} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MOST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
