"""Cross-entropy of the head in chunks, so that the (N, V) logits are never in memory at once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

CHUNK = 256  # rows of logits at once, at least: 256 × 49,152 float32 are 50 MB
NUMBERS = 2**20  # logits at once with a small vocabulary, in more rows than CHUNK: 4 MB


def head_loss(hidden: Tensor, weight: Tensor, labels: Tensor, cap: float | None = None) -> Tensor:
    """Sum of −log p(label) in nats; hidden (N, C), weight (V, C), labels (N,).

    With a `cap` the logits are cap · tanh(logits / cap). The gradient is computed in the forward pass, chunk by
    chunk; the backward pass only multiplies it by a factor.
    """
    if not torch.is_grad_enabled():  # inside a Function it is always disabled
        hidden, weight = hidden.detach(), weight.detach()
    return _HeadLoss.apply(hidden, weight, labels, cap)


class _HeadLoss(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, cap: float | None) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        total = torch.zeros((), dtype=torch.float64)
        size = max(CHUNK, NUMBERS // len(weight))
        for start in range(0, len(labels), size):
            rows = slice(start, start + size)
            chunk, target = hidden[rows], labels[rows][:, None]
            logits = (chunk @ weight.T).float()  # (n, V)
            if cap is not None:
                bent = logits.div_(cap).tanh_()
                logits = bent * cap
            log_p = torch.log_softmax(logits, -1)
            total -= log_p.gather(1, target).double().sum()
            if not (need_hidden or need_weight):
                continue
            grad = log_p.exp_().scatter_add_(1, target, torch.full(target.shape, -1.0))
            if cap is not None:
                grad *= 1 - bent.square_()
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad @ weight
            if grad_weight is not None:
                grad_weight.addmm_(grad.T, chunk)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        factor = grads[0].item()
        return (
            None if grad_hidden is None else grad_hidden.mul_(factor),
            None if grad_weight is None else grad_weight.mul_(factor),
            None,
            None,
        )
