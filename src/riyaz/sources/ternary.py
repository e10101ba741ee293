"""Ternary matrices (BitNet b1.58: Ma et al. 2024, arXiv 2402.17764; 2025, arXiv 2504.12285): the one form in which
both engines take them, and how it comes from floats and from packed bytes. `layers.swaps.ternary` is its twin.

A matrix holds a code −1, 0 or 1 for every weight and float32 scales, one for the matrix or one for `group` columns of a
row. A linear multiplies the codes with inputs in 8 bits. This is its definition, which training and all engines share:

    a     = max(max |x|, 1e-5)                       x (C,) one token's input in float32
    q     = round(x · (127 / a))                     int8, ties to even
    y[o]  = (Σ_g float32(Σ_{c in g} codes[o, c] q[c]) · scales[o, g]) · (a / 127)  + bias[o]

The inner sums are of integers and exact, so every instruction set gives the same ones. Everything else is float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from riyaz.errors import RiyazError

LEAST = 1e-5  # of a mean or a largest absolute value, so that a matrix or a token of zeros has a scale
LEVELS = 127  # largest code of an input
PER_BYTE = 4  # codes in a byte of a packed matrix
PIECE = 2**18  # weights that are rounded at once, so that intermediate arrays stay in the CPU cache


@dataclass(frozen=True)
class Ternary:
    """A matrix of weights codes · scale. `codes` is int8 (O, C). Without a `group` the matrix has one scale and
    `scales` is float32 (1, 1); with one, a row has a scale for every `group` columns, the last of which may be fewer,
    and `scales` is (O, ⌈C / group⌉)."""

    codes: np.ndarray
    scales: np.ndarray
    group: int | None = None

    def floats(self) -> np.ndarray:
        """The weights in float32 (O, C)."""
        return self.codes * expanded(self.scales, self.group, self.codes.shape[1])


def ternary_codes(weight: np.ndarray, group: int | None = None) -> Ternary:
    """Float32 weights (O, C) rounded to codes: the scale is the mean absolute weight, of the matrix or of each `group`
    columns of a row. Means are taken in float64, so that numpy and torch find the same ones."""
    scales, codes = absolute_means(weight, group), np.empty(weight.shape, np.int8)
    for rows in _pieces(weight):
        own = scales if group is None else scales[rows]
        scaled = weight[rows] * expanded(np.float32(1) / own, group, weight.shape[1])
        codes[rows] = np.clip(np.rint(scaled, out=scaled), -1, 1, out=scaled)
    return Ternary(codes, scales, group)


def absolute_means(weight: np.ndarray, group: int | None) -> np.ndarray:
    """The mean absolute weights, at least LEAST, float32: (1, 1), or (O, groups)."""
    if group is None:
        total = sum(np.abs(weight[rows]).sum(dtype=np.float64) for rows in _pieces(weight))
        means = np.full((1, 1), total / weight.size)
    else:
        starts = np.arange(0, weight.shape[1], group)
        counts = np.diff(np.append(starts, weight.shape[1]))
        means = np.add.reduceat(np.abs(weight), starts, axis=1, dtype=np.float64) / counts
    return np.maximum(means.astype(np.float32), np.float32(LEAST))


def _pieces(weight: np.ndarray) -> Iterator[slice]:
    """Slices of whole rows, of about PIECE weights each."""
    step = max(1, PIECE // weight.shape[1])
    return (slice(begin, begin + step) for begin in range(0, len(weight), step))


def expanded(scales: np.ndarray, group: int | None, cols: int) -> np.ndarray:
    """Scales as they multiply weights: (1, 1) stays, (O, groups) becomes (O, cols)."""
    return scales if group is None else np.repeat(scales, group, axis=1)[:, :cols]


def pack(codes: np.ndarray) -> np.ndarray:
    """Codes (O, C), O a multiple of 4, as transformers packs them: uint8 (O / 4, C); bits 2 i and 2 i + 1 of byte
    [p, c] are the code of row i · O / 4 + p plus one."""
    quarters = (codes + 1).astype(np.uint8).reshape(PER_BYTE, -1, codes.shape[1])
    packed = np.zeros(quarters.shape[1:], np.uint8)
    for i, quarter in enumerate(quarters):
        packed |= quarter << np.uint8(2 * i)
    return packed


def unpack(packed: np.ndarray, name: str) -> np.ndarray:
    """The inverse of `pack`: uint8 (O / 4, C) -> int8 (O, C). Raises RiyazError for a code that is none."""
    codes = np.concatenate([packed >> np.uint8(2 * i) & np.uint8(3) for i in range(PER_BYTE)])
    if codes.size and codes.max() > 2:
        row, column = map(int, np.argwhere(codes == 3)[0])
        raise RiyazError(f"tensor {name} holds the bits 11 at [{row}, {column}], which are no ternary weight")
    return codes.view(np.int8) - np.int8(1)


def with_fewest_scales(codes: np.ndarray, scales: np.ndarray, group: int) -> Ternary:
    """A matrix with group scales; if they are all the same, the same matrix with one."""
    first = scales[:1, :1]
    return Ternary(codes, first.copy()) if (scales == first).all() else Ternary(codes, scales, group)
