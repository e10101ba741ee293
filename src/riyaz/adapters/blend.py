"""Weighted sums of the LoRAs of one base, exact or reduced to a rank.

A sum of products is one product of stacked factors, Σ fᵢ·BᵢAᵢ = [f₁B₁ … fₙBₙ] · [A₁; …; Aₙ], where fᵢ is a weight
times a scale. The truncated SVD is the nearest matrix of a smaller rank in the Frobenius norm (Eckart and Young 1936).
It comes from QR decompositions of both factors and the SVD of a matrix of their rank; none of a layer's size is formed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from riyaz.adapters.adapter import Pair


@dataclass(frozen=True)
class RankError:
    """What a sum lost when its rank was reduced: the Frobenius norm of the difference over that of the sum."""

    overall: float = 0.0  # of all layers together
    worst: float = 0.0  # of the layer with the largest
    layer: str = ""  # the module path of that layer; "" where none lost anything


def weighted_sum(adapters: Sequence[Mapping[str, Pair]], weights: Sequence[float]) -> dict[str, Pair]:
    """The exact sum of adapters (module path -> pair), each times its weight. To a layer that an adapter lacks it adds
    zero; one with the weight 0 adds no rank either."""
    terms = {
        path: [(weight, pairs[path]) for pairs, weight in zip(adapters, weights) if weight and path in pairs]
        for path in dict.fromkeys(path for pairs in adapters for path in pairs)
    }
    return {path: _stacked(layer) for path, layer in terms.items() if layer}


def reduced(pairs: Mapping[str, Pair], rank: int) -> tuple[dict[str, Pair], RankError]:
    """The nearest pairs of at most this rank, and how far they are from the given ones; a pair of a rank that is no
    larger stays as it is."""
    kept, norms, losses = dict[str, Pair](), dict[str, float](), dict[str, float]()
    for path, pair in pairs.items():
        kept[path], norms[path], losses[path] = _truncated(pair, rank)
    errors = {path: losses[path] / norms[path] if norms[path] else 0.0 for path in pairs}
    worst = max(errors, key=errors.__getitem__)
    whole = math.hypot(*norms.values())
    overall = math.hypot(*losses.values()) / whole if whole else 0.0
    return kept, RankError(overall, errors[worst], worst if errors[worst] else "")


def _stacked(terms: Sequence[tuple[float, Pair]]) -> Pair:
    """The pair whose product is the sum of these, each times its weight. Its scale is the largest factor, so that B is
    rounded only where the factors differ in size."""
    factors = [weight * pair.scale for weight, pair in terms]
    scale = max(map(abs, factors)) or 1.0
    a = np.concatenate([pair.a for _, pair in terms])
    parts = [
        np.multiply(pair.b, factor / scale, dtype=np.float64).astype(np.float32)
        for factor, (_, pair) in zip(factors, terms)
    ]
    return Pair(a, np.concatenate(parts, axis=1), scale)


def _truncated(pair: Pair, rank: int) -> tuple[Pair, float, float]:
    """(the nearest pair of at most this rank, the Frobenius norm of the product, that of what is left out)."""
    left, left_rest = np.linalg.qr(pair.b.astype(np.float64))  # (out, k), (k, r)
    right, right_rest = np.linalg.qr(pair.a.T.astype(np.float64))  # (in, l), (l, r)
    u, sizes, v = np.linalg.svd(left_rest @ right_rest.T, full_matrices=False)
    scale = abs(pair.scale)
    norm, lost = scale * float(np.linalg.norm(sizes)), scale * float(np.linalg.norm(sizes[rank:]))
    if pair.rank <= rank:
        return pair, norm, 0.0
    root = np.sqrt(sizes[:rank])  # half of each singular value goes to either factor
    a, b = (right @ v[:rank].T * root).T, left @ u[:, :rank] * root
    return Pair(np.ascontiguousarray(a, np.float32), b.astype(np.float32), pair.scale), norm, lost
