"""Ternary weights in GGUF: the blocks TQ1_0 and TQ2_0 of llama.cpp, and I2_S of bitnet.cpp, a layout of its own.

TQ1_0 and TQ2_0 have blocks of 256 weights with one half-precision scale. I2_S has one float32 scale for the matrix,
behind all its codes. Its codes lie in blocks of 128 weights in 32 bytes (the layout that bitnet.cpp writes on x86 and
that its published file has): byte i holds the codes of weights i, 32 + i, 64 + i and 96 + i, the first in its highest
bits. Other tools write blocks of 64 for ARM under the same type number; the file does not say which it is.
"""

import numpy as np

from riyaz.sources.tensor_files import TensorInfo
from riyaz.sources.ternary import Ternary, with_fewest_scales

SUPER = 256  # weights of a block of TQ1_0 and TQ2_0
TQ1_0 = np.dtype([("q", "u1", 48), ("h", "u1", 4), ("d", "<f2")])
TQ2_0 = np.dtype([("q", "u1", 64), ("d", "<f2")])
# 128 weights; behind all blocks of a tensor comes one more, which begins with the scale
I2_S = np.dtype([("q", "u1", 32)])
POWERS = np.array([1, 3, 9, 27, 81], np.uint8)


def read(info: TensorInfo, blocks: np.ndarray) -> Ternary:
    """A ternary tensor (out, in) by its entry in the file and its blocks."""
    rows, cols = info.shape
    if info.dtype == "I2_S":
        return Ternary(i2_s_codes(blocks[:-1]).reshape(rows, cols), i2_s_scale(blocks).reshape(1, 1))
    codes = (tq1_0_codes if info.dtype == "TQ1_0" else tq2_0_codes)(blocks).reshape(rows, cols)
    return with_fewest_scales(codes, blocks["d"].astype(np.float32).reshape(rows, -1), SUPER)


def tq2_0_codes(blocks: np.ndarray) -> np.ndarray:
    """(N,) blocks -> int8 (N, 256): bits 2 i and 2 i + 1 of byte j of a half are the code of weight 32 i + j plus
    one."""
    halves = blocks["q"].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    return (halves & np.uint8(3)).reshape(-1, SUPER).view(np.int8) - np.int8(1)


def tq1_0_codes(blocks: np.ndarray) -> np.ndarray:
    """(N,) blocks -> int8 (N, 256): a byte is a fraction of 256 whose digits to the base 3 are five codes plus one, of
    weights 32 apart in the first 32 bytes and 16 apart in the next 16; four of weights 4 apart are in the last 4."""
    parts = [(blocks["q"][:, :32], 5), (blocks["q"][:, 32:], 5), (blocks["h"], 4)]
    digits = [
        ((part[:, None] * POWERS[:count, None]).astype(np.uint16) * 3 >> 8).reshape(len(part), -1)
        for part, count in parts
    ]
    return np.concatenate(digits, axis=1).astype(np.int8) - np.int8(1)


def i2_s_codes(blocks: np.ndarray) -> np.ndarray:
    """(N,) blocks -> int8 (N, 128)."""
    quarters = blocks["q"][:, None] >> np.array([6, 4, 2, 0], np.uint8)[:, None]
    return (quarters & np.uint8(3)).reshape(len(blocks), -1).view(np.int8) - np.int8(1)


def i2_s_scale(blocks: np.ndarray) -> np.ndarray:
    """The scale of a tensor by all its blocks, float32 (1,)."""
    scale: np.ndarray = blocks[-1]["q"][:4].view("<f4").astype(np.float32)
    return scale


def tq1_0(blocks: np.ndarray) -> np.ndarray:
    """Weight = d code."""
    return tq1_0_codes(blocks) * blocks["d"].astype(np.float32)[:, None]


def tq2_0(blocks: np.ndarray) -> np.ndarray:
    """Weight = d code."""
    return tq2_0_codes(blocks) * blocks["d"].astype(np.float32)[:, None]
