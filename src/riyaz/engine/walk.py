"""Reads prompts in parts, and after them the nodes of a trie that a search asks for."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from riyaz.engine.parts import Steps
from riyaz.engine.prefixes import Prefixes, pieces
from riyaz.engine.request import Request
from riyaz.engine.runner import Named, TokenRun, Want
from riyaz.engine.search import Search
from riyaz.engine.trie import Trie

Work = tuple[int, int, tuple[int, ...], bool]  # row, node, tokens to be read, whether they are the last of these


def walk(prefixes: Prefixes, requests: Sequence[Request], search: Search, piece: int) -> Steps[None]:
    """Read the prompts, then the nodes that the search picks, each in a fork of its parent's sequence; at most `piece`
    tokens of prompts, or nodes, in each part. Raises CacheFull."""
    runner, trie = prefixes.runner, search.trie
    start = [runner.adapter_tokens(request.adapter) + request.length for request in requests]
    at: dict[tuple[int, int], int] = {}  # (row, node) -> its sequence
    try:
        work = yield from _prompts(prefixes, at, requests, piece)
        while work:
            yield from _read_work(prefixes, at, work, partial(_children, trie), search.learn, piece)
            picked = list(zip(*map(np.ndarray.tolist, search.next())))
            work = [(row, node, (int(trie.token[node]),), True) for row, node in picked]
            for row, node in picked:
                parent = int(trie.parent[node])
                at[row, node] = runner.fork(at[row, parent], start[row] + int(trie.depth[parent]))
    finally:
        for sequence in at.values():
            prefixes.close(sequence)


def read_prompts(prefixes: Prefixes, requests: Sequence[Request], want: Want, piece: int) -> Steps[list[Any]]:
    """What is wanted after each prompt; at most `piece` tokens of prompts in each part. Raises CacheFull."""
    results: list[Any] = [None] * len(requests)
    at: dict[tuple[int, int], int] = {}

    def take(row: int, node: int, result: Any) -> None:
        results[row] = result

    try:
        work = yield from _prompts(prefixes, at, requests, piece)
        yield from _read_work(prefixes, at, work, lambda node, count: want, take, piece)
        return results
    finally:
        for sequence in at.values():
            prefixes.close(sequence)


def _prompts(
    prefixes: Prefixes, at: dict[tuple[int, int], int], requests: Sequence[Request], piece: int
) -> Steps[list[Work]]:
    """Open a sequence for each prompt, under (row, 0), and read its prefix; returns what is left to read of it."""
    work: list[Work] = []
    for row, request in enumerate(requests):
        while not prefixes.read_on(request, piece):
            yield
        tokens = request.tokens if piece else ()
        at[row, 0], read = prefixes.open(request, tokens)
        *begun, last = pieces(request.tokens[read:], piece)
        work += [*((row, 0, tokens, False) for tokens in begun), (row, 0, last, True)]
    return work


def _read_work(
    prefixes: Prefixes, at: Mapping[tuple[int, int], int], work: Sequence[Work],
    wanted: Callable[[int, int], Want], take: Callable[[int, int, Any], None], piece: int,
) -> Steps[None]:  # fmt: skip
    """Read prompts or nodes, of which each may go on where one before it ends: `take(row, node, result)` gets what is
    `wanted(node, count)` after the last of its `count` tokens."""
    left = deque(work)
    while left:
        part = [left.popleft()]
        size = len(part[0][2])
        while left and part[-1][3] and (not piece or size + len(left[0][2]) <= piece):
            part.append(left.popleft())
            size += len(part[-1][2])
        runs = [
            TokenRun(at[row, node], tokens, wanted(node, len(tokens)) if whole else None)
            for row, node, tokens, whole in part
        ]
        for (row, node, _, whole), result in zip(part, prefixes.forward(runs)):
            if whole:
                take(row, node, result)
        yield


def _children(trie: Trie, node: int, count: int) -> Named:
    """The log-probabilities of a node's children, wanted after the last of a run's `count` tokens."""
    tokens = trie.token[trie.below(node)]
    return Named(np.full(len(tokens), count - 1), tokens)
