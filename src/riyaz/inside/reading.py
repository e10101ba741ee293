"""One text through a model: `read` returns the residual stream, queries and keys of every token and the logit lens of
one, all from the pass that also gives the next token's probabilities.

Legend: T tokens, L layers, C hidden size, H query heads, K key/value heads, D head size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from riyaz.engine.runner import TRACED, TokenRun, Trace
from riyaz.engine.runner import Lens as LensWant
from riyaz.engine.sampling import likeliest
from riyaz.errors import RiyazError
from riyaz.families import FAMILIES, Family, ModelConfig
from riyaz.predictor import ModelPredictor, PromptedModel
from riyaz.predictor.prompt import expect_short

# most tokens, soft prompt included, whose trace takes 250 MB in a model of 135 million weights
LONGEST = TRACED
SOFT = "‹vector {}›"  # the name of a soft prompt's vector


@dataclass(frozen=True)
class Lens:
    """The logit lens of one layer: what would come next if the model ended there."""

    tokens: tuple[int, ...]  # the likeliest, likeliest first
    log_probabilities: tuple[float, ...]
    rank: int  # of the token that is likeliest after all layers; 1: it leads here too
    log_probability: float  # of that token


@dataclass(frozen=True, eq=False)
class Inside:
    """What one pass computed. Soft prompts' vectors count as tokens and come first, with id -1."""

    family: Family[ModelConfig]
    ids: tuple[int, ...]  # (T,)
    texts: tuple[str, ...]  # (T,)
    at: int  # the token whose layers, lens and next token these are
    trace: Trace
    log_p: np.ndarray  # (L + 1, V): after the token `at`, if the model ended after 0, 1, … L layers

    @property
    def layers(self) -> int:
        """L."""
        return len(self.log_p) - 1

    @property
    def soft(self) -> int:
        """Number of vectors of a soft prompt, which come before the tokens."""
        return self.ids.count(-1)

    @property
    def norms(self) -> np.ndarray:
        """The length of the token's residual stream before the first layer and behind each: (L + 1,)."""
        return np.linalg.norm(self._stream[::2], axis=1)

    @property
    def added(self) -> np.ndarray:
        """The length of what attention and the MLP of each layer added to the token's residual stream: (L, 2)."""
        return np.linalg.norm(self._parts[1:], axis=1).reshape(-1, 2)

    @property
    def shares(self) -> tuple[float, np.ndarray]:
        """How much of the final residual stream x is the embedding's, and each layer's attention's and MLP's (L, 2):
        <part, x> / <x, x>. The parts add up to x, so the shares add up to 1; a part that points against x is below 0.
        Of a stream that is 0 they are 0."""
        x = self._stream[-1]
        shares = self._parts @ x / ((x @ x) or 1.0)
        return float(shares[0]), shares[1:].reshape(-1, 2)

    @cached_property
    def lens(self) -> list[Lens]:
        """The logit lens before the first layer and behind each, with the five likeliest tokens: L + 1 of them."""
        best = int(self.log_p[-1].argmax())
        lenses = []
        for row in self.log_p:
            tokens, log_p = likeliest(row, 5)
            rank = int((row > row[best]).sum()) + 1
            lenses.append(Lens(tuple(tokens.tolist()), tuple(log_p.tolist()), rank, float(row[best])))
        return lenses

    @property
    def appears(self) -> int:
        """The number of layers after which the final likeliest token leads the lens and stays ahead."""
        behind = [number for number, lens in enumerate(self.lens) if lens.rank > 1]
        return behind[-1] + 1 if behind else 0

    @property
    def _stream(self) -> np.ndarray:
        """The residual stream of the token `at` (2 L + 1, C) in float64."""
        return self.trace.residual[:, self.at].astype(np.float64)

    @property
    def _parts(self) -> np.ndarray:
        """The embedding, and what each half of each layer added to it: (2 L + 1, C)."""
        return np.diff(self._stream, axis=0, prepend=0)


def read(model: PromptedModel, tokens: Sequence[int], at: int = -1, where: str = "TEXT") -> Inside:
    """One pass over the tokens (T,), as the model's engine makes it; `at` is the index of the token whose layers are
    looked at, from the end if below 0. Raises RiyazError for no tokens, too many, or an index outside them."""
    runner, family = model.lm.runner, model.lm.runner.family
    assert family is not None, "a model from files"
    vectors = runner.adapter_tokens(model.adapter)
    if not 0 < len(tokens) <= min(LONGEST, model.lm.context) - vectors:
        most = min(LONGEST, model.lm.context) - vectors
        raise RiyazError(f"the text has {len(tokens):,} tokens", where, f"give at least one and at most {most:,}")
    if not -len(tokens) <= at < len(tokens):
        raise RiyazError(f"there is no token {at}", "--at", f"choose one of 0 to {len(tokens) - 1}")
    own = at % len(tokens)
    sequence = runner.open(model.adapter)
    try:
        log_p, trace = runner.traced(TokenRun(sequence, tokens, LensWant(own)))
    finally:
        runner.close(sequence)
    names = [SOFT.format(number + 1) for number in range(vectors)]
    texts = tuple(names + [model.tokenizer.token_text(token) for token in tokens])
    return Inside(family, (-1,) * vectors + tuple(tokens), texts, own + vectors, trace, log_p)


def text_tokens(model: PromptedModel, text: str, where: str = "TEXT") -> list[int]:
    """The tokens of a text as it is, without a chat template. Raises RiyazError for a text that is far too long."""
    expect_short(text, where)
    tokens = model.tokenizer.encode(text)
    return [*model.tokenizer.beginning, *tokens] if tokens else []


def message_tokens(model: ModelPredictor, text: str, where: str = "TEXT") -> list[int]:
    """The tokens of the prompt that the model makes of a user's message. Raises RiyazError."""
    (prepared,) = model.prepare([[{"role": "user", "content": text}]], [where], room=1)
    return [*prepared.request.prefix, *prepared.request.tokens]


def windows(family: Family[ModelConfig]) -> list[int]:
    """How many tokens each layer's attention sees, the token itself included; 0: all before it."""
    settings = FAMILIES[family.model_type].native_settings(family.config)
    widths: list[int] = settings.get("windows") or [0] * family.config.n_layers
    return widths
