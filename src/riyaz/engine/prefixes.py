"""Prefixes of requests and beginnings of prompts: what was read before is not read again.

A prefix is read by the model when it is first asked for. A server also keeps the whole pages of the prompts that it has
read (`keep`), so that the next turn of a conversation reads what is new. They are kept for the owner of the prompt
alone: else the count of kept tokens, or the time, would tell whoever asks which texts others have asked about. A
sequence that goes on after kept pages has the same slots in its own pages, and the rest of its prompt is long enough
for the same products, so that its results are bit by bit those of a prompt that is read whole.

Where keys and values would exceed the runner's limit, first kept prompts and then those prefixes are closed that no
open sequence begins with, the least recently used first; who asks for one again has it read again.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from riyaz.engine.request import Request
from riyaz.engine.runner import CacheFull, Runner, TokenRun

SHORTEST = 32  # tokens that are left to read at least: products of fewer round otherwise
MOST = 64  # kept prompts


class Key(NamedTuple):
    """A prefix behind the soft prompt of its adapter."""

    adapter: str | None
    tokens: tuple[int, ...]


class Begun(NamedTuple):
    """The beginning of a prompt, in whole pages behind a prefix, and whose it is."""

    owner: int
    key: Key
    tokens: tuple[int, ...]


class Prefixes:
    """The kept prefixes and prompts of a runner, and the sequences of requests that begin with them. Of prompts at most
    `keep_bytes` are kept."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._sequences: OrderedDict[Key, int] = OrderedDict()  # -> sequence; the least recently used first
        self._reading: dict[Key, tuple[int, list[tuple[int, ...]]]] = {}  # sequence, pieces that are still to be read
        self._begun: OrderedDict[Begun, int] = OrderedDict()  # as `_sequences`
        self._of: dict[int, Key] = {}  # open sequences that begin with a kept prefix
        self.keep_bytes = 0

    def key(self, request: Request) -> Key | None:
        """The prefix of a request: its own tokens after the soft prompt of its adapter; None where it has neither."""
        shared = request.prefix or self.runner.adapter_tokens(request.adapter)
        return Key(request.adapter, request.prefix) if shared else None

    def keeps(self, request: Request) -> bool:
        """Whether the prefix of a request has been read already."""
        return self.key(request) in self._sequences

    def read_on(self, request: Request, piece: int) -> bool:
        """Read the next piece of a request's prefix, of at most `piece` tokens; whether all of it is read. Raises
        CacheFull."""
        key = self.key(request)
        return key is None or self._read_on(key, piece)

    def open(self, request: Request, tokens: Sequence[int] = (), room: int = 0) -> tuple[int, int]:
        """A new sequence with the request's adapter and prefix, and the beginning of its own `tokens` that is kept of
        an earlier one; and the number of these tokens. Raises CacheFull."""
        key = self.key(request)
        longest = self._longest(Begun(request.owner, key or Key(request.adapter, ()), tuple(tokens)))
        if longest is not None:
            return self._after(*longest, room), longest[1]
        if key is None:
            return self.runner.open(request.adapter, None, room), 0
        sequence = self.runner.open(request.adapter, self._sequence(key), room)
        self._of[sequence] = key
        return sequence, 0

    def close(self, sequence: int) -> None:
        """Close a sequence that `open` gave, or a fork."""
        self._of.pop(sequence, None)
        self.runner.close(sequence)

    def keep(self, request: Request, sequence: int) -> None:
        """Keep the whole pages of a prompt that a sequence has read."""
        page = self.runner.page
        count = len(request.tokens) // page * page if page else 0
        begun = Begun(request.owner, self.key(request) or Key(request.adapter, ()), tuple(request.tokens[:count]))
        if not count or self.runner.bytes_of(count) > self.keep_bytes:
            return
        for other in [each for each in self._begun if each[:2] == begun[:2]]:
            if other.tokens[:count] == begun.tokens:
                return self._begun.move_to_end(other)
            if begun.tokens[: len(other.tokens)] == other.tokens:
                self.runner.close(self._begun.pop(other))
        self._begun[begun] = self.runner.fork(sequence, self._start(begun.key) + count)
        while len(self._begun) > MOST or sum(map(self._begun_bytes, self._begun)) > self.keep_bytes:
            self.runner.close(self._begun.popitem(last=False)[1])

    def forward(self, runs: Sequence[TokenRun]) -> list[Any]:
        """`Runner.forward`, for which what is kept makes room. Raises CacheFull where that is not enough."""
        return self._forward(runs, None)

    def bytes_of(self, requests: Sequence[tuple[Request, int]]) -> int:
        """Most bytes of keys and values that these requests take together, each with its number of own tokens."""
        keys = {key for key in (self.key(request) for request, _ in requests) if key is not None}
        return sum(self.runner.bytes_of(tokens) for _, tokens in requests) + sum(map(self._bytes, keys))

    def drop(self, adapter: str) -> None:
        """Close everything that is kept of an adapter."""
        for key in [key for key in self._sequences if key.adapter == adapter]:
            self.runner.close(self._sequences.pop(key))
        for key in [key for key in self._reading if key.adapter == adapter]:
            self.runner.close(self._reading.pop(key)[0])
        for begun in [begun for begun in self._begun if begun.key.adapter == adapter]:
            self.runner.close(self._begun.pop(begun))

    def _longest(self, wanted: Begun) -> tuple[Begun, int] | None:
        """The kept prompt of the same owner that shares most whole pages with the wanted one, and their tokens; None
        without any."""
        best: tuple[Begun, int] | None = None
        page = self.runner.page
        for begun in self._begun:
            if begun[:2] == wanted[:2]:
                most = min(len(begun.tokens), len(wanted.tokens) - SHORTEST) // page
                count = page * _common(begun.tokens, wanted.tokens, page, most)
                if count and (best is None or count > best[1]):
                    best = begun, count
        return best

    def _after(self, begun: Begun, count: int, room: int) -> int:
        """A sequence after the first `count` tokens of a kept prompt."""
        self._begun.move_to_end(begun)
        if begun.key in self._sequences:
            self._sequences.move_to_end(begun.key)
        beginning = self.runner.fork(self._begun[begun], self._start(begun.key) + count)
        try:
            return self.runner.open(begun.key.adapter, beginning, room)
        finally:
            self.runner.close(beginning)

    def _start(self, key: Key) -> int:
        """Positions before a request's own tokens."""
        return self.runner.adapter_tokens(key.adapter) + len(key.tokens)

    def _sequence(self, key: Key) -> int:
        """The sequence of a prefix, read now or kept from an earlier request."""
        while not self._read_on(key, 0):
            pass
        self._sequences.move_to_end(key)
        while sum(map(self._bytes, self._sequences)) > self.runner.cache_limit and self._evict(but=key):
            pass  # a runner that knows no limit of its own is kept below it here
        return self._sequences[key]

    def _read_on(self, key: Key, piece: int) -> bool:
        if key in self._sequences:
            return True
        if key not in self._reading:
            self._reading[key] = self.runner.open(key.adapter), pieces(key.tokens, piece)
        sequence, left = self._reading[key]
        try:
            self._forward([TokenRun(sequence, left[0])], key)
        except BaseException:
            self.runner.close(self._reading.pop(key)[0])
            raise
        left.pop(0)
        if not left:
            self._sequences[key] = self._reading.pop(key)[0]
        return not left

    def _forward(self, runs: Sequence[TokenRun], but: Key | None) -> list[Any]:
        while True:
            try:
                return self.runner.forward(runs)
            except CacheFull:
                if not self._evict(but):
                    raise

    def _bytes(self, key: Key) -> int:
        return self.runner.bytes_of(self._start(key))

    def _begun_bytes(self, begun: Begun) -> int:
        return self.runner.bytes_of(len(begun.tokens))

    def _evict(self, but: Key | None = None) -> bool:
        """Close a kept prompt, or a prefix that is half read, or the least recently used prefix that no open sequence
        begins with; whether there was one."""
        if self._begun:
            self.runner.close(self._begun.popitem(last=False)[1])
            return True
        half = next((key for key in self._reading if key != but), None)
        if half is not None:
            self.runner.close(self._reading.pop(half)[0])
            return True
        used = {but, *self._of.values()}
        key = next((key for key in self._sequences if key not in used), None)
        if key is not None:
            self.runner.close(self._sequences.pop(key))
        return key is not None


def _common(one: Sequence[int], other: Sequence[int], page: int, most: int) -> int:
    """Number of whole pages, at most `most`, in which two prompts begin alike."""
    if most < 1 or one[:page] != other[:page]:
        return 0
    return 1 + bisect_left(range(most - 1), True, key=lambda n: one[: page * (n + 2)] != other[: page * (n + 2)])


def pieces(tokens: Sequence[int], longest: int, answer: Sequence[int] = ()) -> list[tuple[int, ...]]:
    """A prompt in pieces of nearly equal lengths, so that none is short and computed otherwise than the others; 0 takes
    it whole. The tokens of an answer that goes on after it are in short ones: each is computed as in the run of one
    token that it had at first, and the rest of the answer gets the same bits."""
    return _cut(tokens, longest) + (_cut(answer, SHORTEST - 1) if answer else [])


def _cut(tokens: Sequence[int], longest: int) -> list[tuple[int, ...]]:
    count = -(-len(tokens) // longest) if longest and tokens else 1
    cuts = [len(tokens) * i // count for i in range(count + 1)]
    return [tuple(tokens[start:end]) for start, end in pairwise(cuts)]
