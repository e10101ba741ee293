"""The trie's arrays, and the search over it against brute force."""

from itertools import pairwise

import numpy as np
import pytest

from riyaz.engine import search as searching
from riyaz.engine.search import CROWD, Search
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError

END = 2


def random_trie(generator: np.random.Generator) -> Trie:
    """A trie over up to 40 answers of one to five tokens out of five, so that they share beginnings."""
    count = int(generator.integers(2, 40))
    answers = {tuple(generator.integers(3, 8, generator.integers(1, 6)).tolist()) for _ in range(count)}
    return Trie([(*answer, END) for answer in sorted(answers)])


def random_edges(trie: Trie, rows: int, generator: np.random.Generator) -> np.ndarray:
    """Log-probabilities a model could give: the children of a node share a part of its mass."""
    edges = np.zeros((rows, len(trie)), np.float32)
    for node in np.flatnonzero(trie.children):
        children = slice(trie.first[node], trie.first[node] + trie.children[node])
        scores = generator.normal(size=(rows, trie.children[node] + 1)) * 3  # one more: all other tokens
        edges[:, children] = (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))[:, :-1]
    return edges


def run(search: Search, edges: np.ndarray) -> int:
    """Play the model: tell the search the children of every node it reads; how many it read."""
    trie, read = search.trie, 0
    rows, nodes = np.arange(len(edges)), np.zeros(len(edges), int)
    while len(rows):
        for row, node in zip(rows, nodes):
            children = slice(trie.first[node], trie.first[node] + trie.children[node])
            assert np.isnan(search.edges[row, children]).all(), "a node is read once"
            search.edges[row, children] = edges[row, children]
        rows, nodes = search.next()
        read += len(rows)
    return read


def test_every_sequence_is_a_path_from_the_root() -> None:
    trie = Trie([(5, 6, END), (5, 7, END), (9, END)])
    assert len(trie) == 8  # root, 5, 9, 6, 7 and three ends
    for sequence, node in zip(trie.sequences, trie.leaf):
        path = []
        while node:
            path.append(int(trie.token[node]))
            node = trie.parent[node]
        assert tuple(path[::-1]) == sequence
    assert sorted(trie.token[trie.inner].tolist()) == [5, 6, 7, 9]


@pytest.mark.parametrize("seed", range(20))
def test_children_are_ranges_and_chains_end_at_forks(seed: int) -> None:
    trie = random_trie(np.random.default_rng(seed))
    for node in range(len(trie)):
        children = np.arange(trie.first[node], trie.first[node] + trie.children[node])
        assert np.array_equal(children, np.flatnonzero((trie.parent == node) & (trie.depth > 0)))
    for node in trie.inner:
        chain = trie.chain(int(node))
        assert chain[0] == node and all(trie.parent[b] == a for a, b in pairwise(chain))
        below = trie.first[chain[-1]]
        assert trie.children[chain[-1]] > 1 or below in trie.leaf


def test_totals_add_up_along_each_path() -> None:
    generator = np.random.default_rng(1)
    trie = random_trie(generator)
    edges = random_edges(trie, 3, generator)
    totals = trie.totals(edges)
    for node in range(1, len(trie)):
        assert np.allclose(totals[:, node], totals[:, trie.parent[node]] + edges[:, node])


@pytest.mark.parametrize(
    ("sequences", "says"),
    [
        ([], "at least one answer"),
        ([(3, END), ()], "answer 1 of the closed set has no tokens"),
        ([(3, END), (4, END), (3, END)], "answers 0 and 2 .* cannot be told apart"),
        ([(3, 4), (3,)], "answers 1 and 0 .* cannot be told apart"),
    ],
)
def test_answers_that_cannot_be_told_apart_are_refused(sequences: list[tuple[int, ...]], says: str) -> None:
    with pytest.raises(RiyazError, match=says):
        Trie(sequences)


@pytest.mark.parametrize("seed", range(60))
def test_pruned_search_finds_what_exhaustive_search_finds(seed: int) -> None:
    generator = np.random.default_rng(seed)
    trie, rows = random_trie(generator), int(generator.choice([1, 2, 3, 4, CROWD, 40]))
    edges = random_edges(trie, rows, generator)
    everything = Search(trie, rows)
    assert run(everything, edges) == rows * len(trie.inner)
    scores = everything.scores()
    offsets = generator.normal(size=len(trie.leaf)) * generator.choice([0.0, 1.0, 10.0])
    if seed % 3 == 0:  # row 0 is a tie of all answers but for noise in the last digits
        offsets = -scores[0] + generator.normal(size=len(trie.leaf)) * 1e-14
    both = np.stack((offsets, generator.normal(size=len(trie.leaf)))) if seed % 2 else offsets[None]
    search = Search(trie, rows, both)
    read = run(search, edges)
    assert read <= rows * len(trie.inner)
    for found, row in zip(search.best(), scores, strict=True):
        for (index, value), added in zip(found, both, strict=True):
            assert index == np.argmax(row + added)
            assert value == row[index]


