"""BM25 over texts in memory (Robertson & Zaragoza 2009; the `bm25s` package, Lù 2024, arXiv 2407.03618)."""

import re
import unicodedata
from collections.abc import Callable, Sequence

import bm25s
import numpy as np

# a run of word characters; each kana or Chinese character is a word
_WORD = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+")

PREFIX = 5  # letters; a longer word's prefix is a term too


class BM25:
    """An index over texts in memory; building it takes well under a second for ten thousand texts."""

    def __init__(self, texts: Sequence[str], terms: "Callable[[str], list[str]] | None" = None) -> None:
        self._index = bm25s.BM25()
        self._size = len(texts)
        self._terms = terms or words
        if texts:
            self._index.index([self._terms(text) or [""] for text in texts], show_progress=False)

    def top(self, query: str, k: int) -> list[int]:
        """Indices of the k best texts, best first; equal scores in the order of the texts."""
        return np.argsort(-self.scores(query), kind="stable")[:k].tolist()

    def scores(self, query: str) -> np.ndarray:
        """The score of every text, (n,) float32; 0 for a text that shares no term with the query."""
        terms = self._terms(query)
        if not terms or not self._size:
            return np.zeros(self._size, np.float32)
        return self._index.get_scores(terms)


def words(text: str) -> list[str]:
    """The words of a text, NFKC-normalised and case folded."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def words_and_prefixes(text: str) -> list[str]:
    """The words, and the first PREFIX letters of each longer one: `refund` finds `refunds` and `refunding`. This suits
    every language that inflects at the end of words (truncation: McNamee and Mayfield 2004)."""
    terms = words(text)
    return [*terms, *(f"{word[:PREFIX]}-" for word in terms if len(word) > PREFIX)]
