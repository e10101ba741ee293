"""Batches of rows laid end to end without padding, and the order of rows in each epoch.

All functions are pure, so a resumed run continues with the same batches.
T: tokens of a batch, N: answer tokens of a batch.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from riyaz.data.rows import Row, Wanted

SHORTEST_SHARED = 8  # tokens; sharing a shorter beginning costs more than it saves


@dataclass(frozen=True)
class PackedRows:
    """Rows as one stream of tokens: the `shared` first tokens of all rows once, then `lengths[i]` more of each row i.

    A row attends to the shared tokens and to itself, never to another row. The last answer token predicts nothing, so
    it is a label and not an input.
    """

    tokens: np.ndarray  # (T,) int64
    positions: np.ndarray  # (T,) int64, from 0, and from `shared` in every row
    lengths: list[int]
    label_index: np.ndarray  # (N,) int64, the place in the stream whose output predicts the label
    labels: np.ndarray  # (N,) int64, the answer tokens
    shared: int = 0
    wanted: Wanted | None = None  # (N, k), in place of the labels
    weights: np.ndarray | None = None  # (N,) float32, of the labels with `wanted`
    counts: tuple[int, ...] = ()  # labels of each sequence
    desirable: np.ndarray | None = None  # (n,) bool, of each sequence; None: not said
    count: int = 0  # rows, of which a pair is two sequences
    places: tuple[tuple[int, int], ...] = ()  # of each sequence: the place of its row among all, its place in the row


def pack(rows: Sequence[Row]) -> PackedRows:
    """Lay rows end to end, with the answer tokens as next-token labels; a common beginning is stored once. A pair is
    two sequences, one after the other."""
    places = tuple((row.place, side) for row in rows for side in range(len(row.sides)))
    count, rows = len(rows), [side for row in rows for side in row.sides]
    assert rows and all(row.prompt and row.answer for row in rows)
    assert len({row.wanted is None for row in rows}) == 1
    shared = shared_tokens([row.prompt for row in rows])
    lengths = [row.length - shared for row in rows]
    ends = shared + np.cumsum(lengths)
    return PackedRows(
        tokens=_flat((rows[0].prompt[:shared], *((*row.prompt, *row.answer)[shared : row.length] for row in rows))),
        positions=_flat((range(shared), *(range(shared, shared + length) for length in lengths))),
        lengths=lengths,
        shared=shared,
        label_index=_flat(_predicting(row, end, shared) for row, end in zip(rows, ends)),
        labels=_flat(row.labels for row in rows),
        counts=tuple(len(row.labels) for row in rows),
        count=count,
        places=places,
        desirable=None if rows[0].desirable is None else np.array([row.desirable for row in rows], bool),
        **_wanted([row.wanted for row in rows if row.wanted is not None]),
    )


def _wanted(rows: Sequence[Wanted]) -> dict[str, Any]:
    """The distributions that all rows of a batch have, or none."""
    if not rows:
        return {}
    tokens, log_p = (np.concatenate(parts) for parts in zip(*((row.tokens, row.log_p) for row in rows)))
    weights = np.concatenate([np.full(len(row.tokens), row.weight, np.float32) for row in rows])
    return {"wanted": Wanted(tokens, log_p), "weights": weights}


def _predicting(row: Row, end: int, shared: int) -> Iterable[int]:
    """The places of a row, which ends before `end`, that predict its answers: of the last one its last ones, or its
    last one alone. Places among the `shared` first tokens are the same for all rows."""
    count = len(row.answer)
    last = (end - 1,) * count if row.together else range(end - count, end)
    places = (place - 1 for start, stop in row.earlier for place in range(start, stop))
    return chain((place if place < shared else place + end - row.length for place in places), last)


def padded(rows: PackedRows, multiple: int) -> PackedRows:
    """The rows with one more behind them, of tokens 0 and without labels, so that T is a multiple of `multiple`. Its
    positions go no further than theirs, since a model may have learned no more."""
    more = -len(rows.tokens) % multiple
    if not more:
        return rows
    positions = np.minimum(np.arange(rows.shared, rows.shared + more), rows.positions.max())
    return replace(
        rows, lengths=[*rows.lengths, more], tokens=np.append(rows.tokens, np.zeros(more, np.int64)),
        positions=np.append(rows.positions, positions),
    )  # fmt: skip


def shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens in the common beginning of the prompts, without a prompt's last token, which predicts the answer; 0 for a
    single prompt or below SHORTEST_SHARED."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))  # a beginning of these two is one of all
    most = min(map(len, prompts)) - 1
    count = next((i for i in range(most) if first[i] != last[i]), max(0, most))
    return count if len(prompts) > 1 and count >= SHORTEST_SHARED else 0


def batch(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Indices of the rows, out of `count`, that step number `step` trains on.

    Every epoch takes each row once, in its own order; batch sizes differ by at most one row.
    """
    assert count > 0 and batch_size > 0 and step >= 0
    steps = steps_per_epoch(count, batch_size)
    epoch, place = divmod(step, steps)
    return list(_order(count, seed, epoch)[place * count // steps : (place + 1) * count // steps])


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of batches in which every row is used once."""
    return -(-count // batch_size)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    # Sorted by hash, because the stream of a random generator may change between versions.
    digests = [hashlib.sha256(f"{seed}\x1f{epoch}\x1f{index}".encode()).digest() for index in range(count)]
    return tuple(sorted(range(count), key=digests.__getitem__))


def _flat(parts: Iterable[Iterable[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(parts), dtype=np.int64)
