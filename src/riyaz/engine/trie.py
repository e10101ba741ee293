"""A closed set of answers as a tree of tokens: a shared beginning is computed once."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from riyaz.errors import RiyazError


class Trie:
    """Token sequences as flat arrays over N nodes, breadth first; node 0, the root, is the end of the prompt.

    `token`, `parent`, `depth` (N,): the root has token -1 and parent 0. The children of node n are the nodes
    `first[n] : first[n] + children[n]`. `leaf` (L,) is the node at which each sequence ends. `inner` lists the nodes
    below the root that have children: the model must read them to get their children's probabilities.
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

        self.inner = np.flatnonzero(self.children)[1:]
        self.sequences_below = np.zeros(len(token), np.int64)  # (N,) that pass through each node, or end at it
        self.sequences_below[leaf] = 1
        for node in range(len(token) - 1, 0, -1):
            self.sequences_below[parent[node]] += self.sequences_below[node]

    def __len__(self) -> int:
        return len(self.token)

    def _check(self) -> None:
        """Raises RiyazError unless every sequence ends at its own leaf: none empty, none the beginning of another."""
        if not self.sequences:
            raise RiyazError("a closed set of answers needs at least one answer")
        if not all(self.sequences):
            raise RiyazError(f"answer {self.sequences.index(())} of the closed set has no tokens")
        order = sorted(range(len(self.sequences)), key=self.sequences.__getitem__)
        for a, b in pairwise(order):
            if self.sequences[b][: len(self.sequences[a])] == self.sequences[a]:
                raise RiyazError(f"answers {a} and {b} of the closed set cannot be told apart by their tokens")

    def totals(self, edges: np.ndarray) -> np.ndarray:
        """Sums of `edges` (R, N) on the path from the root to every node, (R, N); the root's entry counts as 0."""
        total = np.array(edges, np.float64)
        total[:, 0] = 0
        for depth in range(1, int(self.depth.max()) + 1):
            nodes = self.depth == depth
            total[:, nodes] += total[:, self.parent[nodes]]
        return total

    def highest_below(self, values: np.ndarray) -> np.ndarray:
        """The largest of `values` (L,) over the sequences that pass through each node, (N,)."""
        best = np.full(len(self), -np.inf)
        best[self.leaf] = values
        for node in range(len(self) - 1, 0, -1):
            best[self.parent[node]] = max(best[self.parent[node]], best[node])
        return best

    def below(self, node: int) -> slice:
        """The children of a node."""
        first = int(self.first[node])
        return slice(first, first + int(self.children[node]))

    def chain(self, node: int) -> list[int]:
        """`node` and the inner nodes below it down to the first fork: they lie on the same sequences."""
        chain = [node]
        while self.children[node] == 1 and self.children[self.first[node]]:
            node = int(self.first[node])
            chain.append(node)
        return chain
