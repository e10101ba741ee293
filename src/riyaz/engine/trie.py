"""A closed set of answers as one tree of tokens: what they share at the start is computed once."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from riyaz.errors import RiyazError


class Trie:
    """Token sequences as flat arrays over N nodes, breadth first; node 0, the root, is the prompt's end.

    `token`, `parent`, `depth` (N,): the root has token -1 and parent 0. The children of n are the range
    `first[n] : first[n] + children[n]`. `leaf` (L,) is the node where each sequence ends, `sequence` (N,) the
    index of the sequence that ends there or -1. `inner` lists the nodes below the root that have children:
    those a model must read before their children's probabilities are known.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]) -> None:
        self.sequences = [tuple(int(token) for token in sequence) for sequence in sequences]
        self._check()
        token, parent, depth, first, children = [-1], [0], [0], [], []
        leaf = np.zeros(len(self.sequences), np.int64)
        groups = [(0, list(range(len(self.sequences))))]  # a node and the sequences that pass through it
        for node, members in groups:  # grows while it is walked: breadth first
            at = depth[node]
            branches: dict[int, list[int]] = {}
            for member in members:
                if len(self.sequences[member]) == at:
                    leaf[member] = node
                else:
                    branches.setdefault(self.sequences[member][at], []).append(member)
            first.append(len(token))
            children.append(len(branches))
            for branch, below in branches.items():
                groups.append((len(token), below))
                token.append(branch)
                parent.append(node)
                depth.append(at + 1)
        self.token, self.parent, self.depth = (np.array(x, np.int64) for x in (token, parent, depth))
        self.first, self.children = np.array(first, np.int64), np.array(children, np.int64)
        self.leaf = leaf
        self.sequence = np.full(len(token), -1, np.int64)
        self.sequence[leaf] = np.arange(len(self.sequences))
        self.inner = np.flatnonzero(self.children)[1:]

    def __len__(self) -> int:
        return len(self.token)

    def _check(self) -> None:
        """Every sequence must end at a leaf of its own: none empty, none the beginning of another."""
        if not self.sequences:
            raise RiyazError("a closed set of answers needs at least one answer")
        if not all(self.sequences):
            raise RiyazError(f"answer {self.sequences.index(())} of the closed set has no tokens")
        order = sorted(range(len(self.sequences)), key=self.sequences.__getitem__)
        for a, b in pairwise(order):
            if self.sequences[b][: len(self.sequences[a])] == self.sequences[a]:
                raise RiyazError(f"answers {a} and {b} of the closed set cannot be told apart by their tokens")

    def totals(self, edges: np.ndarray) -> np.ndarray:
        """Sum of `edges` (R, N) from the root to every node, (R, N); the root's own entry counts as 0."""
        total = np.array(edges, np.float64)
        total[:, 0] = 0
        for depth in range(1, int(self.depth.max()) + 1):
            nodes = self.depth == depth
            total[:, nodes] += total[:, self.parent[nodes]]
        return total

    def highest_below(self, values: np.ndarray) -> np.ndarray:
        """The largest of `values` (L,) among the sequences that pass each node, (N,)."""
        best = np.full(len(self), -np.inf)
        best[self.leaf] = values
        for node in range(len(self) - 1, 0, -1):
            best[self.parent[node]] = max(best[self.parent[node]], best[node])
        return best

    def below(self, node: int) -> np.ndarray:
        """The children of a node."""
        return np.arange(self.first[node], self.first[node] + self.children[node])

    def chain(self, node: int) -> list[int]:
        """`node` and the inner nodes below it, down to the first fork: they stand or fall together."""
        chain = [node]
        while self.children[node] == 1 and self.children[self.first[node]]:
            node = int(self.first[node])
            chain.append(node)
        return chain
