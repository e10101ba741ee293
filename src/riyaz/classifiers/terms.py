"""Texts as weighted terms: words and pairs of words, or pieces of words; a row of length one for each text (TF-IDF).

Texts are read in any script: words are runs of letters and digits, each kana or Chinese character a word, and pieces
reach over whole runs without a space, so languages that write none have terms too.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from scipy import sparse

from riyaz.retrieval.lexical import words

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


def counted_terms(kind: TermKind, text: str) -> Counter[str]:
    """How often each term stands in the first READ characters of a text."""
    return Counter(TERMS[kind](text[:READ]))


def vocabulary(counts: Iterable[Counter[str]], most: int) -> tuple[dict[str, int], np.ndarray]:
    """The places of at most `most` terms, those in most texts first, and their inverse document frequencies (terms,)
    float32, smoothed as if one more text held every term."""
    texts, holding = 0, Counter[str]()
    for each in counts:
        texts += 1
        holding.update(each.keys())
    kept = sorted(holding, key=lambda term: (-holding[term], term))[:most]
    frequencies = np.array([holding[term] for term in kept], np.float64)
    return {term: i for i, term in enumerate(kept)}, (1 + np.log((1 + texts) / (1 + frequencies))).astype(np.float32)


def term_rows(counts: Sequence[Counter[str]], places: dict[str, int], idf: np.ndarray) -> sparse.csr_array:
    """Rows (n, terms) float32 of length one, (1 + log count)·idf before; 0 for a text without a known term."""
    columns, values, ends = [], [], [0]
    for each in counts:
        known = [(places[term], count) for term, count in each.items() if term in places]
        columns += [place for place, _ in known]
        values += [count for _, count in known]
        ends.append(len(columns))
    where = np.array(columns, np.int32)
    weights = (1 + np.log(np.array(values, np.float32))) * idf[where]
    rows = sparse.csr_array((weights, where, np.array(ends)), shape=(len(counts), len(idf)))
    lengths = np.sqrt(np.maximum(rows.multiply(rows).sum(axis=1), 1e-12)).astype(np.float32)
    return sparse.csr_array(sparse.diags_array(1 / lengths) @ rows)
