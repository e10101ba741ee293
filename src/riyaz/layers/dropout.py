"""Dropout whose masks are a function of the seed, the step, the row, the layer and the place in the row alone: how rows
are packed into passes, or dealt to processes, changes none.

The numbers are Philox's (Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3), whose stream numpy keeps:
its key is the seed and the step, its counter begins with the layer and the row.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from riyaz.data.packing import PackedRows

LEVELS = 1 << 16  # of a number that is drawn
WORD = 4  # of them in one of Philox's results


@dataclass(frozen=True)
class Drawing:
    """The rows of a pass, which lie end to end: their lengths, and the number of each and which of its sequences it is;
    further lengths are padding. Tokens before them belong to the first row."""

    seed: int
    step: int
    lengths: tuple[int, ...]
    rows: tuple[tuple[int, int], ...]

    def numbers(self, layer: int, T: int, C: int) -> np.ndarray:
        """For T tokens of C activations of a layer (T, C) uint16; padding gets the highest."""
        numbers = np.full((T, C), LEVELS - 1, np.uint16)
        start = before = T - sum(self.lengths)
        for place, (row, length) in enumerate(zip(self.rows, self.lengths)):
            count = before + length
            generator = np.random.Philox(key=self.seed << 64 | self.step, counter=(0, layer, *row))
            drawn = generator.random_raw(-(-count * C // WORD)).view(np.uint16)[: count * C].reshape(count, C)
            if not place:
                numbers[:before] = drawn[:before]
            numbers[start : start + length] = drawn[before:]
            start += length
        return numbers


class _Current(threading.local):
    """The drawing of the thread's pass: models call their layers without knowing of it."""

    drawing: Drawing | None = None


_current = _Current()


@contextmanager
def dropping(seed: int, step: int, rows: PackedRows) -> Iterator[None]:
    """Inside the `with` block, a pass over these rows, dropout draws for them in this step."""
    _current.drawing = Drawing(seed % (1 << 64), step, tuple(rows.lengths), rows.places)
    try:
        yield
    finally:
        _current.drawing = None


@contextmanager
def laid_out(lengths: Sequence[int]) -> Iterator[None]:
    """Inside the `with` block the rows of the pass have these lengths, as each has the tokens that all begin with."""
    before = _current.drawing
    _current.drawing = before and replace(before, lengths=tuple(lengths))
    try:
        yield
    finally:
        _current.drawing = before


class Dropout(nn.Module):
    """Sets activations to zero in training, and multiplies the others so that their mean stays. `p` is the probability
    in steps of 1 / LEVELS, `number` that of the layer in its model; `train.set_dropout` sets both."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.number = 0.0, 0

    def forward(self, x: Tensor) -> Tensor:
        """x (T, C) -> (T, C)."""
        dropped = round(self.p * LEVELS)
        if not self.training or not dropped:
            return x
        assert _current.drawing is not None, "a pass that drops belongs in `dropping`"
        kept = torch.from_numpy(_current.drawing.numbers(self.number, *x.shape) >= dropped)
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
