"""Work in parts: generators that pause, so that running answers continue in between; and many requests in
batches."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from riyaz.engine.request import Request
from riyaz.engine.runner import CacheFull
from riyaz.engine.scheduler import MAX_RUNNING, SLOTS

T = TypeVar("T")
Steps = Generator[None, None, T]  # pauses between its parts; returns its result


def finished(steps: Steps[T]) -> T:
    """What work in parts returns, without anything in between."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


def in_parts(batch: list[int], read: Callable[[list[int]], Steps[list[T]]]) -> Steps[list[T]]:
    """What `read` gives of a batch; of its halves, one after the other, where the whole does not fit the cache."""
    try:
        results = yield from read(batch)
        return results
    except CacheFull:
        if len(batch) == 1:
            raise
    half = len(batch) // 2
    first = yield from in_parts(batch[:half], read)
    second = yield from in_parts(batch[half:], read)
    return first + second


def batches(requests: Sequence[Request], extra: Sequence[int]) -> Iterator[list[int]]:
    """Batches of indices of requests with the same adapter, prefix and closed set and similar lengths, longest first;
    `extra` is the number of tokens that each needs after its prompt."""
    groups: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        assert request.tokens, "a request has at least one token of its own"
        groups.setdefault((request.adapter, request.prefix, id(request.constraint)), []).append(i)
    for group in groups.values():
        length = {i: len(requests[i].tokens) + extra[i] for i in group}
        batch: list[int] = []
        for i in sorted(group, key=length.__getitem__, reverse=True):
            longest = length[batch[0]] if batch else 0
            full = len(batch) == MAX_RUNNING or longest * (len(batch) + 1) > SLOTS
            if batch and (full or longest > 1.5 * length[i] + 16):
                yield batch
                batch = []
            batch.append(i)
        yield batch
