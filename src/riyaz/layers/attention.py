"""Causal attention over rows packed end to end: no padding, and no token sees another row.

Rows may stand behind one shared prefix, which begins the stream: its tokens see themselves, every row sees them all
and itself, and no row pays for them again. A layer with a window w sees the w last tokens only, its own counted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

BLOCK = 512  # queries of a window's layer at once: their mask holds BLOCK × (BLOCK + window) numbers
SHORT = 512  # tokens of a row whose weights are cheaper made at once than tile by tile, in bfloat16
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def packed_plain(lengths: Sequence[int], prefix: int = 0) -> Callable[..., Tensor]:
    """The slow twin of `packed`: torch's own attention row by row, the prefix repeated before each, gradient by
    autograd."""

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


@dataclass(frozen=True)
class PackedAttention:
    """An `attend` for a stream of `prefix` shared tokens and rows of these lengths, T in all: q (T,H,D), k and v
    (T,K,D) -> (T,H,D)."""

    lengths: tuple[int, ...]
    prefix: int = 0

    def behind(self, prefix: int) -> "PackedAttention":
        """The same rows behind so many more shared tokens."""
        return PackedAttention(self.lengths, self.prefix + prefix)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """What every token takes from those it sees: with a `window`, that many at most, itself counted."""
        if window is not None and self.prefix + max(self.lengths) > window:
            return _Windowed.apply(q, k, v, self.lengths, self.prefix, window)
        if q.dtype == torch.bfloat16 and self.windows():
            return _Windows.apply(q, k, v, len(self.lengths))
        return _Packed.apply(q, k, v, self.lengths, self.prefix)

    def windows(self) -> bool:
        """Whether the stream is what pretraining reads: several short rows, all of one length."""
        return not self.prefix and len(self.lengths) > 1 and {*self.lengths} == {min(SHORT, self.lengths[0])}


def packed(lengths: Sequence[int]) -> PackedAttention:
    """An `attend` for rows of these lengths (their sum is T); q (T,H,D), k and v (T,K,D) -> (T,H,D)."""
    return PackedAttention(tuple(lengths))


class _Packed(Function):
    """Flash attention (Dao et al. 2022) per run of equally long rows, results written in place: no slices kept, no
    concatenation.

    The prefix is one more part of the keys: all rows' queries in one call, joined to their own part by the log-sums
    of weights. With the joined output and sums, flash's backward of each part is exact for that part.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], prefix: int) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        out, sums = torch.empty_like(q), torch.empty(q.shape[:2])  # (T, H, D), (T, H)
        for rows, B in _runs(lengths, prefix):
            result, logsumexp = _flash(
                _heads(q[rows], rows=B), _heads(k[rows], groups, B), _heads(v[rows], groups, B), 0.0, True
            )
            out[rows], sums[rows] = _stream(result), _stream(logsumexp)
        if prefix:
            before, before_sums = _flash(_fold(q[prefix:], groups), _heads(k[:prefix]), _heads(v[:prefix]), 0.0, False)
            before, before_sums = _unfold(before[0], groups), _unfold(before_sums[0], groups)
            share = torch.sigmoid(sums[prefix:] - before_sums)  # the own part's share of the whole
            out[prefix:] = torch.lerp(before, out[prefix:], share.to(out.dtype)[..., None])
            sums[prefix:] = torch.logaddexp(sums[prefix:], before_sums)
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.lengths, ctx.prefix = lengths, prefix
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, sums = ctx.saved_tensors
        (grad,) = grads
        K, groups, prefix = k.shape[1], q.shape[1] // k.shape[1], ctx.prefix
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for rows, B in _runs(ctx.lengths, prefix):
            gq, gk, gv = _flash_backward(
                _heads(grad[rows], rows=B), _heads(q[rows], rows=B), _heads(k[rows], groups, B),
                _heads(v[rows], groups, B), _heads(out[rows], rows=B), _heads(sums[rows], rows=B), 0.0, True,
            )  # fmt: skip
            grad_q[rows] = _stream(gq)
            grad_k[rows] = _stream(gk if groups == 1 else gk.unflatten(1, (K, groups)).sum(2))  # shared heads add up
            grad_v[rows] = _stream(gv if groups == 1 else gv.unflatten(1, (K, groups)).sum(2))
        if prefix:
            gq, gk, gv = _flash_backward(
                _fold(grad[prefix:], groups), _fold(q[prefix:], groups), _heads(k[:prefix]), _heads(v[:prefix]),
                _fold(out[prefix:], groups), _fold(sums[prefix:, :, None], groups)[..., 0], 0.0, False,
            )  # fmt: skip
            grad_q[prefix:] += _unfold(gq[0], groups)
            grad_k[:prefix] += gk[0].transpose(0, 1)  # over all rows
            grad_v[:prefix] += gv[0].transpose(0, 1)
        return grad_q, grad_k, grad_v, None, None


