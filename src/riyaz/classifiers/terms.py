"""Texts as weighted terms: words and pairs of words, or pieces of words; a row of length one for each text (TF-IDF).

Texts are read in any script: words are runs of letters and digits, each kana or Chinese character a word, and pieces
reach over whole runs without a space, so languages that write none have terms too.
"""

from array import array
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from riyaz.retrieval.lexical import words

if TYPE_CHECKING:
    from scipy import sparse

TermKind = str  # a key of TERMS
SHORTEST, LONGEST = 2, 5  # characters of a piece
READ = 10_000  # characters of a text that are read


def word_terms(text: str) -> list[str]:
    """The words of a text and the pairs of neighbours."""
    singles = words(text)
    return [*singles, *(f"{one} {other}" for one, other in pairwise(singles))]


def piece_terms(text: str) -> list[str]:
    """Every piece of SHORTEST to LONGEST characters of the text's runs without a space, each run between two spaces."""
    runs = [f" {run} " for run in text.casefold().split()]
    return [run[i : i + n] for run in runs for n in range(SHORTEST, LONGEST + 1) for i in range(len(run) - n + 1)]


TERMS = {"words": word_terms, "pieces": piece_terms}


def known_terms(kind: TermKind, texts: Iterable[str]) -> set[str]:
    """All terms of the texts."""
    return {term for text in texts for term in counted_terms(kind, text)}


def vocabulary(kind: TermKind, texts: Sequence[str], known: Container[str], most: int) -> tuple[list[str], np.ndarray]:
    """At most `most` of the `known` terms, those in most texts first, and their inverse document frequencies (terms,)
    float32, smoothed as if one more text held every term."""
    holding = Counter(term for text in texts for term in counted_terms(kind, text) if term in known)
    kept = sorted(holding, key=lambda term: (-holding[term], term))[:most]
    frequencies = np.array([holding[term] for term in kept], np.float64)
    return kept, (1 + np.log((1 + len(texts)) / (1 + frequencies))).astype(np.float32)


class TermEntries(NamedTuple):
    """The terms of n texts: entries `ends[i]` to `ends[i + 1]` are those of text i."""

    values: np.ndarray  # (entries,) float32
    columns: np.ndarray  # (entries,) int32: the place of the term
    ends: np.ndarray  # (n + 1,)

    def times(self, weights: np.ndarray) -> np.ndarray:
        """The rows times weights (terms, L) float32: (n, L), each sum in the order of its entries, as scipy has it."""
        rows = [slice(*both) for both in pairwise(self.ends.tolist())]
        sums = [(self.values[row, None] * weights[self.columns[row]]).sum(0) for row in rows]
        return np.array(sums, np.float32).reshape(len(rows), weights.shape[1])


def term_entries(kind: TermKind, texts: Sequence[str], places: Mapping[str, int], idf: np.ndarray) -> TermEntries:
    """Rows of length one, (1 + log count)·idf before; none for a text without a known term. `places` are those of the
    terms in a row."""
    columns, counts, ends = array("i"), array("f"), [0]
    for text in texts:
        for term, count in counted_terms(kind, text).items():
            if term in places:
                columns.append(places[term])
                counts.append(count)
        ends.append(len(columns))
    where = np.array(columns, np.int32)
    values = (1 + np.log(np.array(counts, np.float32))) * idf[where]
    row = np.repeat(np.arange(len(texts)), np.diff(ends))
    squares = np.bincount(row, np.square(values, dtype=np.float64), len(texts))
    values /= np.sqrt(squares[row]).astype(np.float32)
    return TermEntries(values, where, np.array(ends))


def term_rows(kind: TermKind, texts: Sequence[str], places: Mapping[str, int], idf: np.ndarray) -> "sparse.csr_array":
    """`term_entries` as a matrix (n, terms) float32, to fit a classifier to."""
    from scipy import sparse  # not installed where classifiers only answer

    entries = term_entries(kind, texts, places, idf)
    return sparse.csr_array(tuple(entries), shape=(len(texts), len(idf)))


def counted_terms(kind: TermKind, text: str) -> Counter[str]:
    """How often each term stands in the first READ characters of a text."""
    return Counter(TERMS[kind](text[:READ]))
