"""BM25 over texts in memory (Robertson & Zaragoza 2009; the `bm25s` package, Lù 2024, arXiv 2407.03618)."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

# a run of word characters; each kana or Chinese character is a word
WORD = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+")

PREFIX = 5  # letters; a longer word's prefix is a term too


class BM25:
    """An index over texts in memory; building it takes well under a second for ten thousand texts."""

    def __init__(self, texts: Sequence[str], terms: "Callable[[str], list[str]] | None" = None) -> None:
        import bm25s  # it imports scipy, a fifth of the start of a command that needs neither

        self._index = bm25s.BM25()
        self._size = len(texts)
        self._terms = terms or words
        self._holding: Counter[str] = Counter()  # term -> texts that hold it
        if texts:
            terms_of = [self._terms(text) or [""] for text in texts]
            self._holding = Counter(term for each in terms_of for term in set(each))
            self._index.index(terms_of, show_progress=False)

    def top(self, query: str, k: int) -> list[int]:
        """Indices of the k best texts, best first; equal scores in the order of the texts."""
        return np.argsort(-self.scores(query), kind="stable")[:k].tolist()

    def scores(self, query: str) -> np.ndarray:
        """The score of every text, (n,) float32; 0 for a text that shares no term with the query."""
        terms = self._terms(query)
        if not terms or not self._size:
            return np.zeros(self._size, np.float32)
        return self._index.get_scores(terms)

    def highest(self, query: str) -> float:
        """The limit of the score that a text could have; above 0 for a query with terms."""
        return sum(self._weight(term) for term in self._terms(query))

    def _weight(self, term: str) -> float:
        """The inverse document frequency of a term in bm25s, the limit of its score for ever more occurrences."""
        holding = self._holding[term]
        return math.log(1 + (self._size - holding + 0.5) / (holding + 0.5))


def words(text: str) -> list[str]:
    """The words of a text, NFKC-normalised and case folded."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def words_and_prefixes(text: str) -> list[str]:
    """The words, and the first PREFIX letters of each longer one: `refund` finds `refunds` and `refunding`. This suits
    every language that inflects at the end of words (truncation: McNamee and Mayfield 2004)."""
    terms = words(text)
    return [*terms, *(f"{word[:PREFIX]}-" for word in terms if len(word) > PREFIX)]
