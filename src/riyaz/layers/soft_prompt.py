"""Prompt tuning (Lester et al. 2021, arXiv 2104.08691): trained vectors before every row, the model as it was.

The vectors stand once before all rows of a pass, so that their keys and values are computed once. `riyaz.adapters`
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
    """A frozen model behind P trainable vectors; it is asked as the model is, and has P places less."""

    def __init__(self, base: Any, prompt: Tensor) -> None:
        super().__init__()
        self.base = base
        self.prompt = nn.Parameter(prompt)  # (P, C)
        self.config = replace(base.config, context=base.config.context - len(prompt))

    @property
    def lm_head(self) -> nn.Module:
        """The base's."""
        return self.base.lm_head

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of hidden states (N, C)."""
        return self.base.head(hidden)

    def forward(self, tokens: Tensor, positions: Tensor, attend: PackedAttention) -> Tensor:
        """Hidden states (T, C) of rows of tokens (T,) that all stand behind the prompt."""
        P = len(self.prompt)
        rows = self.base.embed(tokens)
        stream = torch.cat((self.prompt.to(rows.dtype), rows))  # (P + T, C)
        places = torch.cat((torch.arange(P), positions + P))
        return self.base(None, places, attend.behind(P), embeddings=stream)[P:]


def apply(model: Any, tokens: Sequence[int]) -> SoftPrompt:
    """The model behind a prompt that begins as the embeddings of these tokens, so that step 0 is a text's."""
    assert 0 < len(tokens) < model.config.context
    return SoftPrompt(model, model.embed(torch.tensor(tokens)).detach().float().clone())


def attach(model: Any, vectors: np.ndarray) -> SoftPrompt:
    """The model behind the soft prompt (P, C) of an Adapter, which does not learn any more."""
    return SoftPrompt(model, torch.from_numpy(np.array(vectors, np.float32))).requires_grad_(False)
