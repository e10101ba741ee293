"""What tokens look at: attention weights from the queries and keys of a pass, and heads that are named after a pattern
that was measured.

A head's name says where its largest weight is, in what share of the positions, and nothing about meaning:

- *previous token*, *first token*: its largest weight is there in at least half of the positions from the third on;
- *copies*: on random tokens that come twice, at least .3 of its weight is, on average, on the token that followed the
  same token the first time (Olsson et al. 2022, arXiv 2209.11895, "In-context Learning and Induction Heads").

Legend: T tokens, L layers, H query heads, K key/value heads, D head size.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from riyaz.engine.parts import Steps, finished
from riyaz.engine.runner import Trace

HALF, COPIED = 0.5, 0.3  # shares from which on a head is named
REPEATED, SEED = 24, 0  # random tokens, which come twice
FIRST_COUNTED = 2  # the position from which on the previous token is another than the first


@dataclass(frozen=True)
class Pattern:
    """One head: in which shares of the positions its largest weight is on the previous token, on the first, on the
    token itself; and its mean weight, on repeated tokens, on what followed the same token before."""

    layer: int
    head: int
    previous: float
    first: float
    itself: float
    copied: float

    @property
    def name(self) -> str:
        """What it does by the rule; "" where no rule holds."""
        if self.copied >= COPIED:
            return "copies"
        return "previous token" if self.previous >= HALF else "first token" if self.first >= HALF else ""


def weights(trace: Trace, layer: int, window: int = 0) -> np.ndarray:
    """Attention weights of one layer (H, T, T): row t is what token t looks at, and adds up to 1. `window`: how many
    tokens a token sees, itself included; 0: all before it."""
    seen = scores(trace, layer, _unseen(len(trace.keys[layer]), window))
    seen -= seen.max(2, keepdims=True)
    np.exp(seen, out=seen)
    seen /= seen.sum(2, keepdims=True)
    return seen


def scores(trace: Trace, layer: int, unseen: np.ndarray) -> np.ndarray:
    """Queries times keys of one layer (H, T, T), plus `unseen` (T, T): the logarithms of `weights`, but for a number
    that is the same in a row."""
    q, k = trace.queries[layer], trace.keys[layer]  # (T, H, D), (T, K, D)
    of_head = np.repeat(k.transpose(1, 2, 0), q.shape[1] // k.shape[1], 0)  # (H, D, T)
    with _blas().limit(limits=1):  # threads of products so small wait for each other, for long beside other work
        products = q.transpose(1, 0, 2) @ of_head
    products += unseen
    return np.asarray(products)


@cache
def _blas() -> ThreadpoolController:
    """The libraries of linear algebra that are loaded, looked for once."""
    return ThreadpoolController().select(user_api="blas")


def _unseen(T: int, window: int) -> np.ndarray:
    """Minus infinity (T, T) where a token does not see another, else 0."""
    behind = np.arange(T)[:, None] - np.arange(T)  # tokens between
    hidden = (behind < 0) | ((behind >= window) if window else False)
    return np.where(hidden, np.float32(-np.inf), np.float32(0))


def last_weights(trace: Trace, layer: int, window: int = 0) -> np.ndarray:
    """Attention weights of the last token alone (H, T), as the last row of `weights`."""
    q, k = trace.queries[layer, -1], trace.keys[layer]  # (H, D), (T, K, D)
    T, H = len(k), len(q)
    seen = np.einsum("hd,thd->ht", q, np.repeat(k, H // k.shape[1], 1))
    seen[:, : max(0, T - window) if window else 0] = -np.inf
    seen = np.exp(seen - seen.max(1, keepdims=True))
    return np.asarray(seen / seen.sum(1, keepdims=True))


def repeated(vocabulary: int) -> list[int]:
    """Random tokens, twice: what tells heads that copy."""
    drawn = np.random.default_rng(SEED).choice(vocabulary, min(REPEATED, vocabulary), replace=False)
    return [*drawn.tolist(), *drawn.tolist()]


def patterns(text: Trace, twice: Trace, windows: list[int]) -> list[Pattern]:
    """The pattern of every head, layer by layer, from the traces of a text of at least three tokens and of the
    `repeated` ones; a soft prompt before them counts as tokens of the text."""
    return finished(naming(text, twice, windows))


def naming(text: Trace, twice: Trace, windows: list[int]) -> Steps[list[Pattern]]:
    """`patterns` in parts, one for each layer."""
    named = []
    length = text.queries.shape[1]
    places = np.arange(FIRST_COUNTED, length)
    unseen = {window: _unseen(length, window) for window in set(windows)}
    for layer, window in enumerate(windows):
        largest = scores(text, layer, unseen[window])[:, FIRST_COUNTED:].argmax(2)  # (H, T - 2)
        on_twice = weights(twice, layer, window)
        half = REPEATED if on_twice.shape[1] >= 2 * REPEATED else on_twice.shape[1] // 2
        last = np.arange(on_twice.shape[1] - half, on_twice.shape[1])
        copied = on_twice[:, last, last - half + 1].mean(1)  # (H,)
        shares = [(largest == target).mean(1) for target in (places - 1, 0, places)]
        for head, numbers in enumerate(zip(*shares, copied)):
            named.append(Pattern(layer, head, *map(float, numbers)))
        yield
    return named
