"""RoPE scaling (linear, and that of Llama 3.1 and 3.2): read, checked, and turned into divisors of the frequencies.

Both make the slow frequencies slower, so that a longer row turns no further than the rows of training did. `linear`
(Chen et al. 2023, arXiv 2306.15595) divides all of them; `llama3` (Grattafiori et al. 2024, arXiv 2407.21783) leaves
waves that are short beside the original context alone, divides long ones, and goes from one to the other between.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from riyaz.errors import RiyazError
from riyaz.families.checks import shortest, table

FREQUENCIES = "rope_freqs.weight"  # GGUF's tensor of divisors; `families.describe` puts its values into the metadata
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
SAME = 1e-4  # relative difference of divisors that are the same but for float32


@dataclass(frozen=True)
class Scaling:
    """How the frequencies are divided; the last three fields are those of `llama3`."""

    kind: str  # "linear" or "llama3"
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@cache
def divisors(scaling: Scaling, head_dim: int, theta: float) -> tuple[float, ...]:
    """What each of the D/2 frequencies is divided by."""
    if scaling.kind == "linear":
        return (scaling.factor,) * (head_dim // 2)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    found = []
    for i in range(0, head_dim, 2):
        turns = scaling.original_context / (2 * math.pi * theta ** (i / head_dim))  # in the original context
        share = min(max((turns - low) / (high - low), 0.0), 1.0)  # of the frequency as it was
        found.append(1 / (share + (1 - share) / scaling.factor))
    return tuple(found)


def from_hf(metadata: Mapping[str, Any], problems: list[str]) -> tuple[Any, Scaling | None]:
    """The base, None where it is left out, and the scaling of a config.json. Where it says both twice, what
    transformers takes counts: all of rope_scaling before rope_parameters, and theirs before a rope_theta outside."""
    rope = table(metadata, "rope_scaling") or table(metadata, "rope_parameters")
    theta = rope.get("rope_theta")
    if theta is None:
        theta = metadata.get("rope_theta")
    if rope.get("partial_rotary_factor", metadata.get("partial_rotary_factor")) not in (None, 1):
        problems.append("partial_rotary_factor: riyaz turns whole heads only")
    kind = rope.get("rope_type", rope.get("type"))
    if kind in (None, "default"):
        return theta, None
    if kind not in ("linear", "llama3"):
        problems.append(f"RoPE scaling {kind!r:.60} is not supported yet")
        return theta, None
    keys = LLAMA3 if kind == "llama3" else LLAMA3[:1]
    wrong = [f"{key} {rope.get(key)!r:.60}" for key in keys if not _is_positive(rope.get(key))]
    if kind == "llama3" and not wrong and type(rope[LLAMA3[3]]) is not int:
        wrong.append(f"{LLAMA3[3]} {rope[LLAMA3[3]]!r:.60}")
    if not wrong and rope["factor"] < 1:
        wrong.append(f"factor {rope['factor']!r:.60}")
    if not wrong and kind == "llama3" and not rope["low_freq_factor"] < rope["high_freq_factor"]:
        wrong.append(f"high_freq_factor {rope['high_freq_factor']!r:.60}")
    if wrong:
        problems.append(f"RoPE scaling {kind!r} has an impossible {', '.join(wrong)}")
        return theta, None
    if kind == "linear":
        return theta, Scaling(kind, float(rope["factor"]))
    factor, low, high = (float(rope[key]) for key in LLAMA3[:3])
    return theta, Scaling(kind, factor, low, high, int(rope[LLAMA3[3]]))


def to_hf(theta: float, scaling: Scaling | None) -> dict[str, Any]:
    """The keys of a config.json that every version of transformers reads."""
    if scaling is None:
        return {"rope_theta": theta, "rope_scaling": None}
    table: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        table |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
        table["original_max_position_embeddings"] = scaling.original_context
    return {"rope_theta": theta, "rope_scaling": table}


def to_gguf(family: str, scaling: Scaling | None, head_dim: int, theta: float) -> dict[str, Any]:
    """What `from_gguf` reads; the divisors of `llama3` under the name of their tensor, which an export makes of it."""
    if scaling is None:
        return {}
    if scaling.kind == "linear":
        return {f"{family}.rope.scaling.type": "linear", f"{family}.rope.scaling.factor": scaling.factor}
    if family != "llama":
        what = f"RoPE scaling {scaling.kind!r} of a {family} has no place in GGUF"
        raise RiyazError(what, hint="export it with --format hf")
    return {FREQUENCIES: list(divisors(scaling, head_dim, theta))}


def from_gguf(metadata: Mapping[str, Any], family: str, values: dict[str, Any], problems: list[str]) -> Scaling | None:
    """The scaling of GGUF metadata, of the tensor of divisors, or of neither; `values` hold head_dim and rope_theta."""
    kind = metadata.get(f"{family}.rope.scaling.type", "linear")
    factor = metadata.get(f"{family}.rope.scaling.factor", metadata.get(f"{family}.rope.scale_linear", 1.0))
    if kind not in ("none", "linear"):
        problems.append(f"RoPE scaling ({family}.rope.scaling.type {kind!r:.60}) is not supported yet")
        return None
    if not _is_positive(factor) or factor < 1:
        problems.append(f"RoPE scaling ({family}.rope.scaling.factor) has an impossible factor {factor!r:.60}")
        return None
    linear = Scaling("linear", shortest(float(factor))) if kind == "linear" and factor != 1 else None
    if FREQUENCIES not in metadata:
        return linear
    scaling = None if linear else _llama3(metadata[FREQUENCIES], values["head_dim"], values["rope_theta"])
    if scaling is None:
        problems.append(f"RoPE scaling ({FREQUENCIES}) is not that of Llama 3, no other is supported yet")
    return scaling


def _llama3(found: Any, head_dim: Any, theta: Any) -> Scaling | None:
    """The scaling that gives these divisors. GGUF does not say where they come from; in all published models waves are
    left alone from 4 turns on and divided in full up to 1, of an original context that is a power of two."""
    if type(head_dim) is not int or len(found) * 2 != head_dim or not _is_positive(theta):
        return None
    factor = max(found)
    nearest = float(round(factor))
    for exponent in range(4, 24):
        for value in (nearest, shortest(factor)):
            scaling = Scaling("llama3", value, original_context=2**exponent)
            if value >= 1 and np.allclose(divisors(scaling, head_dim, float(theta)), found, SAME, 0):
                return scaling
    return None


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e15
