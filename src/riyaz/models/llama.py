"""The llama family in plain torch: one transformer over a flat stream of tokens.

The model has no batches, no padding, no caches and no adapters. It takes T tokens in a row and an `attend` function
that computes the attention between them: training passes `layers.attention.packed`, the engine attends to its cache.

Legend: T tokens, C hidden size, H query heads, K key/value heads, D head size, V vocabulary.
Sources: Llama (Touvron et al. 2023, arXiv 2302.13971), RoPE (Su et al. 2021, arXiv 2104.09864),
grouped queries (Ainslie et al. 2023, arXiv 2305.13245).
"""

from collections.abc import Callable

from torch import Tensor, nn

from riyaz.families.llama import LlamaConfig
from riyaz.layers.dropout import Dropout
from riyaz.layers.fast.together import together
from riyaz.layers.functions import rotate, swiglu
from riyaz.layers.transformer import GatedMLP, RMSNorm, Trunk, output_head, rotary

# attend(layer, q (T,H,D), k (T,K,D), v (T,K,D)) -> (T,H,D); q and k are already rotated by position
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Grouped-query attention: project, rotate by position, `attend`, project back."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        C, D, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.layer, self.head_dim = layer, D
        self.q_proj = nn.Linear(C, config.n_heads * D, bias=bias)
        self.k_proj = nn.Linear(C, config.n_kv_heads * D, bias=bias)
        self.v_proj = nn.Linear(C, config.n_kv_heads * D, bias=bias)
        self.o_proj = nn.Linear(config.n_heads * D, C, bias=bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), each token attending to those that `attend` allows."""
        T, D = x.shape[0], self.head_dim
        q, k, v = together(x, self.q_proj, self.k_proj, self.v_proj)  # (T, H * D), (T, K * D) twice
        q, k = rotate(q.view(T, -1, D), k.view(T, -1, D), cos, sin)  # (T, H, D), (T, K, D)
        v = v.view(T, -1, D)  # (T, K, D)
        return self.o_proj(attend(self.layer, q, k, v).reshape(T, -1))


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on a normalised copy and added back."""

    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, swiglu, bias=config.mlp_bias)
        self.dropout = Dropout()  # set by `train.set_dropout`; drops parts of each half's output

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), the next layer's input."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin, attend))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Model(nn.Module):
    """A llama; the state dict has the names of the Hugging Face checkpoint."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        blocks = (Block(config, layer) for layer in range(config.n_layers))
        norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.model = Trunk(config.vocab_size, config.hidden_size, blocks, norm)
        self.lm_head = output_head(self.model.embed_tokens, config.tie_word_embeddings)

    def forward(
        self, tokens: Tensor | None, positions: Tensor, attend: Attend, *, embeddings: Tensor | None = None
    ) -> Tensor:
        """Hidden states (T, C) of tokens (T,) or embeddings (T, C) at positions (T,)."""
        x = self.embed(tokens) if embeddings is None else embeddings
        config = self.config
        cos, sin = rotary(positions, config.head_dim, config.rope_theta, x.dtype, config.rope_scaling)
        for block in self.model.layers:
            x = block(x, cos, sin, attend)
        return self.model.norm(x)

    def embed(self, tokens: Tensor | None) -> Tensor:
        """The embeddings (T, C) of tokens (T,), as `forward` takes them."""
        return self.model.embed_tokens(tokens)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of hidden states (N, C)."""
        return self.lm_head(hidden)
