"""Plain forms of the hand-written layers, with gradients by autograd: the tests compare the two."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_plain(lengths: Sequence[int], prefix: int = 0) -> Callable[..., Tensor]:
    """`attention.packed` by torch's own attention row by row, with the prefix repeated before each row."""

    def causal(q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        mask = None
        if window is not None:
            mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril().triu(1 - window)
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=True)
        return out[0].transpose(0, 1)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        (qp, *qs), (kp, *ks), (vp, *vs) = (x.split([prefix, *lengths]) for x in (q, k, v))
        rows = [causal(qp, kp, vp, window=window)] if prefix else []
        for row in zip(qs, ks, vs):
            before = zip((qp, kp, vp), row)
            rows.append(causal(*(torch.cat(pair) for pair in before), window=window)[prefix:])
        return torch.cat(rows)

    return attend


def rms_norm_plain(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight in float32, for x (…, C) and weight (C,)."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rotate_plain(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate the halves of each head: x (T, H, D), angle (T, D/2); Hugging Face's layout."""
    (low, high), cos, sin = x.chunk(2, dim=-1), angle.cos()[:, None], angle.sin()[:, None]
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def swiglu_plain(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def geglu_plain(gate: Tensor, up: Tensor) -> Tensor:
    """gelu(gate) * up, elementwise, with the tanh approximation of GELU."""
    return F.gelu(gate, approximate="tanh") * up


def head_loss_plain(hidden: Tensor, weight: Tensor, labels: Tensor, cap: float | None = None) -> Tensor:
    """`loss.head_loss` with all logits at once."""
    logits = (hidden @ weight.T).float()
    return F.cross_entropy(logits if cap is None else cap * torch.tanh(logits / cap), labels, reduction="sum")
