"""The one thing an engine has twice: a Runner holds sequences of tokens and runs a model over what is added to them.

`engine/torch/` implements it in torch. What is above it (engine, scheduler, sampling, search) is written once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from riyaz.adapters import Adapter


@dataclass(frozen=True)
class Best:
    """The likeliest token after the run: int."""


@dataclass(frozen=True)
class Top:
    """The `count` likeliest tokens after the run, likeliest first, of equals the lower token: (tokens (K,), their
    log-probabilities (K,) float32), where K is at most the vocabulary."""

    count: int


@dataclass(frozen=True, eq=False)
class Named:
    """Log-probabilities (R,) float32 of `tokens` (R,), each after the run's token at the same place of `rows` (R,)."""

    rows: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True, eq=False)
class Whole:
    """Log-probabilities (R, V) float32 of the whole vocabulary after the run's tokens at `rows` (R,)."""

    rows: np.ndarray


Want = Best | Top | Named | Whole


@dataclass(frozen=True, eq=False)
class Run:
    """Tokens to add to a sequence, and what is wanted of them: nothing where they only have to be read.

    Without `keep` no more tokens are added later, so that keys and values need not stay."""

    sequence: int
    tokens: Sequence[int]
    want: Want | None = None
    keep: bool = True


class Runner(Protocol):
    """A model with its adapters and the sequences it has read."""

    context: int  # most tokens of a sequence, an adapter's vectors included
    vocab_size: int

    def load(self, name: str, adapter: Adapter) -> None:
        """Make an adapter ready under this name. Raises RiyazError when it does not fit the model."""

    def unload(self, name: str) -> None:
        """Forget an adapter; no open sequence may use it."""

    def adapter_tokens(self, adapter: str | None) -> int:
        """Places that the adapter's soft prompt takes at the beginning of a sequence; 0 without one. Raises RiyazError
        for a name that is not loaded."""

    def open(self, adapter: str | None = None, prefix: int | None = None, room: int = 0) -> int:
        """A new sequence that begins with everything in the sequence `prefix`, which is shared and gets no more tokens;
        `room` tells how many tokens will be added. A sequence without a prefix begins with its adapter's soft
        prompt."""

    def fork(self, sequence: int, length: int) -> int:
        """A new sequence that begins with the first `length` tokens of another, the soft prompt's places included,
        without a copy. The last of them may come in an earlier run of the `forward` in which it is run first."""

    def close(self, sequence: int) -> None:
        """Give up a sequence; what others share stays."""

    def length(self, sequence: int) -> int:
        """Tokens in the sequence, the places of a soft prompt included."""

    def forward(self, runs: Sequence[Run]) -> list[Any]:
        """Read all runs in one pass, of whatever lengths, adapters and prefixes; what each wants, None for nothing.
        One sequence stands in at most one run."""
