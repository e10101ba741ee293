"""The BitNet family in plain torch: like `models.llama` it takes a flat stream of tokens and an `attend` function.

Differences to a llama: the attention's result and the gated units are normalised before their output linear (subln),
and the gate is ReLU². `layers.swaps.ternary` makes the linears ternary; this module does not know it.

Legend: T tokens, C hidden size, F feed-forward size, H query heads, K key/value heads, D head size, V vocabulary.
Sources: BitNet b1.58 2B4T (Ma et al. 2025, arXiv 2504.12285), subln (Wang et al. 2022, arXiv 2210.06423),
ReLU² (So et al. 2021, arXiv 2109.08668).
"""

from collections.abc import Callable

from torch import Tensor, nn

from riyaz.families.bitnet import BitNetConfig
from riyaz.layers.dropout import Dropout
from riyaz.layers.functions import relu2, rotate, swiglu
from riyaz.layers.transformer import RMSNorm, Trunk, output_head, rotary

# attend(layer, q (T,H,D), k (T,K,D), v (T,K,D)) -> (T,H,D); q and k are already rotated by position
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
GATES = {"relu2": relu2, "silu": swiglu}


class Attention(nn.Module):
    """Grouped-query attention: project, rotate by position, `attend`, normalise, project back."""

    def __init__(self, config: BitNetConfig, layer: int) -> None:
        super().__init__()
        C, D = config.hidden_size, config.head_dim
        self.layer, self.head_dim = layer, D
        self.q_proj = nn.Linear(C, config.n_heads * D, bias=False)
        self.k_proj = nn.Linear(C, config.n_kv_heads * D, bias=False)
        self.v_proj = nn.Linear(C, config.n_kv_heads * D, bias=False)
        self.attn_sub_norm = RMSNorm(config.n_heads * D, config.rms_norm_eps)
        self.o_proj = nn.Linear(config.n_heads * D, C, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), each token attending to those that `attend` allows."""
        T, D = x.shape[0], self.head_dim
        q, k = self.q_proj(x).view(T, -1, D), self.k_proj(x).view(T, -1, D)  # (T, H, D), (T, K, D)
        q, k = rotate(q, k, cos, sin)
        v = self.v_proj(x).view(T, -1, D)  # (T, K, D)
        return self.o_proj(self.attn_sub_norm(attend(self.layer, q, k, v).reshape(T, -1)))


class MLP(nn.Module):
    """Gated feed-forward: down(norm(product(gate(x), up(x))))."""

    def __init__(self, config: BitNetConfig) -> None:
        super().__init__()
        C, F = config.hidden_size, config.intermediate_size
        self.product = GATES[config.activation]
        self.gate_proj = nn.Linear(C, F, bias=False)
        self.up_proj = nn.Linear(C, F, bias=False)
        self.ffn_sub_norm = RMSNorm(F, config.rms_norm_eps)
        self.down_proj = nn.Linear(F, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (T, C) -> (T, C) through F gated units."""
        return self.down_proj(self.ffn_sub_norm(self.product(self.gate_proj(x), self.up_proj(x))))


class Block(nn.Module):
    """One layer: attention, then feed-forward, each on a normalised copy and added back."""

    def __init__(self, config: BitNetConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.dropout = Dropout()  # set by `train.set_dropout`; drops parts of each half's output

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), the next layer's input."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), cos, sin, attend))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class Model(nn.Module):
    """A BitNet; the state dict has the names of the Hugging Face checkpoint."""

    def __init__(self, config: BitNetConfig) -> None:
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