@pytest.mark.parametrize("seed", range(60))
def test_whether_an_accepted_answer_wins_is_known_with_less_reading(seed: int) -> None:
    generator = np.random.default_rng(seed)
    trie, rows = random_trie(generator), int(generator.choice([1, 3, CROWD, 40]))
    edges, labels = random_edges(trie, rows, generator), len(trie.leaf)
    scores = trie.totals(edges)[:, trie.leaf]
    offsets = generator.normal(size=(1 + seed % 2, labels)) * generator.choice([0.0, 1.0, 10.0])
    if seed % 3 == 0:  # ties: of equal answers the first is the best
        edges, scores = np.full_like(edges, -1.0), np.zeros_like(scores) - trie.depth[trie.leaf]
        offsets[0] = trie.depth[trie.leaf]
    accepted = generator.random((rows, labels)) < generator.choice([0.0, 1 / labels, 0.2])
    accepted[np.arange(0, rows, 3), (scores + offsets[0]).argmax(1)[::3]] = True  # a third wins
    search = Search(trie, rows, offsets, accepted)
    run(search, edges)
    for found, row, right in zip(search.best(), scores, accepted, strict=True):
        for (index, _), added in zip(found, offsets, strict=True):
            assert right[index] == right[np.argmax(row + added)]


def test_a_row_that_is_lost_is_read_until_one_better_answer_is_found() -> None:
    generator, rows = np.random.default_rng(0), 64
    answers = {tuple(generator.integers(3, 8, 6).tolist()) for _ in range(300)}
    trie = Trie([(*answer, END) for answer in sorted(answers)])
    edges, offsets = random_edges(trie, rows, generator), generator.normal(size=(1, len(answers)))
    order = (trie.totals(edges)[:, trie.leaf] + offsets).argsort(1)
    read = []
    for place in (-1, -2, -100):
        accepted = np.zeros((rows, len(answers)), bool)
        accepted[np.arange(rows), order[:, place]] = True
        search = Search(trie, rows, offsets, accepted)
        read.append(run(search, edges))
        assert all(right[best[0][0]] == (place == -1) for best, right in zip(search.best(), accepted, strict=True))
    assert read[2] < read[0] / 2 and read[2] < read[1] < read[0], read
    assert read[0] < 1.1 * run(Search(trie, rows, offsets), edges), "one that wins is certain no later"


def test_a_confident_model_reads_one_path() -> None:
    letters = [(a, b, c, END) for a in range(3, 8) for b in range(3, 8) for c in range(3, 8)]
    trie = Trie(letters)
    edges = np.full((1, len(trie)), -9.0, np.float32)
    node = trie.leaf[77]
    while node:
        edges[0, node] = -0.01
        node = trie.parent[node]
    search = Search(trie, 1, np.zeros((1, len(letters))))
    assert run(search, edges) < 20 < len(trie.inner)
    assert search.best()[0][0][0] == 77


def test_many_rows_read_hardly_more_than_they_must() -> None:
    generator, rows = np.random.default_rng(0), 64
    answers = {tuple(generator.integers(3, 8, 6).tolist()) for _ in range(300)}
    trie = Trie([(*answer, END) for answer in sorted(answers)])
    edges, offsets = random_edges(trie, rows, generator), generator.normal(size=(1, len(answers)))
    totals = trie.totals(edges)
    least = (totals[:, trie.leaf] + offsets).max(1, keepdims=True)  # no search can know without these nodes
    must = (totals + trie.highest_below(offsets[0]) >= least)[:, trie.inner].sum()
    assert must < rows * len(trie.inner) / 2
    assert run(Search(trie, rows, offsets), edges) < 1.4 * must


@pytest.mark.parametrize(("labels", "length"), [(20, 6), (50, 30)])
def test_many_rows_read_the_way_to_a_first_answer_at_once(
    labels: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, rows = np.random.default_rng(1), 64
    tails = [tuple(generator.integers(3, 1000, length - 2).tolist()) for _ in range(labels)]
    trie = Trie([(1000 + i, *tail, END) for i, tail in enumerate(tails)])
    edges = random_edges(trie, rows, generator)
    edges[:, trie.depth > 1] = -0.03 * generator.exponential(size=(rows, int((trie.depth > 1).sum())))
    offsets = np.zeros((1, labels))
    read = run(Search(trie, rows, offsets), edges)
    monkeypatch.setattr(searching, "CROWD", rows + 1)
    assert read <= 1.1 * run(Search(trie, rows, offsets), edges) < 0.2 * rows * len(trie.inner)


def test_estimates_share_what_is_not_wanted_and_do_not_depend_on_what_else_was_read() -> None:
    trie = Trie([(1, 2, 9), (1, 3, 9), (4, 5, 9), (4, 6, 9), (7, 9)])
    p = {(1,): 0.6, (4,): 0.3, (7,): 0.1, (1, 2): 0.7, (1, 3): 0.3, (4, 5): 0.9, (4, 6): 0.1}

    def estimates(all_read: bool) -> np.ndarray:
        search = Search(trie, 1, np.zeros((1, 5)), within=0.5)
        search.exhaustive = all_read
        paths = {0: ()}
        for node in range(1, len(trie)):
            paths[node] = (*paths[int(trie.parent[node])], int(trie.token[node]))
        reads = [[0]]
        while reads[-1]:
            for node in reads[-1]:
                children = range(len(trie))[trie.below(node)]
                search.learn(0, node, np.log([p.get(paths[child], 1.0) for child in children]))
            reads.append(search.next()[1].tolist())
        return np.exp(search.estimates()[0])

    # wanted are the two best: .42 and, of (4, …), .27; (1, 3, 9) with .18 was read on the way, (7, …) is not read
    assert estimates(False) == pytest.approx([0.42, 0.18, 0.27, 0.03, 0.1])
    assert estimates(True) == pytest.approx(estimates(False))
