"""Rows that repeat a prompt, exactly or nearly, by the terms of the prompts and by their meaning."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from riyaz.data import Example

NEAR_PIECES = 0.85  # least cosine of two prompts' pieces of words,
NEAR_MEANING = 0.9  # or of their sentence vectors, from which they are near-duplicates
CHUNK = 500  # rows compared with all others at once


def repeats(examples: Sequence[Example]) -> list[tuple[int, int]]:
    """(row, an earlier row with the same prompt) for every row after the first: the earlier one has another answer if
    any has, else the same one."""
    seen: dict[str, list[int]] = defaultdict(list)
    pairs = []
    for row, example in enumerate(examples):
        others = [other for other in seen[example.key] if examples[other].answer != example.answer]
        if seen[example.key]:
            pairs.append((row, (others or seen[example.key])[0]))
        seen[example.key].append(row)
    return pairs


def near_duplicates(
    pieces: sparse.csr_array, meanings: np.ndarray | None, labels: np.ndarray, keys: Sequence[str], units: Sequence[str]
) -> list[tuple[int, int, float]]:
    """(row, its nearest row, their larger cosine) of rows with nearly the same prompt and another label, the nearest
    first, each pair once. Equal prompts, which have equal keys, are left to `repeats`; rows of one unit, such as the
    turns of a conversation, belong together."""
    near: dict[tuple[int, int], float] = {}
    prompts, together = _numbers(keys), _numbers(units)
    for first in range(0, len(labels), CHUNK):
        rows = slice(first, first + CHUNK)
        by_pieces = (pieces[rows] @ pieces.T).toarray()
        by_meaning = np.zeros_like(by_pieces) if meanings is None else meanings[rows] @ meanings.T
        alike = (by_pieces >= NEAR_PIECES) | (by_meaning >= NEAR_MEANING)
        alike &= (labels[rows, None] != labels[None, :]) & (prompts[rows, None] != prompts[None, :])
        alike &= together[rows, None] != together[None, :]
        cosines = np.where(alike, np.maximum(by_pieces, by_meaning), -1)
        nearest = cosines.argmax(axis=1)
        for one in np.flatnonzero(alike.any(axis=1)):
            row, other = first + int(one), int(nearest[one])
            near[min(row, other), max(row, other)] = float(cosines[one, other])
    return sorted(((row, other, cosine) for (row, other), cosine in near.items()), key=lambda pair: -pair[2])


def _numbers(names: Sequence[str]) -> np.ndarray:
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names], int)
