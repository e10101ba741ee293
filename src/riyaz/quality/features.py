"""Prompts as vectors whose inner products say how alike they are: by words, pieces of words and, if pulled, meaning."""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from scipy import sparse

from riyaz.classifiers.terms import TERMS, known_terms, term_rows, vocabulary
from riyaz.data import Example

TERM_WEIGHT = 0.5  # of the inner product of each kind of terms beside that of the sentence vectors
MOST_TERMS = 100_000  # of a kind
SHARED = 0.9  # share of the rows from which a line that they have says nothing about one of them
# Characters that are read of all prompts together, which bounds time and memory, and of each prompt at least.
ALL_CHARACTERS, LEAST_CHARACTERS = 1_000_000, 200
LANDMARKS = 1_000  # rows whose similarities to all others span the vectors
RANK = 300  # most dimensions of a vector
SMALLEST = 1e-6  # share of the largest eigenvalue below which a dimension is noise


def own_texts(rows: Sequence[Example]) -> list[str]:
    """What each row says: its turns but the system's, without the lines that more than SHARED of the rows have and the
    words that all begin with, such as an instruction; the whole text of a row that has nothing else."""
    lines = [[line.strip() for turn in row.turns for line in turn.splitlines()] for row in rows]
    counts = Counter(line for each in lines for line in set(each))
    shared = {line for line, count in counts.items() if count > SHARED * len(rows)}
    texts = ["\n".join([line for line in each if line not in shared] or each) for each in lines]
    words = [text.split(" ") for text in texts]
    first = sum(1 for _ in takewhile(lambda each: len({*each}) == 1, zip(*words)))
    return [" ".join(each[first:]) or text for each, text in zip(words, texts)]


def beginnings(texts: Sequence[str]) -> tuple[list[str], int]:
    """The texts as far as they are read, and the number of characters to which the longer ones are cut."""
    most = max(LEAST_CHARACTERS, ALL_CHARACTERS // max(1, len(texts)))
    return [text[:most] for text in texts], most


def term_blocks(texts: Sequence[str]) -> dict[str, sparse.csr_array]:
    """Rows (n, terms) of length one for each kind of terms."""
    blocks = {}
    for kind in TERMS:
        terms, idf = vocabulary(kind, texts, known_terms(kind, texts), MOST_TERMS)
        blocks[kind] = term_rows(kind, texts, {term: place for place, term in enumerate(terms)}, idf)
    return blocks


def prompt_vectors(blocks: dict[str, sparse.csr_array], meanings: np.ndarray | None) -> np.ndarray:
    """(n, at most RANK) float64: the Nyström approximation of the prompts' inner products, exact up to LANDMARKS rows
    but for the smallest dimensions. `meanings` are sentence vectors (n, d) or None."""
    n = next(iter(blocks.values())).shape[0]
    landmarks = np.unique(np.linspace(0, n - 1, min(n, LANDMARKS)).astype(int))
    products = np.zeros((n, len(landmarks)))
    for block in blocks.values():
        products += TERM_WEIGHT * (block @ block[landmarks].T).toarray()
    if meanings is not None:
        products += meanings @ meanings[landmarks].T
    values, bases = np.linalg.eigh(products[landmarks])
    kept = np.flatnonzero(values > SMALLEST * values[-1])[-RANK:]
    vectors: np.ndarray = products @ (bases[:, kept] / np.sqrt(values[kept]))
    return vectors
