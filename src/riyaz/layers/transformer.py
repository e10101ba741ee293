"""Parts of decoder models that several families share: norm, gated feed-forward, trunk, head and rotary angles.

Parameters have the names of the Hugging Face checkpoints. Attention and the order of the parts are in each family's
module in `riyaz.models`.

Legend: T tokens, C hidden size, D head size, F feed-forward size, V vocabulary.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from riyaz.families.rope import Scaling, divisors
from riyaz.layers.fast.together import together
from riyaz.layers.functions import cos_sin, rms_norm


class RMSNorm(nn.Module):
    """Root mean square norm (Zhang & Sennrich 2019): x / rms(x) * weight, over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (T, C) normalised and scaled."""
        return rms_norm(x, self.weight, self.eps)


class GatedMLP(nn.Module):
    """Gated feed-forward (Shazeer 2020): down(product(gate(x), up(x))), with SwiGLU or GeGLU as the product."""

    def __init__(self, C: int, F: int, product: Callable[[Tensor, Tensor], Tensor], bias: bool = False) -> None:
        super().__init__()
        self.product = product
        self.gate_proj = nn.Linear(C, F, bias=bias)
        self.up_proj = nn.Linear(C, F, bias=bias)
        self.down_proj = nn.Linear(F, C, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (T, C) -> (T, C) through F gated units."""
        return self.down_proj(self.product(*together(x, self.gate_proj, self.up_proj, columns=True)))


class Trunk(nn.Module):
    """Embedding of V tokens, blocks and final norm, named as in the checkpoints (`model.`)."""

    def __init__(self, V: int, C: int, blocks: Iterable[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        # not initialised, since weights are loaded; a random normal on the meta device costs a second of imports
        self.embed_tokens = nn.Embedding.from_pretrained(torch.empty(V, C), freeze=False)
        self.layers = nn.ModuleList(blocks)
        self.norm = norm


def output_head(embedding: nn.Embedding, tied: bool) -> nn.Linear:
    """The linear from hidden states (N, C) to logits (N, V); a tied one shares the embedding's weight."""
    head = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False)
    if tied:
        head.weight = embedding.weight
    return head


def rotary(
    positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype, scaling: Scaling | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 1, D) of RoPE for `functions.rotate`; angles in float32, since bf16 cannot tell far
    positions apart."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequency = theta**-exponent  # (D/2,)
    if scaling is not None:
        frequency = frequency / torch.tensor(divisors(scaling, head_dim, theta))
    angle = positions.float()[:, None] * frequency  # (T, D/2)
    return cos_sin(angle, dtype)
