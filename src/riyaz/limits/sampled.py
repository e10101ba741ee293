"""A seeded share of items, every group in its proportion, for a budget that is too short for all."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from riyaz.errors import RiyazError

T = TypeVar("T")


def sampled(items: Sequence[T], share: float, least: int, groups: Sequence[str] = ()) -> list[T]:
    """The given share of the items in their order, at least `least` (all, if there are fewer), and of every group at
    least one; which ones is decided by their texts, so that two models get the same."""
    if share >= 1 or len(items) <= least:
        return list(items)
    count = max(least, math.ceil(share * len(items)))
    members = defaultdict[str, list[int]](list)
    for place, _ in enumerate(items):
        members[groups[place] if groups else ""].append(place)
    chosen: set[int] = set()
    for places in members.values():
        by_hash = sorted(places, key=lambda place: hashlib.sha256(repr(items[place]).encode()).digest())
        chosen |= set(by_hash[: max(1, round(count * len(places) / len(items)))])
    return [items[place] for place in sorted(chosen)]


def short_of(done: int, all_of: int, what: str) -> list[str]:
    """The note on what the budget was too short for; none where everything was measured."""
    return [] if done == all_of else [f"The budget was too short for {all_of - done:,} of the {all_of:,} {what}."]


def too_long(count: int, context: int, what: str) -> list[str]:
    """The note on what is longer than the context, and so was not asked; none where everything fits."""
    return [f"Left out, as longer than the context of {context:,} tokens: {count:,} of the {what}."] if count else []


def expect_some(items: Sequence[object], source: str, context: int) -> None:
    """Raises RiyazError where nothing fits the context."""
    if not items:
        raise RiyazError(f"nothing in it fits the context of {context:,} tokens", source, "give shorter texts")


def shortest(lengths: Sequence[int], share: float) -> int:
    """How many of the items with these ascending lengths are measured, so that they together take the share of the
    time of all; the first in any case."""
    room, taken = share * sum(lengths) * 1.001, 0
    for count, length in enumerate(lengths):
        taken += length
        if count and taken > room:
            return count
    return len(lengths)
