"""Distillation (Hinton et al. 2015, arXiv 1503.02531): how far a student's distributions are from a teacher's, in
chunks of rows, so that the (N, V) logits of neither are in memory at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from riyaz.data.packing import PackedRows
from riyaz.layers.attention import packed
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.loss import stored_gradients

NUMBERS = 2**22  # logits at once


def distilling(teacher: Any) -> Callable[[Any, PackedRows, GradientSums], Tensor]:
    """A loss for `train.train`: the sum of KL(teacher ‖ model) over the label tokens, in nats. Both share a
    vocabulary."""

    def nats(model: Any, rows: PackedRows, sums: GradientSums) -> Tensor:
        tokens, positions = torch.from_numpy(rows.tokens), torch.from_numpy(rows.positions)
        attend, labelled = packed(rows.lengths).behind(rows.shared), torch.from_numpy(rows.label_index)
        with torch.no_grad():
            wanted = teacher(tokens, positions, attend).index_select(0, labelled)
        hidden = model(tokens, positions, attend).index_select(0, labelled)
        return head_divergence(hidden, model.lm_head.weight, wanted, teacher.lm_head.weight, sums)

    return nats


def head_divergence(
    hidden: Tensor, weight: Tensor, wanted: Tensor, teacher_weight: Tensor, sums: GradientSums | None = None
) -> Tensor:
    """Sum of KL(softmax(wanted teacher_weightᵀ) ‖ softmax(hidden weightᵀ)) in nats over the rows; hidden and wanted
    (N, C), weights (V, C). As in `layers.loss`, the gradient is computed in the forward pass, and with `sums` the
    weight's is added to its own there."""
    total = None if sums is None else sums.of(weight)
    return _HeadDivergence.apply(hidden, weight, wanted, teacher_weight, total)


class _HeadDivergence(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, wanted: Tensor, teacher_weight: Tensor, total: Tensor | None
    ) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        nats, size = 0.0, max(1, NUMBERS // len(weight))
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            log_p = torch.log_softmax((wanted[rows] @ teacher_weight.T).float(), -1)  # (n, V)
            log_q = torch.log_softmax((hidden[rows] @ weight.T).float(), -1)
            p = log_p.exp()
            nats += float((p * (log_p - log_q)).sum(dtype=torch.float64))
            grad = log_q.exp_().sub_(p).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = grad @ weight
            if grad_weight is not None:
                grad_weight.addmm_(grad.T, hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.total = total
        return torch.tensor(nats, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        return (*stored_gradients(ctx, grads[0]), None, None, None)
