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
CHUNK = 2**10  # blocks that are unpacked at once, so that intermediate arrays stay in the CPU cache
TQ1_0 = np.dtype([("q", "u1", 48), ("h", "u1", 4), ("d", "<f2")])
TQ2_0 = np.dtype([("q", "u1", 64), ("d", "<f2")])
# 128 weights; behind all blocks of a tensor comes one more, which begins with the scale
I2_S = np.dtype([("q", "u1", 32)])


def read(info: TensorInfo, blocks: np.ndarray) -> Ternary:
    """A ternary tensor (out, in) by its entry in the file and its blocks."""
    rows, cols = info.shape
    if info.dtype == "I2_S":
        return Ternary(i2_s_codes(blocks[:-1]).reshape(rows, cols), i2_s_scale(blocks).reshape(1, 1))
    unpacked = tq1_0_codes if info.dtype == "TQ1_0" else tq2_0_codes
    codes = np.empty((len(blocks), SUPER), np.int8)
    for begin in range(0, len(blocks), CHUNK):
        codes[begin : begin + CHUNK] = unpacked(blocks[begin : begin + CHUNK])
    return with_fewest_scales(codes.reshape(rows, cols), blocks["d"].astype(np.float32).reshape(rows, -1), SUPER)


def tq2_0_codes(blocks: np.ndarray) -> np.ndarray:
    """(N,) blocks -> int8 (N, 256): bits 2 i and 2 i + 1 of byte j of a half are the code of weight 32 i + j plus
    one."""
    halves, codes = blocks["q"].reshape(-1, 2, 32), np.empty((len(blocks), 2, 4, 32), np.int8)
    for i in range(4):
        codes[:, :, i] = (halves >> np.uint8(2 * i) & np.uint8(3)).view(np.int8) - np.int8(1)
    return codes.reshape(-1, SUPER)


def tq1_0_codes(blocks: np.ndarray) -> np.ndarray:
    """(N,) blocks -> int8 (N, 256): a byte is a fraction of 256 whose digits to the base 3 are five codes plus one, of
    weights 32 apart in the first 32 bytes and 16 apart in the next 16; four of weights 4 apart are in the last 4."""
    codes, at = np.empty((len(blocks), SUPER), np.int8), 0
    for part, count in ((blocks["q"][:, :32], 5), (blocks["q"][:, 32:], 5), (blocks["h"], 4)):
        for _ in range(count):
            digit = (part > 85).view(np.int8) + (part > 170).view(np.int8)  # 3 part / 256, rounded down
            codes[:, at : at + part.shape[1]] = digit - np.int8(1)
            part, at = part * np.uint8(3), at + part.shape[1]  # what is above 255 is the digit and falls away
    return codes


def blocks_of(dtype: str, matrix: Ternary) -> np.ndarray:
    """The bytes (rows, bytes of a row) of a matrix whose rows are whole blocks of TQ1_0 or TQ2_0, and whose scales are
    those of whole blocks; scales are rounded to half precision. The inverse of `read`."""
    codes = (matrix.codes + np.int8(1)).view(np.uint8)
    rows, cols = codes.shape
    scales = np.broadcast_to(matrix.scales, (rows, matrix.scales.shape[1]))
    repeated = np.repeat(scales, (matrix.group or cols) // SUPER, axis=1)[:, : cols // SUPER]
    blocks = np.zeros(rows * cols // SUPER, TQ1_0 if dtype == "TQ1_0" else TQ2_0)
    (_put_tq1_0 if dtype == "TQ1_0" else _put_tq2_0)(blocks, codes.reshape(-1, SUPER))
    blocks["d"] = repeated.reshape(-1)
    return blocks.view(np.uint8).reshape(rows, -1)


def _put_tq2_0(blocks: np.ndarray, codes: np.ndarray) -> None:
    """Codes from 0 to 2 (N, 256) into (N,) blocks, as `tq2_0_codes` reads them."""
    quarters, q = codes.reshape(-1, 2, 4, 32), np.zeros((len(codes), 2, 32), np.uint8)
    for i in range(4):
        q |= quarters[:, :, i] << np.uint8(2 * i)
    blocks["q"] = q.reshape(-1, 64)


def _put_tq1_0(blocks: np.ndarray, codes: np.ndarray) -> None:
    """Codes from 0 to 2 (N, 256) into (N,) blocks, as `tq1_0_codes` reads them: fractions are rounded up."""
    at = 0
    for part, size, count in ((blocks["q"][:, :32], 32, 5), (blocks["q"][:, 32:], 16, 5), (blocks["h"], 4, 4)):
        digits = codes[:, at : at + size * count].reshape(-1, count, size).astype(np.uint16)
        value = sum(digits[:, k] * np.uint16(3 ** (4 - k)) for k in range(count))
        part[:] = (value * np.uint16(256) + np.uint16(242)) // np.uint16(243)
        at += size * count


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