class _Windows(Function):
    """Attention of B equally long rows by products of whole matrices, which in bfloat16 are up to four times as fast
    as flash on a CPU, forward and backward. The weights are kept for the gradient where they are no more numbers than
    q, k and v, and made again where rows are longer."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, B: int) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        q, k, v = _matrices(q, B), _matrices(k, B), _matrices(v, B)
        weights = _weights(q, _grouped(k, groups))  # (B * H, T, T)
        kept = weights if weights.numel() <= q.numel() + k.numel() + v.numel() else None
        ctx.save_for_backward(q, k, v, kept)
        ctx.rows, ctx.groups = B, groups
        return _stream((weights @ _grouped(v, groups)).unflatten(0, (B, -1)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, weights = ctx.saved_tensors
        grad, k, v = _matrices(grads[0], ctx.rows), _grouped(k, ctx.groups), _grouped(v, ctx.groups)
        weights = _weights(q, k) if weights is None else weights
        grad_v = weights.transpose(1, 2) @ grad
        scores = torch._softmax_backward_data(grad @ v.transpose(1, 2), weights, -1, q.dtype)
        scale = q.shape[-1] ** -0.5
        grad_q, grad_k = (scores @ k).mul_(scale), (scores.transpose(1, 2) @ q).mul_(scale)
        found = [x.unflatten(0, (ctx.rows, -1)) for x in (grad_q, grad_k, grad_v)]  # (B, H, T, D)
        if ctx.groups > 1:
            found[1:] = (x.unflatten(1, (-1, ctx.groups)).sum(2) for x in found[1:])  # shared heads add up
        grad_q, grad_k, grad_v = map(_stream, found)
        return grad_q, grad_k, grad_v, None


def _matrices(x: Tensor, rows: int) -> Tensor:
    """(B * T, H, D) -> (B * H, T, D), as products of many matrices take them."""
    return _heads(x, rows=rows).flatten(0, 1)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """(B * K, T, D) -> (B * K * groups, T, D): each key/value head for every query head of its group."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=0)


