"""RoPE scaling (linear, and Llama 3.1's and 3.2's): read, checked, and converted to divisors of the frequencies.

Scaling lowers frequencies, so that positions beyond the training context get angles seen in training. `linear` (Chen et
al. 2023, arXiv 2306.15595) divides all frequencies by a factor; `llama3` (Grattafiori et al. 2024, arXiv 2407.21783)
keeps frequencies whose wavelength is short compared with the original context, divides those with a long one, and
interpolates between the two.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from riyaz.errors import RiyazError
from riyaz.families.checks import shortest_decimal, table

FREQUENCIES = "rope_freqs.weight"  # GGUF's tensor of divisors; `families.describe` copies its values to the metadata
LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
TOLERANCE = 1e-4  # relative difference up to which float32 divisors count as equal


@dataclass(frozen=True)
class Scaling:
    """A RoPE scaling; the last three fields are used by `llama3` only."""

    kind: str  # "linear" or "llama3"
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@cache
def divisors(scaling: Scaling, head_dim: int, theta: float) -> tuple[float, ...]:
    """The divisor of each of the head_dim / 2 frequencies; `theta` is the RoPE base."""
    if scaling.kind == "linear":
        return (scaling.factor,) * (head_dim // 2)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    result = []
    for i in range(0, head_dim, 2):
        turns = scaling.original_context / (2 * math.pi * theta ** (i / head_dim))  # rotations in the original context
        share = min(max((turns - low) / (high - low), 0.0), 1.0)  # weight of the unscaled frequency
        result.append(1 / (share + (1 - share) / scaling.factor))
    return tuple(result)


def frequencies(theta: float, head_dim: int, scaling: Scaling | None = None) -> list[float]:
    """The angle per position of each of the head_dim / 2 pairs, rounded as the C++ model takes them."""
    angles = np.power(np.float32(theta), -np.arange(head_dim // 2, dtype=np.float32) * 2 / head_dim, dtype=np.float32)
    if scaling is not None:
        angles = angles / np.array(divisors(scaling, head_dim, theta), np.float32)
    return [float(angle) for angle in angles]


def from_hf(metadata: Mapping[str, Any], problems: list[str]) -> tuple[Any, Scaling | None]:
    """(RoPE base or None, scaling or None) from a config.json; adds a problem for invalid or unsupported settings.

    Precedence as in transformers: `rope_scaling` before `rope_parameters`, and a `rope_theta` inside either before the
    top-level one.
    """
    rope = table(metadata, "rope_scaling") or table(metadata, "rope_parameters")
    theta = rope.get("rope_theta")
    if theta is None:
        theta = metadata.get("rope_theta")
    if rope.get("partial_rotary_factor", metadata.get("partial_rotary_factor")) not in (None, 1):
        problems.append("partial_rotary_factor: riyaz supports only 1")
    kind = rope.get("rope_type", rope.get("type"))
    if kind in (None, "default"):
        return theta, None
    if kind not in ("linear", "llama3"):
        problems.append(f"RoPE scaling {kind!r:.60} is not supported yet")
        return theta, None
    keys = LLAMA3_KEYS if kind == "llama3" else LLAMA3_KEYS[:1]
    wrong = [f"{key} {rope.get(key)!r:.60}" for key in keys if not _is_positive(rope.get(key))]
    if kind == "llama3" and not wrong and type(rope[LLAMA3_KEYS[3]]) is not int:
        wrong.append(f"{LLAMA3_KEYS[3]} {rope[LLAMA3_KEYS[3]]!r:.60}")
    if not wrong and rope["factor"] < 1:
        wrong.append(f"factor {rope['factor']!r:.60}")
    if not wrong and kind == "llama3" and not rope["low_freq_factor"] < rope["high_freq_factor"]:
        wrong.append(f"high_freq_factor {rope['high_freq_factor']!r:.60}")
    if wrong:
        problems.append(f"RoPE scaling {kind!r} has an invalid {', '.join(wrong)}")
        return theta, None
    if kind == "linear":
        return theta, Scaling(kind, float(rope["factor"]))
    factor, low, high = (float(rope[key]) for key in LLAMA3_KEYS[:3])
    return theta, Scaling(kind, factor, low, high, int(rope[LLAMA3_KEYS[3]]))


def to_hf(theta: float, scaling: Scaling | None) -> dict[str, Any]:
    """The config.json entries for RoPE, in the form that every version of transformers reads."""
    if scaling is None:
        return {"rope_theta": theta, "rope_scaling": None}
    table: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        table |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
        table["original_max_position_embeddings"] = scaling.original_context
    return {"rope_theta": theta, "rope_scaling": table}


def to_gguf(family: str, scaling: Scaling | None, head_dim: int, theta: float) -> dict[str, Any]:
    """The metadata that `from_gguf` reads; the divisors of `llama3` are under FREQUENCIES, to be written as a tensor.

    Raises RiyazError for `llama3` scaling of a family other than llama.
    """
    if scaling is None:
        return {}
    if scaling.kind == "linear":
        return {f"{family}.rope.scaling.type": "linear", f"{family}.rope.scaling.factor": scaling.factor}
    if family != "llama":
        what = f"GGUF cannot express RoPE scaling {scaling.kind!r} of a {family}"
        raise RiyazError(what, hint="export it with --format hf")
    return {FREQUENCIES: list(divisors(scaling, head_dim, theta))}


def from_gguf(metadata: Mapping[str, Any], family: str, values: dict[str, Any], problems: list[str]) -> Scaling | None:
    """The scaling from GGUF metadata or from its divisors (FREQUENCIES), or None; adds a problem for unsupported ones.

    `values` must hold head_dim and rope_theta.
    """
    kind = metadata.get(f"{family}.rope.scaling.type", "linear")
    factor = metadata.get(f"{family}.rope.scaling.factor", metadata.get(f"{family}.rope.scale_linear", 1.0))
    if kind not in ("none", "linear"):
        problems.append(f"RoPE scaling ({family}.rope.scaling.type {kind!r:.60}) is not supported yet")
        return None
    if not _is_positive(factor) or factor < 1:
        problems.append(f"RoPE scaling ({family}.rope.scaling.factor) has an invalid factor {factor!r:.60}")
        return None
    linear = Scaling("linear", shortest_decimal(float(factor))) if kind == "linear" and factor != 1 else None
    if FREQUENCIES not in metadata:
        return linear
    scaling = None if linear else _llama3(metadata[FREQUENCIES], values["head_dim"], values["rope_theta"])
    if scaling is None:
        problems.append(f"RoPE scaling ({FREQUENCIES}) is not Llama 3's, the only one supported")
    return scaling


def _llama3(stored: Any, head_dim: Any, theta: Any) -> Scaling | None:
    """The `llama3` scaling whose divisors are `stored`, or None.

    GGUF holds the divisors only. The search assumes what all published models have: low and high frequency factors of 1
    and 4, and an original context that is a power of two.
    """
    if type(head_dim) is not int or len(stored) * 2 != head_dim or not _is_positive(theta):
        return None
    factor = max(stored)
    nearest = float(round(factor))
    for exponent in range(4, 24):
        for value in (nearest, shortest_decimal(factor)):
            scaling = Scaling("llama3", value, original_context=2**exponent)
            if value >= 1 and np.allclose(divisors(scaling, head_dim, float(theta)), stored, TOLERANCE, 0):
                return scaling
    return None


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e15
