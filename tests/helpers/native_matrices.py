"""Packed matrices of the C++ engine for tests: random GGUF blocks, matrices of every format, and products in numpy."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from riyaz import native
from riyaz.sources.gguf_blocks import LAYOUTS, TYPES, dequantise

GROUPED = ("int4", "int4-64", "int4-128", "int4-32s", "int4-64s", "int4-128s")
FORMATS = ("fp32", "bf16", "int8", "int8row", "int4k", *GROUPED)
QUANTISED = tuple(name for name in LAYOUTS if name not in ("F32", "F16", "BF16"))
EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K")  # packed from their blocks, without loss
WEIGHTS = {name: count for name, count, _ in TYPES.values()}  # in a block


def random_blocks(dtype: str, rows: int, cols: int, seed: int = 0) -> np.ndarray:
    """Random blocks (rows, bytes) of a GGUF type; every bit pattern occurs but scales, which stay small."""
    generator, layout = np.random.default_rng(seed), LAYOUTS[dtype]
    count = rows * cols // WEIGHTS[dtype]
    blocks = np.frombuffer(generator.bytes(count * layout.itemsize), layout).copy()
    for part in {"d", "m"} & set(layout.names):
        blocks[part] = generator.normal(0, 0.01, count).astype(np.float16)
    return blocks.view(np.uint8).reshape(rows, -1)


def weights_of(dtype: str, blocks: np.ndarray) -> np.ndarray:
    """Their weights (rows, cols) by `gguf_blocks`."""
    return dequantise(dtype, blocks.reshape(-1).view(LAYOUTS[dtype])).reshape(len(blocks), -1)


def from_blocks(dtype: str, blocks: np.ndarray, group: int = 32) -> Any:
    """The blocks packed without loss, those of int4 in groups of `group` columns."""
    cols = blocks.shape[1] // LAYOUTS[dtype].itemsize * WEIGHTS[dtype]
    matrix = empty_for(dtype, len(blocks), cols, group)
    assert matrix.fill_gguf(0, dtype, blocks, cols)
    return matrix


def empty_for(dtype: str, rows: int, cols: int, group: int = 32) -> Any:
    """A matrix of zeros that takes blocks of a GGUF type without loss."""
    extension = native.extension()
    format_ = extension.format_of(dtype)
    return extension.Matrix(format_, rows, cols, group, format_ != "int4" or extension.has_minimum(dtype))


def share_scales(dtype: str, blocks: np.ndarray, group: int) -> np.ndarray:
    """Blocks (rows, bytes) in which all of a group hold the scale and minimum of its first."""
    blocks = blocks.copy()
    each = blocks.view(LAYOUTS[dtype])
    first = np.arange(each.shape[1]) // (group // 32) * (group // 32)
    for part in {"d", "m"} & set(LAYOUTS[dtype].names):
        each[part] = each[part][:, first]
    return blocks


def empty(form: str, rows: int, cols: int) -> Any:
    """A matrix of zeros. "int4-64" is int4 in groups of 64 columns, "int4-64s" without minimums too."""
    name, _, group = form.partition("-")
    return native.extension().Matrix(name, rows, cols, int(group.rstrip("s") or 32), not group.endswith("s"))


def packed(form: str, values: np.ndarray) -> Any:
    """Floats packed in a form, rounded."""
    matrix = empty(form, *values.shape)
    assert matrix.fill(0, np.ascontiguousarray(values, np.float32))
    return matrix


def random_matrix(form: str, rows: int, cols: int, seed: int = 0) -> Any:
    """A matrix of any format; int4k takes multiples of 256 columns only."""
    if form == "int4k":
        return from_blocks("Q4_K", random_blocks("Q4_K", rows, cols, seed))
    return packed(form, np.random.default_rng(seed).normal(0, 0.2, (rows, cols)))


def unpacked(matrix: Any, rows: int, cols: int) -> np.ndarray:
    """Its weights (rows, cols)."""
    return np.stack([matrix.row(row)[:cols] for row in range(rows)])


def bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def in_codes(x: np.ndarray, group: int = 32, fine: bool = True) -> np.ndarray:
    """x (T, cols) as one code of 8 bits in groups of columns, or two (`fine`), as products of integer weights with many
    tokens, and with few, take it; float64."""
    x = np.pad(np.asarray(x, np.float32), ((0, 0), (0, -x.shape[1] % group))).reshape(len(x), -1, group)
    largest = np.abs(x).max(2, keepdims=True)
    exact = x * np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    codes = np.rint(exact)
    low = np.clip(np.rint((exact - codes) * 256), -127, 127) if fine else np.zeros_like(codes)
    return ((codes + low.astype(np.float64) / 256) * (largest / np.float32(127))).reshape(len(x), -1)


def product(weights: np.ndarray, x: np.ndarray, form: str) -> tuple[np.ndarray, np.ndarray]:
    """x times the weights in float64, x rounded as the format takes it, and the sums of the sizes of all terms."""
    rounded: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "fp32": np.asarray, "int8row": np.asarray, "bf16": bfloat16,
        "codes of 32": partial(in_codes, fine=False), "codes of 64": partial(in_codes, group=64, fine=False),
    }  # fmt: skip
    taken = rounded.get(form, in_codes)(x)[:, : weights.shape[1]]
    wide, taken = weights.astype(np.float64), taken.astype(np.float64)
    return taken @ wide.T, np.abs(taken) @ np.abs(wide).T
