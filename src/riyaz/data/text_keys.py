"""Numbers that stand for texts, where these are too many to be held: equal ones for equal texts."""

from array import array
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MASK = 2**63 - 1


def text_key(text: str) -> int:
    """A number below 2**63. That two of two million texts share theirs has a chance of 2 in 10 million."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") & MASK


def text_keys(texts: Iterable[str]) -> "np.ndarray":
    """The key (n,) of every text, int64."""
    import numpy as np  # late: who reads a few rows needs none

    return np.frombuffer(array("q", map(text_key, texts)) or array("q"), np.int64)


def count_distinct(texts: Iterable[str]) -> int:
    """How many different texts there are."""
    import numpy as np

    return len(np.unique(text_keys(texts)))


def first_of_equals(keys: "np.ndarray") -> "np.ndarray":
    """Which keys (n,) stand at no earlier place, bool."""
    import numpy as np

    first = np.zeros(len(keys), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first
