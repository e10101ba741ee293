"""Causal attention over rows packed end to end: no padding, and no token attends to another row.

The stream may begin with one prefix that all rows share: every row attends to the whole prefix and to itself, and the
prefix is computed once. In a layer with a window w a token attends to the last w tokens, itself included.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from riyaz import native
from riyaz.layers.fast.memory import empty_like

BLOCK = 512  # queries per call in a layer with a window: their mask holds BLOCK × (BLOCK + window) numbers
SHORT = 512  # tokens; in bfloat16 up to this row length one product of whole matrices is faster than flash attention
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class PackedAttention:
    """Causal attention over `prefix` shared tokens and rows of these lengths, T tokens in all: q (T,H,D), k and v
    (T,K,D) -> (T,H,D)."""

    lengths: tuple[int, ...]
    prefix: int = 0

    def behind(self, prefix: int) -> "PackedAttention":
        """The same rows with a shared prefix that is longer by `prefix` tokens."""
        return PackedAttention(self.lengths, self.prefix + prefix)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """The attention output (T,H,D); with a `window` a token attends to the last `window` tokens and no others."""
        if window is not None and self.prefix + max(self.lengths) <= window:
            window = None
        if _is_native(q, k, v):
            return _Native.apply(q, k, v, self.lengths, self.prefix, window or 0)
        if window is not None:
            return _SlidingWindow.apply(q, k, v, self.lengths, self.prefix, window)
        if q.dtype == torch.bfloat16 and self.equal_short_rows():
            return _EqualRows.apply(q, k, v, len(self.lengths))
        return _FlashRows.apply(q, k, v, self.lengths, self.prefix)

    def equal_short_rows(self) -> bool:
        """Whether there are several rows of one length, at most SHORT, and no prefix, as in pretraining."""
        return not self.prefix and len(self.lengths) > 1 and {*self.lengths} == {min(SHORT, self.lengths[0])}


def packed(lengths: Sequence[int]) -> PackedAttention:
    """Causal attention over rows of these lengths (their sum is T): q (T,H,D), k and v (T,K,D) -> (T,H,D)."""
    return PackedAttention(tuple(lengths))


def _is_native(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the C++ kernels take these tensors; torch's functions take all."""
    _, H, D = q.shape
    same = q.dtype == k.dtype == v.dtype and q.dtype in (torch.float32, torch.bfloat16)
    return same and 32 <= D <= 256 and D % 8 == 0 and H // k.shape[1] <= 96 and native.trains()


class _Native(Function):
    """Flash attention of all rows, prefix and window included, in one call of the C++ kernels: sums in float32, and the
    same bits whatever the number of threads. The other functions of this file are its slow twins."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], prefix: int, window: int
    ) -> Tensor:
        q, k, v = (x.detach().contiguous() for x in (q, k, v))
        out, sums = empty_like(q), torch.empty(q.shape[:2])  # (T, H, D), (T, H)
        native.extension().attention(q, k, v, out, sums, lengths, prefix, window, torch.get_num_threads())
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.shape = lengths, prefix, window
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q, k, v, out, sums = ctx.saved_tensors
        grad_q, grad_k, grad_v = empty_like(q), empty_like(k), empty_like(v)
        native.extension().attention_backward(
            grads[0].contiguous(), q, k, v, out.detach(), sums, grad_q, grad_k, grad_v, *ctx.shape,
            torch.get_num_threads(),
        )  # fmt: skip
        return grad_q, grad_k, grad_v, None, None, None


class _FlashRows(Function):
    """Flash attention (Dao et al. 2022), one call per run of equally long rows, results written in place.

    The queries of all rows attend to the prefix in one more call; the two outputs are combined by the log-sum-exp of
    their scores. With the combined output and log-sum-exp, flash's backward of each part is exact for that part.
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
            share = torch.sigmoid(sums[prefix:] - before_sums)  # weight of the row's own part; the prefix has the rest
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
            # with grouped heads: the sum over the query heads of a group
            grad_k[rows] = _stream(gk if groups == 1 else gk.unflatten(1, (K, groups)).sum(2))
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


