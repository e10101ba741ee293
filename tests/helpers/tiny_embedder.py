"""A tiny embedder for tests: hashed bags of words, so that texts that share words are near."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

SYNONYMS = {"automobile": "car", "pet": "dog"}  # what words alone cannot find


class BagEmbedder:
    """An Embedder of 64 dimensions; `synonyms` are the same word to it."""

    window = 254

    def __init__(self, name: str = "bag", dim: int = 64) -> None:
        self.name, self.dim, self.sha256 = name, dim, hashlib.sha256(name.encode()).hexdigest()
        self.embedded: list[str] = []

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]

    def embed(self, texts: Sequence[str], progress=None) -> np.ndarray:
        self.embedded += texts
        found = np.full((len(texts), self.dim), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                digest = hashlib.sha256(SYNONYMS.get(word, word).encode()).digest()
                found[row, digest[0] % self.dim] += 1
            if progress:
                progress(row + 1, len(texts))
        return found / np.linalg.norm(found, axis=1, keepdims=True)
