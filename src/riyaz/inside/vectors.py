"""Words as numbers: the vectors of tokens in the embedding, and the tokens nearest to them."""

from collections.abc import Sequence

import numpy as np

from riyaz.engine.parts import Steps, finished
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
    return finished(approaching(family, ids, count))


def approaching(family: Family[ModelConfig], ids: Sequence[int], count: int) -> Steps[dict[int, Near]]:
    """`nearest` in parts, one for each piece of the embedding."""
    wanted = list(dict.fromkeys(ids))
    name = embedding_of(family)
    own = _unit(family.rows(name, wanted))  # (N, C)
    near: dict[int, Near] = dict.fromkeys(wanted, ())
    first = 0  # row of the embedding with which the piece begins
    for _, kind, values in family.pieces(name, PIECE):
        cosines = own @ _unit(float32(kind, values)).T  # (N, rows of the piece)
        for token, row in zip(wanted, cosines):
            if first <= token < first + len(row):
                row[token - first] = -np.inf
            places, nearer = likeliest(row, count)
            joined = [*near[token], *zip((first + places).tolist(), nearer.tolist())]
            near[token] = tuple(sorted(joined, key=lambda each: -each[1])[:count])  # equal ones: the lower token
        first += cosines.shape[1]
        yield
    return near


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, C) divided by their lengths; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-30), np.float32)
