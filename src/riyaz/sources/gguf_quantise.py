"""GGUF's quantised weight formats: from float32 to blocks (`gguf_blocks` reads them).

Each format has one function from (N, weights) float32 to (N, bytes). Q8_0, Q5_0, Q4_1 and Q4_0 round to the nearest
level. Q4_K and Q6_K try several scales for each sub-block and keep the one with the smallest weighted squared error, as
ggml's `make_qkx2_quants` and `make_qx_quants` do, without an importance matrix. Test oracle: the quantisers of the
`gguf` package for the first four; for the others its `dequantize`, and bounds on the error of a block.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from riyaz import hardware
from riyaz.sources.gguf_blocks import BLOCK, SUPER

CHUNK = 2**17  # weights that are quantised at once, so that intermediate arrays stay in the CPU cache
SMALLEST = 1e-15  # a sub-block of smaller weights is written as zeros


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    """Scale = |largest| / 127; weights as signed bytes, halves away from 0; (N, 32) float32 -> (N, 34) bytes."""
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    scaled = blocks * _inverse(scale)
    size = np.abs(scaled)
    whole = np.floor(size)
    whole += np.floor(2 * (size - whole))
    signed = np.copysign(whole, scaled).astype(np.int8)
    return np.concatenate([_half(scale), signed.view(np.uint8)], axis=1)


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    """Scale = (value of largest magnitude) / -8; levels 0 to 15 around 8; (N, 32) float32 -> (N, 18) bytes."""
    scale, levels = _signed_levels(blocks, 8)
    return np.concatenate([_half(scale), levels[:, :16] | (levels[:, 16:] << np.uint8(4))], axis=1)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    """Weight = scale times a level from 0 to 15, plus the minimum; (N, 32) float32 -> (N, 20) bytes."""
    low = blocks.min(axis=1, keepdims=True)
    scale = (blocks.max(axis=1, keepdims=True) - low) / 15
    levels = np.trunc((blocks - low) * _inverse(scale) + np.float32(0.5)).astype(np.uint8).clip(0, 15)
    return np.concatenate([_half(scale), _half(low), levels[:, :16] | (levels[:, 16:] << np.uint8(4))], axis=1)


def _q5_0(blocks: np.ndarray) -> np.ndarray:
    """Scale = (value of largest magnitude) / -16; levels 0 to 31 around 16; (N, 32) float32 -> (N, 22) bytes."""
    scale, levels = _signed_levels(blocks, 16)
    high = np.packbits(levels >> 4, axis=1, bitorder="little")
    low = levels & np.uint8(15)
    return np.concatenate([_half(scale), high, low[:, :16] | (low[:, 16:] << np.uint8(4))], axis=1)


def _signed_levels(blocks: np.ndarray, middle: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales (N, 1) and levels from 0 to 2 · middle - 1, where the value of largest magnitude has the level 0."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    scale = largest / -middle
    levels = np.trunc(blocks * _inverse(scale) + np.float32(middle + 0.5))
    return scale, levels.astype(np.uint8).clip(0, 2 * middle - 1)


def _q4_k(blocks: np.ndarray) -> np.ndarray:
    """Weight = d s q - m t for 8 sub-blocks of 32; q has 4 bits, s and t 6; (N, 256) float32 -> (N, 144) bytes."""
    values = blocks.reshape(-1, 8, 32)
    weights = np.sqrt((values * values).mean(axis=2, keepdims=True)) + np.abs(values)
    scales, minimums = _scale_and_minimum(values, weights, 15)
    d, s = _six_bits(scales)
    m, t = _six_bits(minimums)
    step = (d.astype(np.float32) * s)[:, :, None]
    offset = (m.astype(np.float32) * t)[:, :, None]
    q = np.rint((values + offset) * _inverse(step)).clip(0, 15).astype(np.uint8)
    packed = q[:, 0::2] | (q[:, 1::2] << np.uint8(4))
    four = np.uint8(4)
    bits = [s[:, :4] | (s[:, 4:] >> four) << np.uint8(6), t[:, :4] | (t[:, 4:] >> four) << np.uint8(6)]
    bits.append((s[:, 4:] & 15) | (t[:, 4:] & 15) << four)
    return np.concatenate([_bytes(d), _bytes(m), *bits, packed.reshape(-1, 128)], axis=1)


def _scale_and_minimum(values: np.ndarray, weights: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the minimum (at least 0, to be subtracted) of each sub-block whose levels 0 to `top` have the least
    weighted squared error, of 21 scales tried; (…, 32) -> two (…)."""
    low, high = np.minimum(values.min(axis=-1), 0), values.max(axis=-1)
    flat = high <= low
    weighted = weights * values
    sum_w, sum_x = weights.sum(axis=-1), weighted.sum(axis=-1)
    best_scale, best_low = (high - low) / top, low
    levels = np.rint((values - low[..., None]) * _inverse(best_scale)[..., None]).clip(0, top)
    best_error = _error(values, weights, levels, best_scale, best_low)
    for tried in range(21):
        finer = np.float32(top - 1 + 0.1 * tried) * _inverse(high - best_low)  # from the best minimum so far, as ggml
        levels = np.rint((values - best_low[..., None]) * finer[..., None])
        np.clip(levels, 0, top, out=levels)
        level_weights = weights * levels
        sum_l = level_weights.sum(axis=-1)
        sum_l2 = np.einsum("...i,...i", level_weights, levels)
        sum_xl = np.einsum("...i,...i", weighted, levels)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        inverse = np.where(determinant > 0, _inverse(determinant), 0)
        scale = (sum_w * sum_xl - sum_x * sum_l) * inverse
        minimum = (sum_l2 * sum_x - sum_l * sum_xl) * inverse
        above = minimum > 0
        scale = np.where(above, sum_xl * _inverse(sum_l2), scale)
        minimum = np.where(above, 0, minimum)
        error = _error(values, weights, levels, scale, minimum)
        better = (error < best_error) & (determinant > 0)
        best_scale, best_low = np.where(better, scale, best_scale), np.where(better, minimum, best_low)
        best_error = np.where(better, error, best_error)
    return np.where(flat, 0, best_scale), -best_low


