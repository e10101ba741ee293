"""Which nodes of a trie to read, so that the best answer of every row is certain after few of them.

A node's bound is what its tokens have earned so far plus the best offset below it; log-probabilities only
fall further down, so a node whose bound is under the best complete answer can never win (branch and bound).
"""

import numpy as np

from riyaz.engine.trie import Trie

MANY = 16  # tokens a model reads in about the time of one: below this, reading a few more nodes is free


class Search:
    """R rows searching one trie; `edges` (R, N): the log-probabilities of nodes' tokens that are known."""

    def __init__(self, trie: Trie, rows: int, offsets: np.ndarray | None = None) -> None:
        self.trie = trie
        self.exhaustive = offsets is None
        self.offsets = np.zeros(len(trie.leaf)) if offsets is None else np.asarray(offsets, np.float64)
        self.edges = np.full((rows, len(trie)), np.nan, np.float32)
        self._read = np.zeros((rows, len(trie)), bool)
        self._read[:, [0, *np.flatnonzero(trie.children == 0)]] = (
            True  # the prompt's end, and what has no children
        )
        self._below = trie.highest_below(self.offsets)
        self._chains: dict[int, list[int]] = {}

    def scores(self) -> np.ndarray:
        """Log-probability of every sequence (R, L), NaN where it is not known."""
        return self.trie.totals(self.edges)[:, self.trie.leaf]

    def best(self) -> list[tuple[int, float]]:
        """Per row the sequence whose log-probability + offset is highest, and its log-probability."""
        scores = self.scores()
        index = np.nanargmax(scores + self.offsets, axis=1)
        return [(int(i), float(row[i])) for i, row in zip(index, scores)]

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (T,) and nodes (T,) to read now, sorted; empty when every row is certain."""
        if self.exhaustive:
            rows, nodes = np.nonzero(~self._read)
            self._read[rows, nodes] = True
            return rows, nodes
        totals = self.trie.totals(self.edges)
        known = ~np.isnan(totals)
        bound = np.where(known & ~self._read, totals + self._below, -np.inf)
        done = np.where(known, totals, -np.inf)[:, self.trie.leaf] + self.offsets
        done = done.max(1, keepdims=True)  # (R, 1), -inf while no answer is complete
        open_ = (bound >= done) & (bound > -np.inf)
        active = np.flatnonzero(open_.any(1))
        width = max(1, MANY // max(1, len(active)))
        picked = np.zeros_like(open_)
        for row in active:
            ranked = np.flatnonzero(open_[row])
            if len(ranked) > width and done[row, 0] == -np.inf:  # dive for a first answer
                ranked = ranked[np.argsort(-bound[row, ranked], kind="stable")[:width]]
            for node in ranked:
                picked[row, self._chain(int(node))] = True
        self._read |= picked
        rows, nodes = np.nonzero(picked)
        return rows, nodes

    def _chain(self, node: int) -> list[int]:
        if node not in self._chains:
            self._chains[node] = self.trie.chain(node)
        return self._chains[node]
