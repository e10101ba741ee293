"""Reads an input once and behind it, in forks, what is asked about it and all that may be answered.

A fork begins on a page of its own, and all runs are computed as those of many tokens, so that its result is bit by bit
the same whichever forks are read beside it, and in which parts.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from riyaz.engine.parts import Steps, in_parts
from riyaz.engine.prefixes import Prefixes, pieces
from riyaz.engine.request import Request
from riyaz.engine.runner import Named, TokenRun

TOGETHER = 2048  # tokens of forks whose keys and values are in memory together, and of the endings of one
PASS = 1024  # most tokens of a part where none is given
CUT = 256  # most tokens of a run of endings

_Work = tuple[TokenRun, Callable[[Any], None] | None]  # a run, and who gets its result


@dataclass(frozen=True)
class Fork:
    """What is read behind the first `shared` tokens of an input: `tokens`, at least one, and behind these each of the
    `endings`, whose log-probabilities are wanted."""

    shared: int
    tokens: tuple[int, ...]
    endings: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Stem:
    """An input, and the forks behind it: `request` has its tokens."""

    request: Request
    forks: tuple[Fork, ...]


@dataclass(frozen=True)
class ForkScores:
    """The log-probability of each ending of each fork behind a stem: arrays (E,), float64; and how many of the stem's
    tokens had been read for earlier requests."""

    scores: list[np.ndarray]
    cached: int


@dataclass(eq=False)
class _Part:
    """Some endings of a fork, which are read together: where they belong, their indices, the log-probability of each
    node of their tree, and open sequences: behind the fork's tokens, then of each chain."""

    stem: int
    fork: int
    endings: list[int]
    tree: "_Tree"
    log_p: np.ndarray
    sequences: list[int] = field(default_factory=list)


@dataclass(eq=False)
class _Chain:
    """Tokens of endings that are read in one sequence, behind `after` tokens of the chain number `parent` (-1: of the
    fork's own tokens, all of them). After its tokens number `rows` (n,) the tokens `wanted` (n,) may follow, which are
    the nodes `children` (n,)."""

    parent: int
    after: int
    tokens: tuple[int, ...]
    rows: np.ndarray
    wanted: np.ndarray
    children: np.ndarray


class _Tree:
    """Endings as a tree, whose node 0 is their beginning: the token of each node, the path of each ending, and chains
    of the nodes that must be read."""

    def __init__(self, endings: Sequence[tuple[int, ...]]) -> None:
        self.children: list[dict[int, int]] = [{}]  # token -> node
        self.token, self.paths = [-1], []
        for ending in endings:
            path, node = [], 0
            for token in ending:
                if token not in self.children[node]:
                    self.children[node][token] = len(self.token)
                    self.token.append(token)
                    self.children.append({})
                node = self.children[node][token]
                path.append(node)
            self.paths.append(path)
        self.first = self._branch(-1, 0, [0])
        self.chains = list(self._chains())

    def totals(self, log_p: np.ndarray) -> list[float]:
        """The log-probability of each ending, from those of the nodes."""
        return [float(log_p[path].sum()) for path in self.paths]

    def _branch(self, parent: int, after: int, nodes: list[int]) -> _Chain:
        pairs = [(row, *child) for row, node in enumerate(nodes) for child in self.children[node].items()]
        rows, wanted, children = map(np.array, zip(*pairs))
        return _Chain(parent, after, tuple(self.token[node] for node in nodes), rows, wanted, children)

    def _chains(self) -> Iterator[_Chain]:
        """The nodes that must be read, those with children, in chains, each behind its parent: the first child that
        must be read goes on in the same chain."""
        begin: deque[tuple[int, int, int]] = deque((-1, 0, node) for node in self._inner(0))
        count = 0
        while begin:
            parent, after, node = begin.popleft()
            nodes = [node]
            while len(nodes) < CUT and (inner := self._inner(nodes[-1])):
                begin.extend((count, len(nodes), other) for other in inner[1:])
                nodes.append(inner[0])
            if len(nodes) == CUT:
                begin.extend((count, CUT, other) for other in self._inner(nodes[-1]))
            yield self._branch(parent, after, nodes)
            count += 1

    def _inner(self, node: int) -> list[int]:
        return [child for child in self.children[node].values() if self.children[child]]


@lru_cache(maxsize=64)
def _tree(endings: tuple[tuple[int, ...], ...], owner: int) -> _Tree:
    """The tree of endings, kept for who asked about them."""
    return _Tree(endings)


def read_forks(prefixes: Prefixes, stems: Sequence[Stem], piece: int) -> Steps[list[ForkScores]]:
    """The log-probabilities of all endings behind each stem, in parts of at most `piece` tokens. Raises CacheFull where
    the inputs and one fork do not fit the memory."""
    results = [[np.zeros(len(fork.endings)) for fork in stem.forks] for stem in stems]
    dealt = [
        (s, f, endings)
        for s, stem in enumerate(stems) for f, fork in enumerate(stem.forks) for endings in _dealt(fork.endings)
    ]  # fmt: skip
    inputs: list[int] = []
    unread: deque[_Work] = deque()  # of the inputs: with a runner that allows it, read in the pass that reads forks too

    def read(batch: list[int]) -> Steps[list[None]]:
        parts = []
        for s, f, endings in (dealt[each] for each in batch):
            tree = _tree(tuple(stems[s].forks[f].endings[each] for each in endings), stems[s].request.owner)
            parts.append(_Part(s, f, endings, tree, np.zeros(len(tree.token))))
        try:
            yield from _read_parts(prefixes, stems, inputs, unread, parts, piece)
        finally:
            for part in parts:
                _close(prefixes, part.sequences)
        for part in parts:
            results[part.stem][part.fork][part.endings] = part.tree.totals(part.log_p)
        return [None] * len(batch)

    try:
        cached = yield from _open_inputs(prefixes, stems, inputs, unread, piece)
        for batch in _batches(dealt, stems):
            yield from in_parts(batch, read)
        for stem, sequence in zip(stems, inputs):
            if prefixes.keep_bytes and not unread:
                prefixes.keep(stem.request, sequence)
    finally:
        _close(prefixes, inputs)
    return [ForkScores(scores, count) for scores, count in zip(results, cached)]


