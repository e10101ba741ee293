"""Whose a request is: a number for each key, by which what is kept of prompts is kept apart.

The guard says it for every request, and everything that the request starts in the event loop knows it. So what goes to
the engine has its owner however it came there, and no route can forget it.
"""

import hashlib
from contextvars import ContextVar

_owner: ContextVar[int] = ContextVar("owner", default=0)


def owner_of(secret: str) -> int:
    """The number of a key, which stays the same where it stands elsewhere in the file, and does not tell the key."""
    return int.from_bytes(hashlib.sha256(b"owner " + secret.encode("utf-8", "replace")).digest()[:8])


def asking_as(number: int) -> None:
    """Say whose the request is that this task answers."""
    _owner.set(number)


def owner() -> int:
    """Whose the request is that this task answers; 0 where there are no keys."""
    return _owner.get()