def _weights(q: Tensor, k: Tensor) -> Tensor:
    """Who takes how much from whom, (B * H, T, T): softmax of the scaled products with those no later."""
    scores = torch.baddbmm(_later(q.shape[1], q.dtype), q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return scores.softmax(-1)


@lru_cache(maxsize=4)
def _later(T: int, dtype: torch.dtype) -> Tensor:
    """(T, T): -inf where a token would see a later one, 0 elsewhere."""
    return torch.full((T, T), -torch.inf, dtype=dtype).triu_(1)


class _Windowed(Function):
    """Flash attention block by block of queries, each with the few keys that it sees, which may be the prefix's last
    and its row's first; those of the prefix are read again for every row that begins within the window."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], prefix: int, window: int
    ) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        out, sums = torch.empty_like(q), torch.empty(q.shape[:2])  # (T, H, D), (T, H)
        for at, seen, mask in _blocks(lengths, prefix, window):
            result, logsumexp = _flash(
                _heads(q[at]), _heads(k[seen], groups), _heads(v[seen], groups), 0.0, False, attn_mask=mask
            )
            out[at], sums[at] = result[0].transpose(0, 1), logsumexp[0].T
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.shape = lengths, prefix, window
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v, out, sums = ctx.saved_tensors
        (grad,) = grads
        K, groups = k.shape[1], q.shape[1] // k.shape[1]
        grad_q = torch.empty_like(q)
        grad_k, grad_v = torch.zeros(k.shape), torch.zeros(v.shape)  # float32: many blocks add to one key
        for at, seen, mask in _blocks(*ctx.shape):
            gq, gk, gv = _flash_backward(
                _heads(grad[at]), _heads(q[at]), _heads(k[seen], groups), _heads(v[seen], groups),
                _heads(out[at]), sums[at].T[None], 0.0, False, attn_mask=mask,
            )  # fmt: skip
            grad_q[at] = gq[0].transpose(0, 1)
            grad_k.index_add_(0, seen, gk[0].float().unflatten(0, (K, groups)).sum(1).transpose(0, 1))
            grad_v.index_add_(0, seen, gv[0].float().unflatten(0, (K, groups)).sum(1).transpose(0, 1))
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None, None, None


def _blocks(lengths: Sequence[int], prefix: int, window: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Queries of the stream, the places of all keys one of them sees, and who sees whom."""
    start = 0
    for length in (prefix, *lengths) if prefix else lengths:
        before = prefix if start else 0  # tokens of the prefix ahead of this row
        for first, last, low in spans(before, before + length, window):
            keys = torch.arange(low, last)
            seen = torch.where(keys < before, keys, keys - before + start)
            yield slice(start + first - before, start + last - before), seen, band(first, last, low, window)
        start += length


def spans(start: int, end: int, window: int) -> Iterator[tuple[int, int, int]]:
    """Queries from start to end in blocks: where each begins and ends, and the first key that one of it sees."""
    for first in range(start, end, BLOCK):
        yield first, min(first + BLOCK, end), max(0, first - window + 1)


def band(first: int, last: int, low: int, window: int) -> Tensor:
    """A mask (1, 1, last - first, last - low): 0 where a query sees a key no later and less than `window` before it,
    -inf elsewhere."""
    distance = torch.arange(first, last)[:, None] - torch.arange(low, last)
    return torch.zeros(distance.shape).masked_fill_((distance < 0) | (distance >= window), -torch.inf)[None, None]


def _runs(lengths: Sequence[int], prefix: int) -> Iterator[tuple[slice, int]]:
    """Where the prefix, if there is one, and every run of equally long rows stand in the stream, and how many rows."""
    start = 0
    for length, rows in groupby((prefix, *lengths) if prefix else lengths):
        count = len(list(rows))
        yield slice(start, start + count * length), count
        start += count * length


def _heads(x: Tensor, groups: int = 1, rows: int = 1) -> Tensor:
    """(B * T, H, …) -> (B, H * groups, T, …): each key/value head repeated for its group of query heads."""
    x = x.unflatten(0, (rows, -1)).transpose(1, 2)
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)


def _stream(x: Tensor) -> Tensor:
    """(B, H, T, …) -> (B * T, H, …), the inverse of `_heads`."""
    return x.transpose(1, 2).flatten(0, 1)


def _fold(x: Tensor, groups: int) -> Tensor:
    """(T, K * G, D) -> (1, K, G * T, D): the queries of a group as more queries of its key/value head."""
    T, H, D = x.shape
    return x.reshape(T, H // groups, groups, D).permute(1, 2, 0, 3).reshape(1, H // groups, groups * T, D)


def _unfold(x: Tensor, groups: int) -> Tensor:
    """(K, G * T, …) -> (T, K * G, …)."""
    return x.unflatten(1, (groups, -1)).flatten(0, 1).transpose(0, 1)
