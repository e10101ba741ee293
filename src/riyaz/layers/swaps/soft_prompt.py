"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): trained vectors before every row of a frozen model.

The vectors are a prefix that all rows of a pass share, so their keys and values are computed once. `riyaz.adapters`
reads and writes them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from riyaz.layers.attention import PackedAttention


class SoftPrompt(nn.Module):
    """A frozen model with P trainable vectors before every row. It is called like the model, and its context is P
    tokens shorter."""

    def __init__(self, base: Any, prompt: Tensor) -> None:
        super().__init__()
        self.base = base
        self.prompt = nn.Parameter(prompt)  # (P, C)
        self.config = replace(base.config, context=base.config.context - len(prompt))

    @property
    def lm_head(self) -> nn.Module:
        """The base's head."""
        return self.base.lm_head

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of hidden states (N, C)."""
        return self.base.head(hidden)

    def forward(self, tokens: Tensor, positions: Tensor, attend: PackedAttention) -> Tensor:
        """Hidden states (T, C) of rows of tokens (T,), each of which also attends to the prompt."""
        P = len(self.prompt)
        rows = self.base.embed(tokens)
        stream = torch.cat((self.prompt.to(rows.dtype), rows))  # (P + T, C)
        places = torch.cat((torch.arange(P), positions + P))
        return self.base(None, places, attend.behind(P), embeddings=stream)[P:]


def apply(model: Any, tokens: Sequence[int]) -> SoftPrompt:
    """The model with a trainable prompt that starts as the embeddings of `tokens`: before training it answers as if
    they stood before every row."""
    assert 0 < len(tokens) < model.config.context
    return SoftPrompt(model, model.embed(torch.tensor(tokens)).detach().float().clone())


def attach(model: Any, vectors: np.ndarray) -> SoftPrompt:
    """The model with the soft prompt (P, C) of an Adapter before every row, frozen."""
    return SoftPrompt(model, torch.from_numpy(np.array(vectors, np.float32))).requires_grad_(False)
