"""The BERT family in plain torch: one encoder over a flat stream of tokens, without its pooler.

As in `models.llama`, the model has no batches and no padding: it takes T tokens in a row, their positions, and an
`attend` function that computes the attention between them (`rows`: within each text, in both directions).

Legend: T tokens, C hidden size, H heads, D head size, F feed-forward size.
Sources: BERT (Devlin et al. 2018, arXiv 1810.04805), GELU (Hendrycks & Gimpel 2016, arXiv 1606.08415).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riyaz.families.bert import BertConfig
from riyaz.layers.dropout import Dropout

# attend(q, k, v), each (T, H, D) -> (T, H, D)
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
WIDTH = 16  # tokens


def rows(lengths: Sequence[int]) -> Attend:
    """Attention over texts of these lengths laid end to end: every token attends to all tokens of its own text.

    Texts whose lengths are equal when rounded up to a multiple of WIDTH are computed together, padded for that alone.
    """
    groups, order = _groups(np.array(lengths))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = []
        for places, hidden, kept in groups:
            n = len(hidden)
            qr, kr, vr = (x.index_select(0, places).unflatten(0, (n, -1)).transpose(1, 2) for x in (q, k, v))
            # (n, H, width, D) each
            scores = hidden.to(q.dtype).add(qr @ kr.transpose(2, 3), alpha=q.shape[-1] ** -0.5)
            parts.append((scores.softmax(-1) @ vr).transpose(1, 2).flatten(0, 1).index_select(0, kept))
        return torch.cat(parts).index_select(0, order)

    return attend


def _groups(lengths: np.ndarray) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor]:
    """Of texts (n,) laid end to end, the groups that are computed together, and the order (T,) in which their tokens
    are the stream again. A group of n texts has the places of their tokens (n * width,), any for padding; what is
    added to the scores of its keys (n, 1, 1, width), -inf for padding; and the tokens (·,) that are no padding."""
    starts, rounded = lengths.cumsum() - lengths, -(-lengths // WIDTH) * WIDTH
    groups, streamed = [], []
    for width in np.unique(rounded):
        here, at = np.flatnonzero(rounded == width), np.arange(width)
        real = at < lengths[here, None]  # (n, width)
        places = np.where(real, starts[here, None] + at, 0)
        hidden = np.where(real, 0.0, -np.inf)[:, None, None]
        groups.append((
            torch.from_numpy(places.reshape(-1)), torch.from_numpy(hidden).float(),
            torch.from_numpy(np.flatnonzero(real)),
        ))  # fmt: skip
        streamed.append(places[real])
    return groups, torch.from_numpy(np.concatenate(streamed).argsort())


class Embeddings(nn.Module):
    """The sum of the token's, the position's and the type's embedding (always type 0, the first text), normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C = config.hidden_size
        # not initialised, since weights are loaded
        self.word_embeddings = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, C))
        self.position_embeddings = nn.Embedding.from_pretrained(torch.empty(config.context, C))
        self.token_type_embeddings = nn.Embedding.from_pretrained(torch.empty(config.n_types, C))
        self.LayerNorm = nn.LayerNorm(C, config.layer_norm_eps)
        self.dropout = Dropout()  # as in `Output`

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens (T,) at positions (T,) -> x (T, C)."""
        x = self.word_embeddings(tokens) + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(x + self.token_type_embeddings.weight[0]))


class SelfAttention(nn.Module):
    """Project to queries, keys and values and call `attend`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C = config.hidden_size
        self.head_dim = config.head_dim
        self.query, self.key, self.value = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), before the output projection."""
        q, k, v = (part(x).unflatten(1, (-1, self.head_dim)) for part in (self.query, self.key, self.value))
        return attend(q, k, v).flatten(1)


class Output(nn.Module):
    """The end of both halves of a layer: project back to C, add the half's input, normalise."""

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout()  # set by `train.set_dropout`; drops parts of each half's output

    def forward(self, inner: Tensor, x: Tensor) -> Tensor:
        """inner (T, width) and the half's input x (T, C) -> (T, C)."""
        return self.LayerNorm(self.dropout(self.dense(inner)) + x)


class Attention(nn.Module):
    """The first half of a layer: self-attention and its output projection."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Output(config, config.hidden_size)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C)."""
        return self.output(self.self(x, attend), x)


class Intermediate(nn.Module):
    """The projection to F features and the exact GELU."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        """x (T, C) -> (T, F)."""
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Attention, then feed-forward, each followed by its residual sum and a norm (post-norm)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), the next layer's input."""
        x = self.attention(x, attend)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """The layers, with the names of the checkpoints."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.n_layers))


class Model(nn.Module):
    """A BERT; the state dict has the names of the Hugging Face checkpoint."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Hidden states (T, C) of tokens (T,) at positions (T,)."""
        x = self.embeddings(tokens, positions)
        for layer in self.encoder.layer:
            x = layer(x, attend)
        return x
