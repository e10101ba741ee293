"""The GPT-2 family in plain torch: one transformer over a flat stream of tokens, with learned positions.

As in `models.llama`, the model has no batches, no padding, no caches and no adapters: it takes T tokens in a row and
an `attend` function that computes the attention between them. Linears are (out, in) here and (in, out) in checkpoints.

Legend: T tokens, C hidden size, H heads, D head size, F feed-forward size, V vocabulary.
Sources: GPT-2 (Radford et al. 2019), GELU (Hendrycks & Gimpel 2016, arXiv 1606.08415) with its tanh
approximation.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from riyaz.errors import RiyazError
from riyaz.families.gpt2 import GPT2Config
from riyaz.layers.dropout import Dropout

# attend(layer, q, k, v), each (T, H, D) -> (T, H, D)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Multi-head attention: queries, keys and values from one projection, `attend`, the output projection."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        C = config.hidden_size
        self.layer, self.head_dim = layer, config.head_dim
        self.c_attn = nn.Linear(C, 3 * C)
        self.c_proj = nn.Linear(C, C)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), each token attending to those that `attend` allows."""
        T, C = x.shape
        q, k, v = (part.reshape(T, -1, self.head_dim) for part in self.c_attn(x).split(C, dim=1))  # (T, H, D)
        return self.c_proj(attend(self.layer, q, k, v).reshape(T, C))


class MLP(nn.Module):
    """Feed-forward: proj(gelu(fc(x)))."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.intermediate_size)
        self.c_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x (T, C) -> (T, C) through F units."""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on a normalised copy and added back."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)
        self.dropout = Dropout()  # set by `train.set_dropout`; drops parts of each half's output

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), the next layer's input."""
        x = x + self.dropout(self.attn(self.ln_1(x), attend))
        return x + self.dropout(self.mlp(self.ln_2(x)))


class Trunk(nn.Module):
    """Embeddings, layers and final norm, named as in the checkpoints (`transformer.`)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        C = config.hidden_size
        # not initialised, since weights are loaded
        self.wte = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, C), freeze=False)
        self.wpe = nn.Embedding.from_pretrained(torch.empty(config.context, C), freeze=False)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.ln_f = nn.LayerNorm(C, config.layer_norm_eps)


class Model(nn.Module):
    """A GPT-2; the state dict has the names of the Hugging Face checkpoint."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.weight

    def forward(
        self, tokens: Tensor | None, positions: Tensor, attend: Attend, *, embeddings: Tensor | None = None
    ) -> Tensor:
        """Hidden states (T, C) of tokens (T,) or embeddings (T, C) at positions (T,). Raises RiyazError for a position
        beyond the model's context."""
        if int(positions.max()) >= self.config.context:
            what = f"a row of {int(positions.max()) + 1} tokens is longer than the {self.config.context} positions"
            raise RiyazError(f"{what} that this model has learned", "gpt2", "give less text, or a newer model")
        x = self.embed(tokens) if embeddings is None else embeddings
        x = x + self.transformer.wpe(positions)
        for block in self.transformer.h:
            x = block(x, attend)
        return self.transformer.ln_f(x)

    def embed(self, tokens: Tensor | None) -> Tensor:
        """The embeddings (T, C) of tokens (T,), without positions, as `forward` takes them."""
        return self.transformer.wte(tokens)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of hidden states (N, C)."""
        return self.lm_head(hidden)
