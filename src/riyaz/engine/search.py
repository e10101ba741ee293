"""Which nodes of a trie to read, so that the best answer of every row is certain after few of them.

A node's bound is what its tokens have earned so far plus the best offset below it; log-probabilities only
fall further down, so a node whose bound is under the best complete answer can never win (branch and bound).
Best bounds first; a round costs about as much as 25 nodes, so each one takes twice as many as the one before.
"""

import numpy as np

from riyaz.engine.trie import Trie

WIDTH = 2  # nodes a row reads in its first round
MANY = 32  # nodes in all that are not worth another round


class Search:
    """R rows searching one trie; `edges` (R, N): the log-probabilities of nodes' tokens that are known.

    It ends when the best sequence is certain under each row of `offsets` (M, L); without offsets it reads all.
    """

    def __init__(self, trie: Trie, rows: int, offsets: np.ndarray | None = None) -> None:
        self.trie = trie
        self.exhaustive = offsets is None or rows * len(trie.inner) <= MANY
        self.offsets = np.zeros((1, len(trie.leaf))) if offsets is None else np.asarray(offsets, np.float64)
        self.edges = np.full((rows, len(trie)), np.nan, np.float32)
        self._unread = np.zeros((rows, len(trie)), bool)
        self._unread[:, trie.inner] = True
        self._below = [trie.highest_below(row) for row in self.offsets]
        self._chains: dict[int, list[int]] = {}
        self._width = WIDTH

    def scores(self) -> np.ndarray:
        """Log-probability of every sequence (R, L), NaN where it is not known."""
        return self.trie.totals(self.edges)[:, self.trie.leaf]

    def best(self) -> list[list[tuple[int, float]]]:
        """Per row and offsets the sequence whose log-probability + offset is highest, and its log-probability."""
        scores = self.scores()
        index = [np.nanargmax(scores + offsets, axis=1) for offsets in self.offsets]
        return [[(int(i), float(row[i])) for i in best] for row, *best in zip(scores, *index)]

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (T,) and nodes (T,) to read now, sorted; empty when every row is certain."""
        picked = self._unread.copy() if self.exhaustive else self._promising()
        self._unread &= ~picked
        rows, nodes = np.nonzero(picked)
        return rows, nodes

    def learn(self, row: int, node: int, log_probabilities: np.ndarray) -> None:
        """Take the log-probabilities of a node's children."""
        self.edges[row, self.trie.below(node)] = log_probabilities

    def _promising(self) -> np.ndarray:
        """The nodes with the highest bounds among those that can still win, the first with their chains; (R, N)."""
        totals = self.trie.totals(self.edges)
        known = ~np.isnan(totals)
        picked = np.zeros_like(known)
        for offsets, below in zip(self.offsets, self._below):
            bound = np.where(known & self._unread, totals + below, -np.inf)
            done = np.where(known, totals, -np.inf)[:, self.trie.leaf] + offsets
            open_ = (bound >= done.max(1, keepdims=True)) & (bound > -np.inf)
            rows = np.flatnonzero(open_.any(1))
            deep = self._width if len(rows) * self._width <= MANY else 1  # how many are followed to their fork
            for row in rows:
                nodes = np.flatnonzero(open_[row])
                nodes = nodes[np.argsort(-bound[row, nodes], kind="stable")][: self._width]
                picked[row, nodes] = True
                for node in nodes[:deep]:
                    picked[row, self._chain(int(node))] = True
        self._width *= 2
        return picked

    def _chain(self, node: int) -> list[int]:
        if node not in self._chains:
            self._chains[node] = self.trie.chain(node)
        return self._chains[node]