class _EqualRows(Function):
    """Attention of B equally long rows by products of whole matrices: in bfloat16 on a CPU up to four times as fast as
    flash, forward and backward. The attention weights are saved for the backward pass if they are at most as many
    numbers as q, k and v together, otherwise computed again there."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, B: int) -> Tensor:
        groups = q.shape[1] // k.shape[1]
        q, k, v = _matrices(q, B), _matrices(k, B), _matrices(v, B)
        weights = _attention_weights(q, _grouped(k, groups))  # (B * H, T, T)
        saved = weights if weights.numel() <= q.numel() + k.numel() + v.numel() else None
        ctx.save_for_backward(q, k, v, saved)
        ctx.rows, ctx.groups = B, groups
        return _stream((weights @ _grouped(v, groups)).unflatten(0, (B, -1)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, weights = ctx.saved_tensors
        grad, k, v = _matrices(grads[0], ctx.rows), _grouped(k, ctx.groups), _grouped(v, ctx.groups)
        weights = _attention_weights(q, k) if weights is None else weights
        grad_v = weights.transpose(1, 2) @ grad
        scores = torch._softmax_backward_data(grad @ v.transpose(1, 2), weights, -1, q.dtype)
        scale = q.shape[-1] ** -0.5
        grad_q, grad_k = (scores @ k).mul_(scale), (scores.transpose(1, 2) @ q).mul_(scale)
        by_row = [x.unflatten(0, (ctx.rows, -1)) for x in (grad_q, grad_k, grad_v)]  # (B, H, T, D)
        if ctx.groups > 1:  # k and v: sum over the query heads of a group
            by_row[1:] = (x.unflatten(1, (-1, ctx.groups)).sum(2) for x in by_row[1:])
        grad_q, grad_k, grad_v = map(_stream, by_row)
        return grad_q, grad_k, grad_v, None


def _matrices(x: Tensor, rows: int) -> Tensor:
    """(B * T, H, D) -> (B * H, T, D), the layout of batched matrix products."""
    return _heads(x, rows=rows).flatten(0, 1)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """(B * K, T, D) -> (B * K * groups, T, D): each key/value head repeated for every query head of its group."""
    return x if groups == 1 else x.repeat_interleave(groups, dim=0)


def _attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Causal attention weights (B * H, T, T): softmax of q kᵀ / √D over the keys that are not later."""
    scores = torch.baddbmm(_causal_mask(q.shape[1], q.dtype), q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return scores.softmax(-1)


@lru_cache(maxsize=4)
def _causal_mask(T: int, dtype: torch.dtype) -> Tensor:
    """(T, T): -inf where the key is later than the query, 0 elsewhere."""
    return torch.full((T, T), -torch.inf, dtype=dtype).triu_(1)


class _SlidingWindow(Function):
    """Flash attention in blocks of queries, each with only the keys in its window, which may lie in the prefix and in
    the row; the prefix's keys are read again for every row whose first tokens still have them in the window."""

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
        grad_k, grad_v = torch.zeros(k.shape), torch.zeros(v.shape)  # float32: many blocks add to the same key
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
    """Blocks of queries: their slice of the stream, the positions of their keys in it, and the mask between the two."""
    start = 0
    for length in (prefix, *lengths) if prefix else lengths:
        before = prefix if start else 0  # prefix tokens before this row; none before the prefix itself
        for first, last, low in query_blocks(before, before + length, window):
            keys = torch.arange(low, last)
            seen = torch.where(keys < before, keys, keys - before + start)
            yield slice(start + first - before, start + last - before), seen, window_mask(first, last, low, window)
        start += length


def query_blocks(start: int, end: int, window: int) -> Iterator[tuple[int, int, int]]:
    """The queries from start to end in blocks of BLOCK: first query, last query + 1, first key in a window."""
    for first in range(start, end, BLOCK):
        yield first, min(first + BLOCK, end), max(0, first - window + 1)


def window_mask(first: int, last: int, low: int, window: int) -> Tensor:
    """A mask (1, 1, last - first, last - low): 0 where the key is the query's own or one of the `window` - 1 before it,
    -inf elsewhere."""
    distance = torch.arange(first, last)[:, None] - torch.arange(low, last)
    return torch.zeros(distance.shape).masked_fill_((distance < 0) | (distance >= window), -torch.inf)[None, None]


def _runs(lengths: Sequence[int], prefix: int) -> Iterator[tuple[slice, int]]:
    """The runs of equally long rows, each with its slice of the stream and its number of rows; a prefix is one row."""
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
    """(T, K * G, D) -> (1, K, G * T, D): the G query heads of a group as one longer row of queries."""
    T, H, D = x.shape
    return x.reshape(T, H // groups, groups, D).permute(1, 2, 0, 3).reshape(1, H // groups, groups * T, D)


def _unfold(x: Tensor, groups: int) -> Tensor:
    """(K, G * T, …) -> (T, K * G, …), the inverse of `_fold` without its first dimension."""
    return x.unflatten(1, (groups, -1)).flatten(0, 1).transpose(0, 1)