def _dealt(endings: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """The indices of endings in groups of at most TOGETHER tokens, or of one, in the order of their tokens, so that
    neither the order nor other forks decide who is read with whom."""
    groups: list[list[int]] = []
    size = 0
    for each in sorted(range(len(endings)), key=endings.__getitem__):
        if not groups or size + len(endings[each]) > TOGETHER:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += len(endings[each])
    return groups


def _batches(dealt: Sequence[tuple[int, int, list[int]]], stems: Sequence[Stem]) -> Iterator[list[int]]:
    """Indices of groups of endings that are read together: about TOGETHER tokens."""
    batch: list[int] = []
    size = 0
    for index, (s, f, endings) in enumerate(dealt):
        fork = stems[s].forks[f]
        own = len(fork.tokens) + sum(len(fork.endings[each]) for each in endings)
        if batch and size + own > TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += own
    if batch:
        yield batch


def _open_inputs(
    prefixes: Prefixes, stems: Sequence[Stem], inputs: list[int], unread: deque[_Work], piece: int
) -> Steps[list[int]]:
    """Open a sequence for each input, appended to `inputs`, and put what it has to read into `unread`; returns how many
    tokens of each were read earlier."""
    cached = []
    for stem in stems:
        request = stem.request
        kept = len(request.prefix) if prefixes.keeps(request) else 0
        while not prefixes.read_on(request, piece):
            yield
        sequence, read = prefixes.open(request, request.tokens)
        inputs.append(sequence)
        cached.append(kept + read)
        unread.extend((_run(sequence, tokens), None) for tokens in pieces(request.tokens[read:], piece or PASS))
    return cached


def _read_parts(
    prefixes: Prefixes, stems: Sequence[Stem], inputs: Sequence[int], unread: deque[_Work], parts: Sequence[_Part],
    piece: int,
) -> Steps[None]:  # fmt: skip
    """Read the inputs, the parts' tokens and all of their endings; the parts' sequences stay open."""
    runner, work = prefixes.runner, deque[_Work]()
    if not runner.forks_ahead:
        yield from _forward(prefixes, unread, work, piece)
    ends = []
    for part in parts:
        request, fork = stems[part.stem].request, stems[part.stem].forks[part.fork]
        begin = runner.adapter_tokens(request.adapter) + fork.shared
        ends.append(begin + len(fork.tokens))
        part.sequences.append(runner.behind(inputs[part.stem], begin))
        *begun, last = pieces(fork.tokens, piece or PASS)
        work += [(_run(part.sequences[0], tokens), None) for tokens in begun]
        work.append(_asked(part, part.tree.first, part.sequences[0], last))
    if not runner.forks_ahead:
        yield from _forward(prefixes, unread, work, piece)
    for part, end in zip(parts, ends):
        begins: list[int] = []  # of each chain
        for branch in part.tree.chains:
            begins.append(end if branch.parent < 0 else begins[branch.parent] + branch.after)
            part.sequences.append(runner.fork(part.sequences[1 + branch.parent], begins[-1]))
            work.append(_asked(part, branch, part.sequences[-1], branch.tokens))
    yield from _forward(prefixes, unread, work, piece)


def _run(sequence: int, tokens: Sequence[int], want: Named | None = None) -> TokenRun:
    return TokenRun(sequence, tuple(tokens), want, together=True)


def _asked(part: _Part, branch: _Chain, sequence: int, tokens: Sequence[int]) -> _Work:
    """A run whose last tokens are those of a chain, after which its children are wanted, and who learns them."""
    want = Named(branch.rows + len(tokens) - len(branch.tokens), branch.wanted)

    def learn(log_p: np.ndarray) -> None:
        part.log_p[branch.children] = log_p

    return _run(sequence, tokens, want), learn


def _forward(prefixes: Prefixes, first: deque[_Work], work: deque[_Work], piece: int) -> Steps[None]:
    """Run the model over all runs, in their order, and remove them; each sequence once in a part."""
    most = piece or PASS
    while first or work:
        part: list[_Work] = []
        size, there = 0, set[int]()
        for run, take in chain(first, work):
            if part and (size + len(run.tokens) > most or run.sequence in there):
                break
            part.append((run, take))
            size += len(run.tokens)
            there.add(run.sequence)
        for (_, take), result in zip(part, prefixes.forward([run for run, _ in part])):
            if take is not None:
                take(result)
        for _ in part:
            (first or work).popleft()
        yield


def _close(prefixes: Prefixes, sequences: list[int]) -> None:
    for sequence in sequences:
        prefixes.close(sequence)
    sequences.clear()
