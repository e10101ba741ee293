"""An embedder that several classifiers of the same texts share, so that each text is read once."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from riyaz.retrieval.embedder import Embedder

Progress = Callable[[int, int], None]  # (done, total)


class SharedEmbedder:
    """Another embedder, with the same vectors; it keeps the vectors of the last texts that it was asked for."""

    def __init__(self, embedder: "Embedder") -> None:
        self._embedder = embedder
        self.name, self.sha256, self.dim, self.window = embedder.name, embedder.sha256, embedder.dim, embedder.window
        self._last: tuple[tuple[str, ...], np.ndarray] | None = None

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Character ranges of the text's tokens, without special tokens."""
        return self._embedder.token_offsets(text)

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(n, dim) float32, rows of unit length, which must not be changed."""
        last = self._last
        if last is None or last[0] != tuple(texts):
            last = self._last = tuple(texts), self._embedder.embed(texts, progress)
        return last[1]
