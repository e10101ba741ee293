"""Prefixes that requests begin with: each is read once, and kept until others need its room.

A prefix is read by the model when it is first asked for. Where keys and values would exceed the runner's limit, those
kept prefixes that no open sequence begins with are closed, the least recently used first; who asks for one again has it
read again.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from riyaz.engine.request import Request
from riyaz.engine.runner import CacheFull, Run, Runner

Key = tuple[str | None, tuple[int, ...]]  # adapter, tokens


class Prefixes:
    """The kept prefixes of a runner, and the sequences of requests that begin with them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._kept: OrderedDict[Key, int] = OrderedDict()  # -> sequence; the least recently used first
        self._of: dict[int, Key] = {}  # open sequences that begin with a kept prefix

    def key(self, request: Request) -> Key | None:
        """The prefix of a request: its own tokens after the soft prompt of its adapter; None where it has neither."""
        shared = request.prefix or self._runner.adapter_tokens(request.adapter)
        return (request.adapter, request.prefix) if shared else None

    def keeps(self, request: Request) -> bool:
        """Whether the prefix of a request has been read already."""
        return self.key(request) in self._kept

    def open(self, request: Request, room: int = 0) -> int:
        """A new sequence with the request's adapter and prefix, without its own tokens. Raises CacheFull."""
        key = self.key(request)
        if key is None:
            return self._runner.open(request.adapter, None, room)
        sequence = self._runner.open(request.adapter, self._sequence(key), room)
        self._of[sequence] = key
        return sequence

    def close(self, sequence: int) -> None:
        """Close a sequence that `open` gave, or a fork."""
        self._of.pop(sequence, None)
        self._runner.close(sequence)

    def forward(self, runs: Sequence[Run]) -> list[Any]:
        """`Runner.forward`, for which kept prefixes make room. Raises CacheFull where that is not enough."""
        while True:
            try:
                return self._runner.forward(runs)
            except CacheFull:
                if not self._evict():
                    raise

    def bytes_of(self, requests: Sequence[Request]) -> int:
        """Most bytes of keys and values that these requests take together, from their prompts to their limits."""
        keys = {key for key in map(self.key, requests) if key is not None}
        own = sum(self._runner.bytes_of(len(request.tokens) + request.limit) for request in requests)
        return own + sum(map(self._bytes, keys))

    def drop(self, adapter: str) -> None:
        """Close all kept prefixes of an adapter."""
        for key in [key for key in self._kept if key[0] == adapter]:
            self._runner.close(self._kept.pop(key))

    def _sequence(self, key: Key) -> int:
        """The sequence of a prefix, read now or kept from an earlier request."""
        if key not in self._kept:
            sequence = self._runner.open(key[0])
            try:
                self.forward([Run(sequence, key[1])])
            except BaseException:
                self._runner.close(sequence)
                raise
            self._kept[key] = sequence
        self._kept.move_to_end(key)
        while sum(map(self._bytes, self._kept)) > self._runner.cache_limit and self._evict(but=key):
            pass  # a runner that knows no limit of its own is kept below it here
        return self._kept[key]

    def _bytes(self, key: Key) -> int:
        adapter, tokens = key
        return self._runner.bytes_of(self._runner.adapter_tokens(adapter) + len(tokens))

    def _evict(self, but: Key | None = None) -> bool:
        """Close the least recently used prefix that no open sequence begins with; whether there was one."""
        used = {but, *self._of.values()}
        key = next((key for key in self._kept if key not in used), None)
        if key is not None:
            self._runner.close(self._kept.pop(key))
        return key is not None
