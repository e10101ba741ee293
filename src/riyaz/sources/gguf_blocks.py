"""GGUF's quantised weight formats: block sizes, byte layouts, and dequantisation to float32.

Each format has one function from (N,) blocks to float32, (N, weights) or (N, sub-blocks, weights). A block of 32
weights shares a scale d and, in some formats, a minimum m. A K block has 256 weights in sub-blocks of 16 or 32; each
sub-block has a small integer scale that d multiplies (and a minimum that m multiplies). Layouts: ggml's block structs,
little-endian. Test oracle: `gguf.quants.dequantize`, bit for bit.
"""

from collections.abc import Callable

import numpy as np

from riyaz.sources.gguf_ternary import I2_S, TQ1_0, TQ2_0, i2_s_codes, i2_s_scale, tq1_0, tq2_0

BLOCK, SUPER = 32, 256
CHUNK = 2**18  # weights dequantised at once, so that intermediate arrays stay in the CPU cache

Q4_0 = np.dtype([("d", "<f2"), ("q", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("h", "u1", 4), ("q", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("h", "u1", 4), ("q", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("q", "i1", 32)])
Q2_K = np.dtype([("s", "u1", 16), ("q", "u1", 64), ("d", "<f2"), ("m", "<f2")])
Q3_K = np.dtype([("h", "u1", 32), ("q", "u1", 64), ("s", "u1", 12), ("d", "<f2")])
Q4_K = np.dtype([("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("q", "u1", 128)])
Q5_K = np.dtype([("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("h", "u1", 32), ("q", "u1", 128)])
Q6_K = np.dtype([("q", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), ("d", "<f2")])
# type number -> (name, weights in a block, the block's layout)
TYPES: dict[int, tuple[str, int, np.dtype]] = {
    0: ("F32", 1, np.dtype("<f4")),
    1: ("F16", 1, np.dtype("<f2")),
    2: ("Q4_0", BLOCK, Q4_0),
    3: ("Q4_1", BLOCK, Q4_1),
    6: ("Q5_0", BLOCK, Q5_0),
    7: ("Q5_1", BLOCK, Q5_1),
    8: ("Q8_0", BLOCK, Q8_0),
    10: ("Q2_K", SUPER, Q2_K),
    11: ("Q3_K", SUPER, Q3_K),
    12: ("Q4_K", SUPER, Q4_K),
    13: ("Q5_K", SUPER, Q5_K),
    14: ("Q6_K", SUPER, Q6_K),
    20: ("IQ4_NL", BLOCK, Q4_0),
    30: ("BF16", 1, np.dtype("<u2")),
    34: ("TQ1_0", SUPER, TQ1_0),
    35: ("TQ2_0", SUPER, TQ2_0),
    36: ("I2_S", 128, I2_S),
}
OTHER_TYPES = {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S"}
OTHER_TYPES |= {22: "IQ2_S", 23: "IQ4_XS", 28: "F64", 29: "IQ1_M", 39: "MXFP4"}
# numbers of ternary types in llama.cpp (Q1_0, Q2_0) and those which bitnet.cpp and ik_llama.cpp have alone
FORKS_TYPES = {36: "I2_S", 37: "TL1", 38: "TL2", 41: "Q1_0", 42: "Q2_0", 134: "IQ1_BN", 135: "IQ2_BN", 335: "IQ2_BN_R4"}
LAYOUTS = {name: layout for name, _, layout in TYPES.values()}
IQ4_NL_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def dequantise(dtype: str, blocks: np.ndarray) -> np.ndarray:
    """A tensor's blocks as flat float32; the unquantised types (F32, F16, BF16 bits) are returned unchanged."""
    if dtype == "I2_S":
        with np.errstate(all="ignore"):  # a damaged scale may be infinite
            return (i2_s_codes(blocks[:-1]) * i2_s_scale(blocks)).reshape(-1)
    if dtype not in DEQUANTISE:
        return blocks
    weights = next(count for name, count, _ in TYPES.values() if name == dtype)
    out = np.empty((len(blocks), weights), np.float32)
    step = CHUNK // weights
    with np.errstate(all="ignore"):
        for begin in range(0, len(blocks), step):
            out[begin : begin + step] = DEQUANTISE[dtype](blocks[begin : begin + step]).reshape(-1, weights)
    return out.reshape(-1)


def _split(packed: np.ndarray, bits: int, run: int) -> np.ndarray:
    """Unpacks numbers of 1, 2 or 4 bits from (N, bytes): for each `run` bytes the lowest bits of all, then the next.

    Returns (N, bytes · 8 / bits) uint8.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    numbers = packed.reshape(len(packed), -1, 1, run) >> shifts
    numbers &= np.uint8(2**bits - 1)
    return numbers.reshape(len(packed), -1)


def _wide(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N, 1) float32."""
    return values.astype(np.float32)[:, None]


def _scaled(numbers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Each sub-block's numbers times its scale: (N, weights), (N, sub-blocks) -> (N, sub-blocks, 16 or 32)."""
    return numbers.astype(np.float32).reshape(*scales.shape, -1) * scales[:, :, None]


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    """Weight = d (q - 8); the low half-bytes are weights 0 to 15, the high ones 16 to 31."""
    weights = _split(blocks["q"], 4, 16).astype(np.float32)
    weights -= 8
    weights *= _wide(blocks["d"])
    return weights


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    """Weight = d q + m."""
    weights = _split(blocks["q"], 4, 16).astype(np.float32)
    weights *= _wide(blocks["d"])
    weights += _wide(blocks["m"])
    return weights


def _five_bits(blocks: np.ndarray) -> np.ndarray:
    """Four bits as in Q4_0, the fifth is bit i of h for weight i; (N,) -> (N, 32) float32."""
    return (_split(blocks["q"], 4, 16) | _split(blocks["h"], 1, 1) << 4).astype(np.float32)


def _q5_0(blocks: np.ndarray) -> np.ndarray:
    """Weight = d (q - 16)."""
    return (_five_bits(blocks) - 16) * _wide(blocks["d"])


def _q5_1(blocks: np.ndarray) -> np.ndarray:
    """Weight = d q + m."""
    return _five_bits(blocks) * _wide(blocks["d"]) + _wide(blocks["m"])


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    """Weight = d q, where q is a signed byte."""
    return np.multiply(blocks["q"], _wide(blocks["d"]), dtype=np.float32)


def _iq4_nl(blocks: np.ndarray) -> np.ndarray:
    """Weight = d value[q]: q has four bits as in Q4_0 and indexes 16 unevenly spaced values."""
    return IQ4_NL_VALUES[_split(blocks["q"], 4, 16)] * _wide(blocks["d"])


def _q2_k(blocks: np.ndarray) -> np.ndarray:
    """Weight = d s q - m t for 16 sub-blocks of 16; s and t are the low and high half of one byte, q has 2 bits."""
    scales = _wide(blocks["d"]) * (blocks["s"] & 15)
    minimums = _wide(blocks["m"]) * (blocks["s"] >> 4)
    return _scaled(_split(blocks["q"], 2, 32), scales) - minimums[:, :, None]


def _q3_k(blocks: np.ndarray) -> np.ndarray:
    """Weight = d (s - 32) q for 16 sub-blocks of 16; q is two bits of q, minus 4 where the bit in h is 0.

    Each of the 16 scales has six bits: four in the half-bytes of bytes 0 to 7, two in bytes 8 to 11.
    """
    six_bits = _split(blocks["s"][:, :8], 4, 8) | _split(blocks["s"][:, 8:], 2, 4) << 4
    numbers = _split(blocks["q"], 2, 32).view(np.int8) + (_split(blocks["h"], 1, 32) << 2).view(np.int8) - 4
    return _scaled(numbers, _wide(blocks["d"]) * (six_bits.view(np.int8) - 32))


def _scales_of_8(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and minimums of the 8 sub-blocks of Q4_K and Q5_K, times d and m; two (N, 8) float32.

    Six bits each, in 12 bytes: for sub-blocks 0 to 3 the scale is in bytes 0 to 3 and the minimum in bytes 4 to 7; for
    4 to 7 the low four bits are in the half-bytes of bytes 8 to 11, the high two bits in the top bits of bytes 0 to 7.
    """
    first, second, third = blocks["s"][:, :4], blocks["s"][:, 4:8], blocks["s"][:, 8:]
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    minimums = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return _wide(blocks["d"]) * scales, _wide(blocks["m"]) * minimums


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    """Weight = d s q - m t for 8 sub-blocks of 32; q has 4 bits."""
    scales, minimums = _scales_of_8(blocks)
    return _scaled(_split(blocks["q"], 4, 32), scales) - minimums[:, :, None]


def _q5_k(blocks: np.ndarray) -> np.ndarray:
    """Weight = d s q - m t for 8 sub-blocks of 32; the fifth bit of q is bit i of h for sub-block i."""
    scales, minimums = _scales_of_8(blocks)
    numbers = _split(blocks["q"], 4, 32) | _split(blocks["h"], 1, 32) << 4
    return _scaled(numbers, scales) - minimums[:, :, None]


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    """Weight = d s (q - 32) for 16 sub-blocks of 16; s is a signed byte, q has four bits in q and two in h."""
    numbers = _split(blocks["q"], 4, 64) | _split(blocks["h"], 2, 32) << 4
    return _scaled(numbers.view(np.int8) - 32, _wide(blocks["d"]) * blocks["s"])


DEQUANTISE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "IQ4_NL": _iq4_nl,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "TQ1_0": tq1_0,
    "TQ2_0": tq2_0,
}
