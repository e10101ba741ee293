"""Words as numbers: the vectors of tokens in the embedding, and the tokens nearest to them."""

from collections.abc import Sequence

import numpy as np

from riyaz.engine.sampling import likeliest
from riyaz.families import Family, ModelConfig
from riyaz.sources.tensor_files import float32

PIECE = 2**21  # numbers of the embedding in memory at a time
Near = tuple[tuple[int, float], ...]  # (token, cosine), nearest first


def embedding_of(family: Family[ModelConfig]) -> str:
    """The name of the token embedding."""
    return next(iter(family.stored_names))


def nearest(family: Family[ModelConfig], ids: Sequence[int], count: int) -> dict[int, Near]:
    """The `count` other tokens whose vectors have the largest cosine with that of each token. The embedding is read in
    pieces."""
    wanted = list(dict.fromkeys(ids))
    name = embedding_of(family)
    own = _unit(family.rows(name, wanted))  # (N, C)
    cosines = []
    for _, kind, values in family.pieces(name, PIECE):
        cosines.append(own @ _unit(float32(kind, values)).T)  # (N, rows of the piece)
    near = {}
    for token, row in zip(wanted, np.concatenate(cosines, 1)):
        row[token] = -np.inf
        tokens, values = likeliest(row, count)
        near[token] = tuple(zip(tokens.tolist(), values.tolist()))
    return near


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, C) divided by their lengths; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-30), np.float32)
