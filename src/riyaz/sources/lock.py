"""One process at a time for one model: whoever comes second waits, and then finds it there."""

import fcntl
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from riyaz.sources import store
from riyaz.sources.store import Progress

POLL_SECONDS = 0.2


@contextmanager
def locked(name: str, report: Progress) -> Iterator[None]:
    """Holds the store's lock of that name; it dies with its holder. A store that cannot be written has none."""
    path = store.home() / "locks" / (hashlib.sha256(name.encode()).hexdigest()[:32] + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("w")
    except OSError:  # said by whatever writes next, if anything must be written
        yield
        return
    with handle:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            report("wait for another pull", 0, 1)
            time.sleep(POLL_SECONDS)
        yield