def _error(values: np.ndarray, weights: np.ndarray, levels: np.ndarray, scale: np.ndarray, low: np.ndarray) -> Any:
    """The weighted squared error of scale · level + low in place of the values; (…, n) -> (…)."""
    difference = levels * scale[..., None]
    difference += low[..., None]
    difference -= values
    return np.einsum("...i,...i,...i", weights, difference, difference)


def _six_bits(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative scales (N, 8) as a float16 factor (N, 1) times integers of six bits, uint8 (N, 8)."""
    largest = scales.max(axis=1, keepdims=True)
    numbers = np.rint(scales * (63 * _inverse(largest))).clip(0, 63).astype(np.uint8)
    return (largest / 63).astype("<f2"), numbers


def _q6_k(blocks: np.ndarray) -> np.ndarray:
    """Weight = d s (q - 32) for 16 sub-blocks of 16; q has 6 bits, s is a signed byte; (N, 256) -> (N, 210) bytes."""
    values = blocks.reshape(-1, 16, 16)
    scales = _signed_scale(values, 32)
    largest = np.take_along_axis(scales, np.abs(scales).argmax(axis=1, keepdims=True), axis=1)
    d = (largest / -128).astype("<f2")
    s = np.rint(scales * (-128 * _inverse(largest))).clip(-128, 127).astype(np.int8)
    step = (d.astype(np.float32) * s)[:, :, None]
    q = (np.rint(values * _inverse(step)).clip(-32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = q & np.uint8(15), q >> np.uint8(4)
    halves = low[:, :, :2] | low[:, :, 2:] << np.uint8(4)
    top = high[:, :, 0] | high[:, :, 1] << np.uint8(2) | high[:, :, 2] << np.uint8(4) | high[:, :, 3] << np.uint8(6)
    parts = [halves.reshape(-1, 128), top.reshape(-1, 64), s.view(np.uint8), _bytes(d)]
    return np.concatenate(parts, axis=1)


def _signed_scale(values: np.ndarray, middle: int) -> np.ndarray:
    """The scale of each sub-block whose levels -middle to middle - 1 have the least squared error weighted by the
    squared values, of 19 scales tried; (…, 16) -> (…)."""
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    squares = values * values
    cubes = squares * values
    best_scale, best_gain = np.zeros_like(largest), np.zeros_like(largest)
    inverse = np.where(np.abs(largest) < SMALLEST, 0, _inverse(largest))
    for tried in (0, *range(-9, 0), *range(1, 10)):
        levels = np.rint(values * (-(middle + 0.1 * tried) * inverse).astype(np.float32)[..., None])
        np.clip(levels, -middle, middle - 1, out=levels)
        sum_xl = np.einsum("...i,...i", cubes, levels)
        sum_l2 = np.einsum("...i,...i,...i", squares, levels, levels)
        scale = sum_xl * _inverse(sum_l2)
        gain = scale * sum_xl
        better = gain > best_gain
        best_scale, best_gain = np.where(better, scale, best_scale), np.where(better, gain, best_gain)
    return best_scale


def _half(scale: np.ndarray) -> np.ndarray:
    """Scales (N, 1) as the bytes of float16, (N, 2)."""
    return _bytes(scale.astype("<f2"))


def _bytes(numbers: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(numbers).view(np.uint8)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """1 / scale, and 0 for 0."""
    with np.errstate(divide="ignore"):
        return np.where(scale == 0, np.float32(0), 1 / scale)


def quantise(dtype: str, values: np.ndarray) -> np.ndarray:
    """float32 (…, n), n a multiple of the block's weights -> the file's bytes, uint8 (…, bytes of n weights)."""
    weights, function = QUANTISE[dtype]
    parts = in_chunks(function, values.reshape(-1, weights), CHUNK // weights)
    return parts.reshape(*values.shape[:-1], -1)


def in_chunks(function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, step: int) -> np.ndarray:
    """What a function makes of rows (N, …), `step` of them at a time and on all cores: numpy's loops let other threads
    run meanwhile. The result does not depend on the number of threads."""
    parts = [rows[begin : begin + step] for begin in range(0, len(rows), step)]
    if len(parts) < 2 or hardware.threads() < 2:
        return np.concatenate([function(part) for part in parts or [rows]])
    with ThreadPoolExecutor(min(hardware.threads(), len(parts))) as pool:
        return np.concatenate(list(pool.map(function, parts)))


QUANTISE: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "Q8_0": (BLOCK, _q8_0),
    "Q5_0": (BLOCK, _q5_0),
    "Q4_0": (BLOCK, _q4_0),
    "Q4_1": (BLOCK, _q4_1),
    "Q4_K": (SUPER, _q4_k),
    "Q6_K": (SUPER, _q6_k),
}
