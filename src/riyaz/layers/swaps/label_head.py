"""A head with one row for each label of a closed set, beside a model's own head: one pass scores all labels.

In rows of training label number i is the token V + i, behind the vocabulary of V tokens, so that a batch may hold rows
of labels and of text, each of which goes to its own head. A row of the head begins as the mean of those of the model's
own head for the tokens of the label's text, so that the untrained head knows what labels mean.

The labels may be those of several questions, one after the other: each has its probability among those of its question.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from riyaz.layers.swaps import frozen

AT_ONCE = 64  # labels whose rows are computed together where the head is in codes: 13 MB with 50,000 tokens


class LabelledModel(nn.Module):
    """A model with a trainable head of labels beside its own. It is called like the model.

    The head learns at `pace` times the rate of the run: AdamW moves each number by about the rate, so its weight is
    stored divided by `pace`, and `scaled` multiplies the hidden states instead.
    """

    def __init__(self, base: Any, rows: Tensor, pace: float, sizes: Sequence[int] = ()) -> None:
        super().__init__()
        self.base, self.config, self.pace = base, base.config, pace
        self.sizes = tuple(sizes) or (len(rows),)  # labels of each question
        self.label_head = nn.Linear(rows.shape[1], len(rows), bias=False, device="meta")
        self.label_head.weight = nn.Parameter(rows / pace)  # (L, C)

    @property
    def lm_head(self) -> nn.Module:
        """The model's own head."""
        return self.base.lm_head

    def forward(self, *inputs: Any) -> Tensor:
        """What the model gives."""
        return self.base(*inputs)

    def scaled(self, hidden: Tensor) -> Tensor:
        """Hidden states (N, C) as the head's weight multiplies them."""
        return hidden if self.pace == 1 else hidden * self.pace

    def rows(self) -> np.ndarray:
        """A copy of the head's rows (L, C) in float32, for hidden states as they are."""
        rows: np.ndarray = (self.label_head.weight.detach().float() * self.pace).numpy()
        return rows

    @torch.no_grad()
    def put(self, rows: Sequence[np.ndarray | None]) -> None:
        """Give each label a row (C,) for hidden states as they are; None: it keeps the one that it has."""
        for place, row in enumerate(rows):
            if row is not None:
                self.label_head.weight[place] = torch.from_numpy(row / self.pace)


def attach(model: Any, labels: Sequence[Sequence[int]], pace: float = 1.0, sizes: Sequence[int] = ()) -> LabelledModel:
    """The model with an untrained head of labels, which are given as the tokens of their texts, and of which each
    question has as many as `sizes` says; without it there is one."""
    rows = [_rows(model, labels[i : i + AT_ONCE]) for i in range(0, len(labels), AT_ONCE)]
    return LabelledModel(model, torch.cat(rows), pace, sizes)


def _rows(model: Any, labels: Sequence[Sequence[int]]) -> Tensor:
    """The mean of the head's rows of each label's tokens, (L, C) float32."""
    weights = torch.zeros(len(labels), model.config.vocab_size)
    for row, tokens in zip(weights, labels):
        row.index_add_(0, torch.tensor(tokens), torch.full((len(tokens),), 1 / len(tokens)))
    head = model.lm_head
    if isinstance(head, frozen.FrozenLinear):
        return frozen.input_gradient(head, weights).float()
    used = weights.any(0).nonzero().flatten()
    return weights[:, used] @ head.weight.detach()[used].float()
