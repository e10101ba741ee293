"""The interface of a model that turns texts into vectors for retrieval."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

Progress = Callable[[int, int], None]  # (done, total)


class Embedder(Protocol):
    """Turns texts into vectors of unit length; `name` and `sha256` identify its weights."""

    name: str
    sha256: str
    dim: int
    window: int  # most tokens of a text that are read, without special tokens

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Character ranges of the text's tokens, without special tokens."""
        ...

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(n, dim) float32, rows of unit length; tokens of a text beyond the window are ignored."""
        ...
