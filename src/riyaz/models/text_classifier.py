"""An encoder with one vector for each label, trained together: a text's logits are the products of its vector with
those of the labels.

The vector is that of `engine.embedder`: the mean of the text's hidden states, of length one. As the language models it
takes a flat stream of tokens, so `train.train` trains it, on rows whose answer is a label's number behind the
vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riyaz.layers.attention import PackedAttention
from riyaz.layers.dropout import laid_out
from riyaz.models import bert


class TextClassifier(nn.Module):
    """The encoder and the labels' vectors (L, C), which begin as `prototypes`; cosines are divided by `temperature`.
    Each question has as many labels as `sizes` says; without it there is one."""

    def __init__(self, encoder: bert.Model, prototypes: Tensor, temperature: float, sizes: Sequence[int] = ()) -> None:
        super().__init__()
        self.sizes = tuple(sizes) or (len(prototypes),)
        self.config, self.temperature = encoder.config, temperature
        self.encoder = encoder
        self.label_head = nn.Linear(prototypes.shape[1], len(prototypes), bias=False)
        self.label_head.weight = nn.Parameter(prototypes.clone())

    def forward(self, tokens: Tensor, positions: Tensor, attend: PackedAttention) -> Tensor:
        """(T, C): at every token the vector of its text; 0 at those of a prefix.

        Of `attend` only the rows' lengths are read, and the prefix that all of them begin with: every token attends to
        its whole text.
        """
        own = torch.tensor(attend.lengths)
        if attend.prefix:
            places = _with_prefix(attend.lengths, attend.prefix)
            tokens, positions = tokens[places], positions[places]
        vectors = self.vectors(tokens, positions, own + attend.prefix)
        return F.pad(vectors.repeat_interleave(own, 0), (0, 0, attend.prefix, 0))

    def scaled(self, vectors: Tensor) -> Tensor:
        """Vectors (n, C) as those of the labels multiply them: logits are cosines / temperature."""
        return vectors / self.temperature

    def vectors(self, tokens: Tensor, positions: Tensor, lengths: Tensor) -> Tensor:
        """The unit vectors (n, C) of n texts laid end to end."""
        with laid_out(lengths.tolist()):
            hidden = self.encoder(tokens, positions, bert.rows(lengths.tolist()))  # (T, C)
        texts = torch.arange(len(lengths)).repeat_interleave(lengths)
        sums = torch.zeros(len(lengths), hidden.shape[1]).index_add(0, texts, hidden.float())
        return F.normalize(sums, dim=1).to(hidden.dtype)  # the mean has the same direction


def _with_prefix(lengths: tuple[int, ...], prefix: int) -> Tensor:
    """The places of the stream in which the first `prefix` tokens stand before every row."""
    ends = prefix + np.cumsum(lengths)
    return torch.from_numpy(np.concatenate([
        np.r_[:prefix, end - length : end] for length, end in zip(lengths, ends)
    ]))  # fmt: skip
