"""A lock per model name, so that two processes do not pull one model at once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from riyaz.files import new_sha256
from riyaz.sources import store
from riyaz.sources.store import Progress
from riyaz.system import try_lock

POLL_SECONDS = 0.2


@contextmanager
def locked(name: str, report: Progress) -> Iterator[None]:
    """Waits for the lock of this name and holds it until exit or the process's end. No lock if the store is
    read-only."""
    path = store.home() / "locks" / (new_sha256(name.encode()).hexdigest()[:32] + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    except OSError:  # if the pull has to write anything, that write raises the error
        yield
        return
    with handle:
        while not try_lock(handle):
            report("wait for another pull", 0, 1)
            time.sleep(POLL_SECONDS)
        yield
