"""Exact search for the best answer of a trie, which reads few of its nodes (branch and bound).

A node's bound is the log-probability of its tokens plus the best offset below it. Log-probabilities only fall further
down, so a node whose bound is below the best complete answer can never win. Nodes are read by bound, highest first. A
round costs about as much as 25 nodes: a few rows read twice as many nodes in each round as in the one before. Many rows
share that cost, and their rounds grow slowly, so that they read few nodes in vain.
"""

import numpy as np

from riyaz.engine.trie import Trie

WIDTH = 2  # nodes that each row reads in the first round
CROWD = 16  # rows that are many
GROWTH, CROWD_GROWTH = 2.0, 1.2  # factor of the width from round to round: of few rows, of many
DEEPER = 4.0  # nats: where any better answer ends a row, a node that is one token nearer to its end comes first
MANY = 32  # up to this many nodes are read at once, as another round would cost more


class Search:
    """Search of R rows over one trie; `edges` (R, N) holds the log-probabilities of nodes' tokens, NaN where not read.

    It ends when each row's best sequence is certain for each row of `offsets` (M, L); without offsets it reads all.
    With `accepted` (R, L) it ends when it is certain whether one of a row's accepted sequences is the best: they are
    read at once, and the search ends where another is better, whether or not that one is the best. With `within` it
    also reads the second best of each row, and every sequence at most so many nats below the best.
    """

    def __init__(
        self, trie: Trie, rows: int, offsets: np.ndarray | None = None, accepted: np.ndarray | None = None,
        within: float | None = None,
    ) -> None:  # fmt: skip
        self.trie, self.accepted, self.within = trie, accepted, within
        self.exhaustive = offsets is None or rows * len(trie.inner) <= MANY
        self.offsets = np.zeros((1, len(trie.leaf))) if offsets is None else np.asarray(offsets, np.float64)
        self.edges = np.full((rows, len(trie)), np.nan, np.float32)
        self._unread = np.zeros((rows, len(trie)), bool)
        self._unread[:, trie.inner] = True
        self._below = [trie.highest_below(row) for row in self.offsets]
        self._chains: dict[int, list[int]] = {}
        self._first, self._crowd = True, rows >= CROWD
        self._width = np.full(rows, float(WIDTH))

    def scores(self) -> np.ndarray:
        """Log-probability of every sequence (R, L), NaN where a node of it was not read."""
        return self.trie.totals(self.edges)[:, self.trie.leaf]

    def estimates(self) -> np.ndarray:
        """Log-probability of every sequence (R, L): exact where `within` asks for it. Of the others it is that of their
        first node below which none is wanted, shared equally by the sequences below, whether or not more was read."""
        totals = self.trie.totals(self.edges)
        offsets, below = self.offsets[0], self._below[0]
        ends = np.where(np.isnan(totals), -np.inf, totals)[:, self.trie.leaf] + offsets
        shut = (totals + below < self._least(ends, ends.max(1))[:, None]) & (self.trie.children > 0)
        totals = np.where(shut, totals - np.log(self.trie.sequences_below), totals)
        for depth in range(2, int(self.trie.depth.max()) + 1):
            nodes = np.flatnonzero(self.trie.depth == depth)
            parents = self.trie.parent[nodes]
            totals[:, nodes] = np.where(shut[:, parents], totals[:, parents], totals[:, nodes])
            shut[:, nodes] |= shut[:, parents]
        return totals[:, self.trie.leaf]

    def best(self) -> list[list[tuple[int, float]]]:
        """(index, log-probability) of the sequence with the highest log-probability + offset: per row, a list over M
        rows of offsets."""
        scores = self.scores()
        index = [np.nanargmax(scores + offsets, axis=1) for offsets in self.offsets]
        return [[(int(i), float(row[i])) for i in best] for row, *best in zip(scores, *index)]

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """The next nodes to read: rows (T,) and nodes (T,), sorted; empty when every row's best is certain."""
        picked = self._unread.copy() if self.exhaustive else self._promising()
        if self._first and self.accepted is not None:
            for row, leaf in np.argwhere(self.accepted).tolist():
                picked[row, self._path(leaf)] = True
        self._first = False
        self._unread &= ~picked
        rows, nodes = np.nonzero(picked)
        return rows, nodes

    def learn(self, row: int, node: int, log_probabilities: np.ndarray) -> None:
        """Record the log-probabilities of a node's children."""
        self.edges[row, self.trie.below(node)] = log_probabilities

    def _promising(self) -> np.ndarray:
        """Which nodes (R, N) to read: those with the highest bounds that can still win, and the chains of some."""
        totals = self.trie.totals(self.edges)
        scored = ~np.isnan(totals)
        picked = np.zeros_like(scored)
        grows = np.zeros(len(totals), bool)
        for offsets, below in zip(self.offsets, self._below):
            bound = np.where(scored & self._unread, totals + below, -np.inf)
            ends = np.where(scored, totals, -np.inf)[:, self.trie.leaf] + offsets
            best = ends.max(1)
            open_ = (bound >= self._least(ends, best)[:, None]) & (bound > -np.inf)
            if self.accepted is not None and not self._first:
                open_[best > np.where(self.accepted, ends, -np.inf).max(1)] = False  # another one is better
            # nodes above an accepted answer's score are all read where it wins: their order counts where it does not
            first = bound if self.accepted is None else bound + DEEPER * self.trie.depth
            rows = np.flatnonzero(open_.any(1))
            for row in rows:
                width = int(self._width[row])
                # a complete answer rules others out, so that the way to the first one is read at once; afterwards
                # chains only save rounds, which cost many rows little
                reaching = best[row] == -np.inf or self.accepted is not None
                deep = width if len(rows) * width <= MANY else int(not self._crowd or reaching)
                nodes = np.flatnonzero(open_[row])
                nodes = nodes[np.argsort(-first[row, nodes], kind="stable")][:width]
                picked[row, nodes] = True
                for node in nodes[:deep]:
                    picked[row, self._chain(int(node))] = True
            grows |= best > -np.inf if self._crowd else True
        self._width[grows] *= CROWD_GROWTH if self._crowd else GROWTH
        np.minimum(self._width, len(self.trie), out=self._width)
        return picked

    def _least(self, ends: np.ndarray, best: np.ndarray) -> np.ndarray:
        """The score (R,) from which on a sequence is wanted, by the `best` of the complete ones `ends` (R, L)."""
        if self.within is None:
            return best
        second = np.partition(ends, -2, axis=1)[:, -2] if ends.shape[1] > 1 else best
        return np.minimum(best - self.within, second)

    def _path(self, sequence: int) -> list[int]:
        """The inner nodes from the root to a sequence's end."""
        path, node = [], int(self.trie.parent[self.trie.leaf[sequence]])
        while node:
            path.append(node)
            node = int(self.trie.parent[node])
        return path

    def _chain(self, node: int) -> list[int]:
        if node not in self._chains:
            self._chains[node] = self.trie.chain(node)
        return self._chains[node]
