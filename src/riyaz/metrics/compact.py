"""Numbers of many rows in few bytes: in blocks, each as narrow as holds all its numbers exactly.

Zeros and ones, and what a model computes in float32, take 4 bytes; so do numbers that are rounded to six decimals.
"""

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 4096  # rows of one block
MILLION = 1e6


class Compact:
    """Rows of one number each, or of as many in each, in order."""

    def __init__(self, values: np.ndarray | Sequence[float] | Sequence[Sequence[float]] = ()) -> None:
        self._blocks: list[np.ndarray] = []
        self._last: list[float | Sequence[float]] = []
        self._count = len(values)
        self._blocks += [_narrow(np.asarray(values, np.float64))] if len(values) else []

    def __len__(self) -> int:
        return self._count

    def append(self, row: float | Sequence[float]) -> None:
        """Add a row."""
        self._last.append(row)
        self._count += 1
        if len(self._last) == BLOCK:
            self._blocks.append(_narrow(np.array(self._last, np.float64)))
            self._last = []

    def extend(self, rows: np.ndarray) -> None:
        """Add some rows, as a block of their own."""
        assert not self._last
        self._blocks.append(_narrow(np.asarray(rows, np.float64)))
        self._count += len(rows)

    def blocks(self) -> Iterator[np.ndarray]:
        """The rows in order, (m,) or (m, L) float64 at a time."""
        for block in self._blocks:
            yield block / MILLION if block.dtype == np.int32 else block.astype(np.float64)
        if self._last:
            yield np.array(self._last, np.float64)

    def values(self) -> np.ndarray:
        """All rows, (n,) or (n, L) float64; (0,) where there is none."""
        values = None
        end = 0
        for block in self.blocks():  # joining them would take them twice
            values = np.empty((self._count, *block.shape[1:])) if values is None else values
            values[end : end + len(block)] = block
            end += len(block)
        return np.zeros(0) if values is None else values


def _narrow(values: np.ndarray) -> np.ndarray:
    """The numbers as float32, or as whole millionths in int32, if these are the same numbers, else as they are."""
    with np.errstate(all="ignore"):
        narrow, millionths = values.astype(np.float32), np.rint(values * MILLION)
        if np.array_equal(narrow, values, equal_nan=True):
            return narrow
        whole = bool((np.abs(millionths) < 2**31).all()) and np.array_equal(millionths / MILLION, values)
        return millionths.astype(np.int32) if whole else values
