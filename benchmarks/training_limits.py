"""What benchmarks/training.py counts and compares with: operations of a training step, and the rate of products."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from riyaz.data.packing import PackedRows

FORMULA = (
    "FLOPs of T tokens with N labels: 2 T W forward, 2 T W for the gradients of x, 2 T W for those of trained weights, "
    "W the weights of all linears but the head; attention 12 D for a pair of query and key, forward and backward, D "
    "heads × head size; head 4 N V C, 6 N V C where it trains; LoRA 6 T r (in + out) of every linear"
)
SHAPES = ((1024, 576, 1536), (1024, 1536, 576), (1024, 1024, 1024), (2048, 2048, 2048))  # rows, in, out of the products
SECONDS = 0.4  # that a shape is measured for


class Shape(NamedTuple):
    """Sizes of a model that its operations follow from."""

    linears: tuple[tuple[int, int], ...]  # (out, in), without the head
    head: tuple[int, int]  # (V, C)
    attention: int  # heads × head size
    windows: tuple[int | None, ...]  # of each layer; None: it attends to all tokens before


def shape_of(source: Any) -> Shape:
    from riyaz.adapters.base_shapes import shapes_of
    from riyaz.families import describe

    family = describe(source)
    config: Any = family.config
    linears = dict(shapes_of(family).linears)
    head = linears.pop("lm_head")
    local = getattr(config, "local", (False,) * config.n_layers)
    windows = tuple(config.window if here else None for here in local)
    return Shape(tuple(linears.values()), head, config.n_heads * config.head_dim, windows)


def flops(shape: Shape, rows: PackedRows, method: str, rank: int, vectors: int) -> int:
    """Operations of one pass forward and backward by FORMULA; `vectors` are those of a soft prompt before the rows."""
    T, prefix = len(rows.tokens), rows.shared
    if method == "prompt_tuning":
        T, prefix = T + vectors, prefix + vectors
    whole = method == "full"
    products = sum(out * width for out, width in shape.linears) * T * (6 if whole else 4)
    seen = sum(pairs(rows.lengths, prefix, window) for window in shape.windows)
    head = len(rows.labels) * shape.head[0] * shape.head[1] * (6 if whole else 4)
    thin = sum(out + width for out, width in shape.linears) * 6 * T * rank if method == "lora" else 0
    return products + 12 * shape.attention * seen + head + thin


def pairs(lengths: Sequence[int], prefix: int, window: int | None) -> int:
    """Pairs of query and key: every token sees the prefix and its row up to itself, at most `window` tokens."""
    seen = np.minimum(np.arange(1, prefix + max(lengths) + 1), window or 2**62)
    sums = np.concatenate(([0], np.cumsum(seen)))
    return int(sums[prefix] + sum(sums[prefix + length] - sums[prefix] for length in lengths))


def rate(dtype: str) -> float:
    """FLOP/s of the fastest of SHAPES, by torch's linear on all its threads."""
    return max(_rate(*shape, getattr(torch, dtype)) for shape in SHAPES)


def _rate(rows: int, width: int, out: int, dtype: torch.dtype) -> float:
    x, weight = torch.randn(rows, width).to(dtype), torch.randn(out, width).to(dtype)
    with torch.inference_mode():
        for _ in range(2):
            F.linear(x, weight)
        times, end = [], time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            began = time.perf_counter()
            F.linear(x, weight)
            times.append(time.perf_counter() - began)
    return 2 * rows * width * out / float(np.median(times))


def steps_flops(shape: Shape, steps: Iterable[Iterable[PackedRows]], method: str, rank: int, vectors: int) -> int:
    """Operations of steps of packed rows."""
    return sum(flops(shape, micro, method, rank, vectors) for step in steps for micro in step)
