"""Causal attention over rows packed end to end: no padding, and no token sees another row."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def packed_plain(lengths: Sequence[int]) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
    """The slow twin of `packed`: torch's own attention row by row, gradient by autograd."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for qr, kr, vr in zip(q.split(lengths), k.split(lengths), v.split(lengths)):
            out = F.scaled_dot_product_attention(
                qr.transpose(0, 1)[None], kr.transpose(0, 1)[None], vr.transpose(0, 1)[None],
                is_causal=True, enable_gqa=True,
            )  # fmt: skip
            rows.append(out[0].transpose(0, 1))
        return torch.cat(rows)

    return attend


def packed(lengths: Sequence[int]) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
    """An `attend` for rows of these lengths (their sum is T); q (T,H,D), k and v (T,K,D) -> (T,H,D)."""
    lengths = tuple(lengths)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _Packed.apply(q, k, v, lengths)

    return attend


class _Packed(Function):
    """Flash attention (Dao et al. 2022) per row, results written in place: no slices kept, no concatenation."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...]) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        out = torch.empty_like(q)
        sums, start = [], 0
        for length in lengths:
            row = slice(start, start + length)
            result, logsumexp = _flash(_heads(q[row]), _heads(k[row], groups), _heads(v[row], groups), 0.0, True)
            out[row] = result[0].transpose(0, 1)
            sums.append(logsumexp)
            start += length
        ctx.save_for_backward(q, k, v, out, *sums)
        ctx.lengths = lengths
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, *sums = ctx.saved_tensors
        (grad,) = grads
        K, groups = k.shape[1], q.shape[1] // k.shape[1]
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        start = 0
        for length, logsumexp in zip(ctx.lengths, sums):
            row = slice(start, start + length)
            gq, gk, gv = _flash_backward(
                _heads(grad[row]), _heads(q[row]), _heads(k[row], groups), _heads(v[row], groups),
                _heads(out[row]), logsumexp, 0.0, True,
            )  # fmt: skip
            grad_q[row] = gq[0].transpose(0, 1)
            grad_k[row] = gk[0].unflatten(0, (K, groups)).sum(1).transpose(0, 1)  # shared heads add up
            grad_v[row] = gv[0].unflatten(0, (K, groups)).sum(1).transpose(0, 1)
            start += length
        return grad_q, grad_k, grad_v, None


def _heads(x: Tensor, groups: int = 1) -> Tensor:
    """(T, H, D) -> (1, H * groups, T, D): each key/value head repeated for its group of query heads."""
    x = x.transpose(0, 1)[None]
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)
