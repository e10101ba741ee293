"""4-bit weights with one scale for 32, 64 or 128 columns, as GGUF blocks of Q4_1, or of Q4_0 without a minimum.

GGUF has no such type for 64 and 128. All blocks of a group hold the group's scale and minimum, and one metadata key
says how long groups are: every reader gets the same numbers, and one that knows the key keeps each scale once. What is
left of a row after its whole groups is a shorter group.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from riyaz.sources.gguf_blocks import BLOCK, LAYOUTS
from riyaz.sources.gguf_quantise import in_chunks
from riyaz.sources.tensor_files import TensorInfo

Group = Literal[32, 64, 128]
GROUPS = (32, 64, 128)
KEY = "riyaz.int4.group"  # metadata; absent: 32
CHUNK = 2**16  # weights that are quantised at once, so that intermediate arrays stay in the CPU cache
SHARES = (1.0, 0.9, 0.8)  # of a group's range that the 16 levels span at first
LEVELS = (-8, -9, 7, 8)  # of the largest weight at first; the levels are -8 to 7


def dtype_of(minimum: bool) -> str:
    """The type of the blocks."""
    return "Q4_1" if minimum else "Q4_0"


def bits(group: int, minimum: bool) -> float:
    """Bits of a weight in memory, its share of scale and minimum included."""
    return 4 + (32 if minimum else 16) / group


def bits_of(info: TensorInfo, group: int) -> float:
    """Bits of a weight of a file's tensor, scales that blocks share counted once."""
    if info.dtype in ("Q4_0", "Q4_1"):
        return bits(group, info.dtype == "Q4_1")
    return 8 * info.nbytes / math.prod(info.shape)


def group_of(metadata: Mapping[str, Any]) -> int:
    """Columns of a group by a file's metadata; 32 where it says nothing that is known."""
    group = metadata.get(KEY)
    return group if isinstance(group, int) and group in GROUPS else BLOCK


def are_shared(dtype: str, blocks: np.ndarray, group: int) -> bool:
    """Whether the blocks (rows, bytes) of every group hold the same bits of scale and minimum."""
    each = blocks.view(LAYOUTS[dtype])  # (rows, blocks of a row)
    first = np.arange(each.shape[1]) // (group // BLOCK) * (group // BLOCK)
    names = {"d", "m"} & set(LAYOUTS[dtype].names or ())
    parts = [np.ascontiguousarray(each[name]).view(np.uint16) for name in names]
    return all(bool((part == part[:, first]).all()) for part in parts)


def quantise(values: np.ndarray, group: int, minimum: bool) -> np.ndarray:
    """float32 (rows, cols), cols a multiple of 32 -> the file's bytes, uint8 (rows, bytes). Of the scales and minimums
    tried each group gets those with the least squared error."""
    rows, cols = values.shape
    whole = cols // group * group
    parts = [values[:, :whole].reshape(-1, group), values[:, whole:]]
    encode = _with_minimum if minimum else _without_minimum

    def encoded(groups: np.ndarray) -> np.ndarray:
        """(N, columns) -> (N, bytes) uint8."""
        return encode(np.ascontiguousarray(groups, np.float32))

    chunks = [in_chunks(encoded, part, max(1, CHUNK // part.shape[1])) for part in parts if part.size]
    return np.concatenate([chunk.reshape(rows, -1) for chunk in chunks], axis=1)


def _with_minimum(x: np.ndarray) -> np.ndarray:
    """Weight = scale · level + minimum, levels 0 to 15; each start is fitted twice by least squares."""
    best = _Best(x)
    low, high, total = x.min(axis=1), x.max(axis=1), x.sum(axis=1)
    for share in SHARES:
        scale = (high - low) * np.float32(share / 15)
        minimum = low + (high - low) * np.float32((1 - share) / 2)
        for fitted in range(3):
            levels, scale, minimum = _levels(x, scale, minimum)
            best.offer(levels, scale, minimum)
            if fitted < 2:
                sums, squares = levels.sum(axis=1), np.einsum("ij,ij->i", levels, levels)
                products = np.einsum("ij,ij->i", x, levels)
                determinant = x.shape[1] * squares - sums * sums
                slope = (x.shape[1] * products - total * sums) * _inverse(determinant)
                scale = np.where(determinant > 0, slope, scale)
                minimum = (total - scale * sums) / np.float32(x.shape[1])
    return best.blocks("Q4_1")


def _without_minimum(x: np.ndarray) -> np.ndarray:
    """Weight = scale · (level - 8), levels 0 to 15; each start is fitted twice by least squares."""
    best = _Best(x)
    largest = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)[:, 0]
    for level in LEVELS:
        scale = largest / np.float32(level)
        for fitted in range(3):
            levels, scale, minimum = _levels(x, scale, None)
            best.offer(levels, scale, minimum)
            if fitted < 2:
                signed = levels - np.float32(8)
                scale = np.einsum("ij,ij->i", x, signed) * _inverse(np.einsum("ij,ij->i", signed, signed))
    return best.blocks("Q4_0")


def _levels(x: np.ndarray, scale: np.ndarray, minimum: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest levels (N, columns) by scale and minimum (N,), which are rounded to half precision."""
    scale = scale.astype(np.float16).astype(np.float32)
    low = -8 * scale if minimum is None else minimum.astype(np.float16).astype(np.float32)
    levels = np.rint((x - low[:, None]) * _inverse(scale)[:, None])
    if minimum is None:
        levels[scale == 0] = 8
    return np.clip(levels, 0, 15, out=levels), scale, low


def _inverse(numbers: np.ndarray) -> np.ndarray:
    return np.divide(np.float32(1), numbers, out=np.zeros_like(numbers), where=numbers != 0)


class _Best:
    """Of what is offered for groups (N, columns) the levels, scales and minimums of the least squared error."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self.levels = np.zeros(x.shape, np.uint8)
        self.scale, self.minimum = np.zeros(len(x), np.float32), np.zeros(len(x), np.float32)
        self.error = np.full(len(x), np.inf, np.float32)

    def offer(self, levels: np.ndarray, scale: np.ndarray, minimum: np.ndarray) -> None:
        difference = levels * scale[:, None]
        difference += minimum[:, None]
        difference -= self.x
        error = np.einsum("ij,ij->i", difference, difference)
        better = np.flatnonzero(error < self.error)
        self.levels[better] = levels[better]
        self.scale[better], self.minimum[better] = scale[better], minimum[better]
        self.error[better] = error[better]

    def blocks(self, dtype: str) -> np.ndarray:
        """The groups as blocks of 32 weights, uint8 (N, bytes)."""
        count = self.x.shape[1] // BLOCK
        levels = self.levels.reshape(-1, count, BLOCK)
        blocks = np.empty((len(levels), count), LAYOUTS[dtype])
        blocks["d"] = self.scale[:, None]
        if dtype == "Q4_1":
            blocks["m"] = self.minimum[:, None]
        blocks["q"] = levels[:, :, :16] | levels[:, :, 16:] << np.uint8(4)
        return blocks.view(np.uint8)
