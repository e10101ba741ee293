"""Losses of tokens with weights of their own, and of distributions in place of tokens, in chunks, so that the (N, V)
logits are never in memory at once.

As in `layers.loss`, the gradient is computed in the forward pass, and the backward pass multiplies it by a factor.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.loss import stored_gradients
from riyaz.layers.swaps.frozen import FrozenLinear

NUMBERS = 2**23  # logits at once: 32 MB in float32
LEAST = 1e-6  # probability of all other tokens together, at least
Weight = Tensor | FrozenLinear  # of a head, (V, C)
# from the log-probabilities (n, V) of some rows, which may be overwritten: their loss, and its gradient by the logits
Chunk = Callable[[Tensor, slice], tuple[float, Tensor]]


def top_divergence(
    hidden: Tensor, head: nn.Module, tokens: Tensor, log_p: Tensor, weights: Tensor, cap: float | None = None,
    sums: GradientSums | None = None,
) -> Tensor:  # fmt: skip
    """Sum of weights · KL(p ‖ q) in nats (Hinton et al. 2015, arXiv 1503.02531); hidden (N, C), weights (N,). p has the
    log-probabilities log_p (N, k) of the `tokens` (N, k), q is what the head (V, C) makes of the hidden states; all
    other tokens count as one.

    With a `cap` the logits are cap · tanh(logits / cap). With `sums` the head's gradient is added to its own there.
    """
    return by_chunks(
        hidden, _weight(head), cap, sums,
        lambda log_q, rows: _divergence(log_q, tokens[rows], log_p[rows], weights[rows]),
    )  # fmt: skip


def weighted_nats(
    hidden: Tensor, head: nn.Module, labels: Tensor, weights: Tensor, cap: float | None = None,
    sums: GradientSums | None = None,
) -> Tensor:  # fmt: skip
    """Sum of weights · −log p(label) in nats, from hidden (N, C), labels (N,) and weights (N,); as `top_divergence`."""

    def nats(log_q: Tensor, rows: slice) -> tuple[float, Tensor]:
        target, weight = labels[rows, None], weights[rows, None]
        own = log_q.gather(1, target)
        grad = log_q.exp_().scatter_add_(1, target, torch.full_like(own, -1.0)).mul_(weight)
        return -float((weight * own).sum(dtype=torch.float64)), grad

    return by_chunks(hidden, _weight(head), cap, sums, nats)


@torch.no_grad()
def token_log_p(hidden: Tensor, head: nn.Module, labels: Tensor, cap: float | None = None) -> Tensor:
    """log p (N,) of the labels (N,) in nats, from hidden (N, C)."""
    parts, weight = [], _weight(head)
    for start in range(0, len(hidden), size := _rows_at_once(weight)):
        log_q = _log_q(hidden[start : start + size], weight, cap)[0]
        parts.append(log_q.gather(1, labels[start : start + size, None])[:, 0])
    return torch.cat(parts)


def by_chunks(hidden: Tensor, weight: Weight, cap: float | None, sums: GradientSums | None, chunk: Chunk) -> Tensor:
    """The sum of a loss of the log-probabilities behind hidden (N, C), which `chunk` gives for some rows at a time."""
    total = None if sums is None or isinstance(weight, FrozenLinear) else sums.of(weight)
    return _Chunked.apply(hidden, weight, cap, total, chunk)


def _weight(head: Any) -> Weight:
    return head if isinstance(head, FrozenLinear) else head.weight


class _Chunked(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Any, cap: float | None, total: Tensor | None, chunk: Chunk) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        nats, size = 0.0, _rows_at_once(weight)
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            log_q, bent = _log_q(hidden[rows], weight, cap)
            part, grad = chunk(log_q, rows)
            nats += part
            if bent is not None:
                grad *= 1 - bent.square_()
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = weight.gradient(grad) if isinstance(weight, FrozenLinear) else grad @ weight
            if grad_weight is not None:
                grad_weight.addmm_(grad.T, hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.total = total
        return torch.tensor(nats, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        return (*stored_gradients(ctx, grads[0]), None, None, None)


def _rows_at_once(weight: Weight) -> int:
    return max(1, NUMBERS // (weight.out_features if isinstance(weight, FrozenLinear) else len(weight)))


def _log_q(hidden: Tensor, weight: Weight, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """The log-probabilities (n, V) behind hidden states (n, C), and with a cap tanh(logits / cap)."""
    logits = weight.multiply(hidden) if isinstance(weight, FrozenLinear) else hidden @ weight.T
    if cap is None:
        return logits.float().log_softmax(-1), None
    bent = (logits.float() / cap).tanh_()
    return (bent * cap).log_softmax(-1), bent


def _divergence(log_q: Tensor, tokens: Tensor, log_p: Tensor, weights: Tensor) -> tuple[float, Tensor]:
    """The weighted sum of the rows' divergences in nats and its gradient by the logits (n, V), which overwrites log_q
    (n, V)."""
    own, p = log_q.gather(1, tokens), log_p.exp()  # (n, k)
    q = own.exp()
    other_p, other_q = ((1 - each.sum(1)).clamp_min(LEAST) for each in (p, q))  # (n,)
    nats = (p * (log_p - own)).sum(1) + other_p * (other_p / other_q).log()
    grad = log_q.exp_().mul_((1 - other_p / other_q)[:, None]).scatter_(1, tokens, q - p)
    return float((weights * nats).sum(dtype=torch.float64)), grad.mul_(weights[:, None])
