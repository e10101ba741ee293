"""BM25 over texts in memory (Robertson & Zaragoza 2009; the `bm25s` package, Lù 2024, arXiv 2407.03618)."""

import re
import unicodedata
from collections.abc import Callable, Sequence

import bm25s
import numpy as np

# a run of word characters; a character of a script without spaces is a word
_WORD = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+")

BEGINNING = 5  # letters of a word that are a term of their own


class BM25:
    """An index over texts, rebuilt from them in well under a second for ten thousand."""

    def __init__(self, texts: Sequence[str], terms: "Callable[[str], list[str]] | None" = None) -> None:
        self._index = bm25s.BM25()
        self._size = len(texts)
        self._terms = terms or words
        if texts:
            self._index.index([self._terms(text) or [""] for text in texts], show_progress=False)

    def top(self, query: str, k: int) -> list[int]:
        """Indices of the k nearest texts, nearest first; equal scores in the order of the texts."""
        return np.argsort(-self.scores(query), kind="stable")[:k].tolist()

    def scores(self, query: str) -> np.ndarray:
        """The score of every text (n,), 0 where no word is shared."""
        found = self._terms(query)
        if not found or not self._size:
            return np.zeros(self._size, np.float32)
        return self._index.get_scores(found)


def words(text: str) -> list[str]:
    """The words of a text, NFKC and case folded."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def words_and_beginnings(text: str) -> list[str]:
    """The words, and of each longer one its first letters as well: `refund` finds `refunds` and `refunding`, in
    every language that inflects at the end (McNamee and Mayfield 2004 on truncation)."""
    found = words(text)
    return [*found, *(f"{word[:BEGINNING]}-" for word in found if len(word) > BEGINNING)]
