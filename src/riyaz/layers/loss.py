"""Cross-entropy of the head in chunks, so that the (N, V) logits are never in memory at once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from riyaz.layers.fast import native_functions
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.fast.memory import empty_like
from riyaz.layers.swaps.frozen import FrozenLinear

CHUNK = 256  # rows of logits at once, at least: 256 × 49,152 float32 are 50 MB
NUMBERS = 2**22  # logits at once with a small vocabulary, in more rows than CHUNK: 16 MB in float32


def head_loss(
    hidden: Tensor,
    weight: Tensor | FrozenLinear,
    labels: Tensor,
    cap: float | None = None,
    sums: GradientSums | None = None,
) -> Tensor:
    """Sum of −log p(label) in nats; hidden (N, C), weight (V, C) or a frozen head in codes, labels (N,).

    With a `cap` the logits are cap · tanh(logits / cap). The gradient is computed in the forward pass, chunk by
    chunk; the backward pass only multiplies it by a factor. With `sums` the weight's is added to its own there.
    """
    total = None if sums is None or isinstance(weight, FrozenLinear) else sums.of(weight)
    if not torch.is_grad_enabled():  # inside a Function it is always disabled
        hidden = hidden.detach()
        weight = weight if isinstance(weight, FrozenLinear) else weight.detach()
    return _HeadLoss.apply(hidden, weight, labels, cap, total)


class _HeadLoss(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Any, labels: Tensor, cap: float | None, total: Tensor | None
    ) -> Tensor:
        coded = isinstance(weight, FrozenLinear)
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = (empty_like if len(labels) else torch.zeros_like)(weight) if need_weight else None
        nats = 0.0
        size = max(CHUNK, NUMBERS // (weight.out_features if coded else len(weight)))
        for start in range(0, len(labels), size):
            rows = slice(start, start + size)
            chunk = hidden[rows]
            logits = weight.multiply(chunk) if coded else chunk @ weight.T  # (n, V)
            bent = None
            if cap is not None:
                bent = logits.float().div_(cap).tanh_()
                logits = bent * cap
            part, grad = _softmax_loss(logits, labels[rows], need_hidden or need_weight)
            nats += part
            if grad is None:
                continue
            if bent is not None:
                grad *= 1 - bent.square_()
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = weight.gradient(grad) if coded else grad @ weight
            if grad_weight is not None:
                if start:
                    grad_weight.addmm_(grad.T, chunk)
                else:
                    torch.mm(grad.T, chunk, out=grad_weight)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.total = total
        return torch.tensor(nats, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        return (*stored_gradients(ctx, grads[0]), None, None, None)


def stored_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of hidden states and weight that the forward pass has saved, times that of the loss; the weight's
    is added to `ctx.total` if there is one."""
    grad_hidden, grad_weight = ctx.saved_tensors
    factor = grad.item()
    if grad_hidden is not None:
        grad_hidden.mul_(factor)
    if grad_weight is None:
        return grad_hidden, None
    if ctx.total is None:
        return grad_hidden, grad_weight.mul_(factor)
    native_functions.add(ctx.total, grad_weight, factor)
    return grad_hidden, None


def _softmax_loss(logits: Tensor, labels: Tensor, gradient: bool) -> tuple[float, Tensor | None]:
    """The sum of −log p(label) in nats and, if wanted, its gradient, which may overwrite the logits; logits (n, V),
    labels (n,)."""
    if native_functions.runs(logits):
        return native_functions.softmax_loss(logits, labels, gradient), logits if gradient else None
    target = labels[:, None]
    log_p = torch.log_softmax(logits.float(), -1)
    nats = -log_p.gather(1, target).double().sum().item()
    if not gradient:
        return nats, None
    return nats, log_p.exp_().scatter_add_(1, target, torch.full(target.shape, -1.0))
