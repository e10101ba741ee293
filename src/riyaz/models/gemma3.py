"""Gemma 3's text model in plain torch: like `models.llama` it takes a flat stream of tokens and an `attend` function.

Differences to a llama: most layers attend to a window of the last tokens only and have their own RoPE base, queries and
keys are normalised, norms scale by 1 + w and come before and after each part, the gate is a GELU, and embeddings are
scaled by √C.

Legend: T tokens, C hidden size, H query heads, K key/value heads, D head size, V vocabulary.
Sources: Gemma 3 (Gemma Team 2025, arXiv 2503.19786), Gemma 2 (2024, arXiv 2408.00118) for its two norms and caps.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from riyaz.families.gemma3 import Gemma3Config
from riyaz.layers.fast.together import together
from riyaz.layers.functions import geglu, rms_norm, rotate
from riyaz.layers.transformer import GatedMLP, Trunk, output_head, rotary

# attend(layer, q (T,H,D), k (T,K,D), v (T,K,D), window or None) -> (T,H,D); q and k are already rotated by position
Attend = Callable[[int, Tensor, Tensor, Tensor, int | None], Tensor]
Turn = tuple[Tensor, Tensor]  # cosines and sines (T, 1, D)


class RMSNorm(nn.Module):
    """Root mean square norm: x / rms(x) * (1 + weight), over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C) normalised and scaled; 1 + weight is float32, since bf16 would round off the weight's last bits."""
        return rms_norm(x, 1 + self.weight.float(), self.eps)


class Attention(nn.Module):
    """Grouped-query attention: project, normalise, rotate by position, `attend`, project back."""

    def __init__(self, config: Gemma3Config, layer: int) -> None:
        super().__init__()
        C, D = config.hidden_size, config.head_dim
        self.layer, self.head_dim = layer, D
        self.window = config.window if config.local[layer] else None
        self.scale = math.sqrt(D / config.query_scale)  # `attend` divides by √D
        self.q_proj = nn.Linear(C, config.n_heads * D, bias=False)
        self.k_proj = nn.Linear(C, config.n_kv_heads * D, bias=False)
        self.v_proj = nn.Linear(C, config.n_kv_heads * D, bias=False)
        self.o_proj = nn.Linear(config.n_heads * D, C, bias=False)
        self.q_norm = RMSNorm(D, config.rms_norm_eps)
        self.k_norm = RMSNorm(D, config.rms_norm_eps)

    def forward(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), each token attending to those that `attend` allows."""
        T, D = x.shape[0], self.head_dim
        q, k, v = together(x, self.q_proj, self.k_proj, self.v_proj)  # (T, H * D), (T, K * D) twice
        q = self.q_norm(q.view(-1, D)).view(T, -1, D)  # (T, H, D)
        k = self.k_norm(k.view(-1, D)).view(T, -1, D)  # (T, K, D)
        v = v.view(T, -1, D)  # (T, K, D)
        q, k = rotate(q, k, *turn)
        if self.scale != 1:
            q = q * self.scale
        return self.o_proj(attend(self.layer, q, k, v, self.window).reshape(T, -1))


class Block(nn.Module):
    """One layer: attention, then feed-forward, each between two norms and added back."""

    def __init__(self, config: Gemma3Config, layer: int) -> None:
        super().__init__()
        C, eps = config.hidden_size, config.rms_norm_eps
        self.local = config.local[layer]
        self.input_layernorm = RMSNorm(C, eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(C, eps)
        self.pre_feedforward_layernorm = RMSNorm(C, eps)
        self.mlp = GatedMLP(C, config.intermediate_size, geglu)
        self.post_feedforward_layernorm = RMSNorm(C, eps)

    def forward(self, x: Tensor, turn: Turn, attend: Attend) -> Tensor:
        """x (T, C) -> (T, C), the next layer's input."""
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), turn, attend))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Model(nn.Module):
    """A Gemma 3; the state dict has the names of the Hugging Face checkpoint."""

    def __init__(self, config: Gemma3Config) -> None:
        super().__init__()
        self.config = config
        blocks = (Block(config, layer) for layer in range(config.n_layers))
        norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.model = Trunk(config.vocab_size, config.hidden_size, blocks, norm)
        self.lm_head = output_head(self.model.embed_tokens, config.tie_word_embeddings)

    def forward(
        self, tokens: Tensor | None, positions: Tensor, attend: Attend, *, embeddings: Tensor | None = None
    ) -> Tensor:
        """Hidden states (T, C) of tokens (T,) or scaled embeddings (T, C) at positions (T,)."""
        x = self.embed(tokens) if embeddings is None else embeddings
        config = self.config
        near = rotary(positions.float(), config.head_dim, config.rope_local, x.dtype)
        far = rotary(positions / config.rope_factor, config.head_dim, config.rope_theta, x.dtype)
        for block in self.model.layers:
            x = block(x, near if block.local else far, attend)
        return self.model.norm(x)

    def embed(self, tokens: Tensor | None) -> Tensor:
        """The scaled embeddings (T, C) of tokens (T,), as `forward` takes them."""
        x = self.model.embed_tokens(tokens)
        return x * torch.tensor(math.sqrt(self.config.hidden_size)).to(x.dtype)  # √C is rounded to x's type too

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (N, V) of hidden states (N, C)."""
        logits, cap = self.lm_head(hidden), self.config.logit_cap
        return logits if cap is None else cap * torch.tanh(logits.float() / cap)
