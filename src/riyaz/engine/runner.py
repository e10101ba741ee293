"""The interface of a Runner: it keeps sequences of tokens, runs the model over new tokens, and loads adapters.

`engine/torch/` implements it in torch; engine, scheduler, sampling and search work over any Runner.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from riyaz import hardware
from riyaz.adapters import Adapter
from riyaz.errors import RiyazError
from riyaz.families import Family

TRACED = 1024  # most tokens of a traced run, soft prompt included: those of one pass, `PASS` in native/engine/head.cpp
CACHE_SHARE = 0.5  # of the memory that is free beside the weights: keys and values may take so much
UNKNOWN = 4 * 2**30  # bytes that are taken to be free where the system does not say


class CacheFull(RiyazError):
    """Keys and values would take more than the runner's limit."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(what, where, "shorten the prompt or the answer, or close other programs and start again")


@dataclass(frozen=True)
class Best:
    """The likeliest token after the run: int."""


@dataclass(frozen=True)
class Top:
    """The `count` likeliest tokens after the run, likeliest first, ties by the lower token: (tokens (K,),
    log-probabilities (K,) float32), where K is `count` or the vocabulary size, the smaller.

    The logits of the tokens `seen` are first divided by `penalty` where positive and multiplied by it elsewhere."""

    count: int
    seen: tuple[int, ...] = ()  # each once
    penalty: float = 1.0


@dataclass(frozen=True, eq=False)
class Named:
    """Log-probabilities (R,) float32: of `tokens[i]` after the run's token number `rows[i]`; both (R,)."""

    rows: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True, eq=False)
class Whole:
    """Log-probabilities (R, V) float32 of the whole vocabulary after the run's tokens number `rows` (R,)."""

    rows: np.ndarray


@dataclass(frozen=True)
class Every:
    """Log-probabilities (V,) float32 of all tokens after the run, in the tokens' order; `seen` and `penalty` as of
    `Top`."""

    seen: tuple[int, ...] = ()
    penalty: float = 1.0


@dataclass(frozen=True)
class Hidden:
    """The hidden state after the run's last token, behind the final norm: (C,) float32, what the head multiplies."""


@dataclass(frozen=True)
class Each:
    """What is wanted after each of the run's tokens, all computed as in runs of a single token: an iterator over these
    results, bit by bit those of one run after the other."""

    wants: tuple[Best | Top | Every, ...]


@dataclass(frozen=True)
class Lens:
    """Log-probabilities (L + 1, V) float32 of all tokens after the run's token number `row`, if the model ended after
    0, 1, … L layers: the residual stream there through the final norm and the head (the logit lens, nostalgebraist
    2020). Only of a traced run."""

    row: int

    @property
    def last(self) -> Whole:
        """What is wanted after all layers."""
        return Whole(np.array([self.row]))


@dataclass(frozen=True, eq=False)
class NamedLens:
    """As `Lens`, of one token after each of some: log-probabilities (L + 1, R) float32 of `tokens[i]` after the run's
    token number `rows[i]`; both (R,), the rows rising. Only of a traced run."""

    rows: np.ndarray
    tokens: np.ndarray

    @property
    def last(self) -> Named:
        """What is wanted after all layers."""
        return Named(self.rows, self.tokens)


@dataclass(frozen=True)
class HiddenLens:
    """The hidden states (L + 1, C) float32 after the run's last token, behind the final norm, if the model ended after
    0, 1, … L layers. Only of a traced run."""

    @property
    def last(self) -> Hidden:
        """What is wanted after all layers."""
        return Hidden()


LayerWant = Lens | NamedLens | HiddenLens
Want = Best | Top | Named | Whole | Every | Hidden | Each | LayerWant


@dataclass(frozen=True, eq=False)
class Trace:
    """What a pass over T tokens computed inside; a soft prompt's vectors count as tokens and come first."""

    residual: np.ndarray  # (2 L + 1, T, C): before the first layer, then behind attention and behind the MLP of each
    queries: np.ndarray  # (L, T, H, D), rotated and scaled
    keys: np.ndarray  # (L, T, K, D), rotated


