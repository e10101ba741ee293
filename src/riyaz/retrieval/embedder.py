"""What retrieval asks of a model that turns texts into vectors."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

Progress = Callable[[int, int], None]  # (done, total)


class Embedder(Protocol):
    """A text to a vector of unit length; `name` and `sha256` say which weights made it."""

    name: str
    sha256: str
    dim: int
    window: int  # tokens of a text that are read, special tokens not counted

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Character ranges of the text's tokens, special tokens not counted."""
        ...

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(n, dim) float32, each row of unit length; texts beyond the model's window are cut there."""
        ...
