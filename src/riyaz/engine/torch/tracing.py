"""What a torch model computes inside one pass: the residual stream, queries and keys, as the C++ engine's trace has
them. Hooks on the model's own modules read it, so no family's file knows about tracing.

Legend: T tokens, L layers, C hidden size, H query heads, K key/value heads, D head size.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from riyaz.engine.runner import HiddenLens, LayerWant, Lens, Trace

BEFORE_MLP = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2")  # the norm before it: first of them
TRUNKS = ("model", "transformer")
LAYERS, FINAL_NORM = ("layers", "h"), ("norm", "ln_f")


class Tracing:
    """Reads a pass of a model from `with` to its end; of one token `only`, counted from the last, -1, for `states`."""

    def __init__(self, model: Any, only: int | None = None) -> None:
        self._only = only
        trunk = _first(model, TRUNKS)
        self._layers = list(_first(trunk, LAYERS))
        self._final_norm, self._head = _first(trunk, FINAL_NORM), model.head
        self.residual: list[Tensor] = []  # (T, C) each, or (C,) of one token
        self._queries: list[Tensor] = []
        self._keys: list[Tensor] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> "Tracing":
        """Listen to the inputs of the layers, of the norm before each MLP and of the final norm."""
        heard = [module for layer in self._layers for module in (layer, _first(layer, BEFORE_MLP))]
        for module in (*heard, self._final_norm):
            self._hooks.append(module.register_forward_pre_hook(self._hear))
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        for hook in self._hooks:
            hook.remove()

    def turned(self, q: Tensor, k: Tensor) -> None:
        """Queries (T, H, D) and keys (T, K, D) of the next layer, as attention takes them, before it divides by √D."""
        self._queries.append(q / q.shape[-1] ** 0.5)
        self._keys.append(k.clone())

    def behind_layers(self, want: LayerWant, count: int, last: np.ndarray) -> np.ndarray:
        """What a lens wants of a run of `count` tokens behind 0, 1, … L layers; `last` is that behind all of them. The
        head and the final norm must be routed for L rows."""
        if isinstance(want, HiddenLens):
            states = self._final_norm(self._before_layers(-1)).float().numpy()  # (L, C)
            return np.concatenate([states, last[None]])
        if isinstance(want, Lens):
            return np.concatenate([self._log_p(want.row - count), last])
        pairs = zip(want.rows.tolist(), want.tokens.tolist())
        named = [self._log_p(row - count)[:, token] for row, token in pairs]
        return np.concatenate([np.stack(named, 1), last[None]])

    def states(self) -> Tensor:
        """The hidden states (L + 1, C) of the one token behind 0, 1, … L layers and the final norm."""
        return self._final_norm(torch.stack(self.residual[::2]))

    def _before_layers(self, row: int) -> Tensor:
        """The residual stream (L, C) of one token before each layer; `row` counts from the last token, -1."""
        return torch.stack([stream[row] for stream in self.residual[:-1:2]])

    def _log_p(self, row: int) -> np.ndarray:
        """Log-probabilities (L, V) of the next token after a row, if the model ended before each layer."""
        logits: Tensor = self._head(self._final_norm(self._before_layers(row))).float()
        return logits.log_softmax(1).numpy()

    @property
    def trace(self) -> Trace:
        """All of it as numpy arrays."""
        return Trace(*map(_array, (self.residual, self._queries, self._keys)))

    def _hear(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        stream = inputs[0]
        self.residual.append((stream if self._only is None else stream[self._only]).clone())


def _first(module: Any, names: tuple[str, ...]) -> Any:
    """The first attribute of these names that there is."""
    return next(getattr(module, name) for name in names if hasattr(module, name))


def _array(tensors: list[Tensor]) -> np.ndarray:
    return torch.stack(tensors).float().numpy()
