"""One process at a time for one model: whoever comes second waits, and then finds it there."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from riyaz.files import try_lock
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
        while not try_lock(handle):
            report("wait for another pull", 0, 1)
            time.sleep(POLL_SECONDS)
        yield