@dataclass(frozen=True, eq=False)
class TokenRun:
    """Tokens to append to a sequence, and the wanted result; None only appends them.

    `keep` False: no tokens are appended later, so that keys and values need not be kept. `together`: a few tokens too
    are computed as those of a long run, since the pass has many such runs."""

    sequence: int
    tokens: Sequence[int]
    want: Want | None = None
    keep: bool = True
    together: bool = False


class Runner(Protocol):
    """A model with its loaded adapters and open sequences."""

    @property
    def family(self) -> Family[Any] | None:
        """That of the files that it was loaded from, if it is known."""

    context: int  # most tokens of a sequence, a soft prompt's vectors included
    vocab_size: int
    width: int  # numbers of a hidden state
    cache_limit: int  # most bytes of keys and values of all open sequences
    forks_ahead: bool  # a sequence may be forked, also `behind`, before any of its tokens is appended
    # the tokens of a draft take less time in one pass than one by one, and a result does not depend on their number
    drafts_pay: bool
    page: (
        int  # a sequence after a multiple of so many tokens of another computes as one that has read them; 0: none does
    )

    def bytes_of(self, tokens: int) -> int:
        """Most bytes of keys and values that a sequence takes for so many tokens of its own, those of its prefix not
        counted."""

    def load(self, name: str, adapter: Adapter) -> None:
        """Load an adapter under this name. Raises RiyazError when it does not fit the model."""

    def prepared(self, name: str, adapter: Adapter) -> Callable[[], None]:
        """The same in two parts: this one packs the weights, also in another thread while the model runs; what it
        returns then loads them at once, between two passes. Raises RiyazError when it does not fit the model."""

    def unload(self, name: str) -> None:
        """Unload an adapter; no open sequence may use it."""

    def adapter_tokens(self, adapter: str | None) -> int:
        """Number of positions that the adapter's soft prompt takes at the start of a sequence, 0 without one. Raises
        RiyazError for a name that is not loaded."""

    def open(self, adapter: str | None = None, prefix: int | None = None, room: int = 0) -> int:
        """A new sequence. It begins with all tokens of the sequence `prefix`, which is shared and gets no more tokens,
        or without one with the adapter's soft prompt. `room` is the number of tokens to append after the first run."""

    def fork(self, sequence: int, length: int) -> int:
        """A new sequence that shares the first `length` tokens of another, the soft prompt's positions included. The
        last of them may be appended by an earlier run of the same `forward` in which the new sequence is first run."""

    def behind(self, sequence: int, length: int) -> int:
        """As `fork`, but what is appended computes as after a prefix: it does not depend on other sequences behind the
        same tokens."""

    def close(self, sequence: int) -> None:
        """Close a sequence; tokens shared with other sequences are kept."""

    def length(self, sequence: int) -> int:
        """Number of tokens in the sequence, the soft prompt's positions included."""

    def truncate(self, sequence: int, length: int) -> None:
        """Keep the first `length` tokens of a sequence, the soft prompt's positions included; no other sequence has the
        later ones."""

    def forward(self, runs: Sequence[TokenRun]) -> list[Any]:
        """Run the model over all runs in one pass, of any lengths, adapters and prefixes; returns each run's wanted
        result, None where none is wanted. A sequence may be in one run only. Raises CacheFull, and changes nothing,
        where keys and values would exceed the limit; RiyazError where the model computes no number."""

    def traced(self, run: TokenRun) -> tuple[Any, Trace]:
        """As `forward` of one run of at most TRACED tokens, a soft prompt before them included, with the same result to
        the last bit, and what was computed inside."""


def cache_limit(weights: float = 0.0) -> int:
    """Most bytes of keys and values: a share of the memory that is free beside so many bytes of weights still to be
    loaded."""
    return max(0, int(((hardware.memory().available or UNKNOWN) - weights) * CACHE_SHARE))


def expect_loadable(name: str, loaded: Collection[str], problems: Sequence[str]) -> None:
    """Raises RiyazError for an adapter whose name is taken, or that does not fit the model."""
    if name in loaded:
        raise RiyazError(f"an adapter named {name!r} is loaded already", hint="unload it first")
    if problems:
        raise RiyazError(f"adapter {name!r} does not fit the model: {'; '.join(problems)}")
