"""Distillation (Hinton et al. 2015, arXiv 1503.02531): how far a student's distributions are from a teacher's, in
chunks of rows, so that the (N, V) logits of neither are in memory at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from riyaz.data.packing import PackedRows
from riyaz.layers.attention import packed
from riyaz.layers.divergence import by_chunks
from riyaz.layers.fast.gradient_sums import GradientSums


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
    (N, C), weights (V, C). With `sums` the gradient of the weight is added to its own there."""

    def chunk(log_q: Tensor, rows: slice) -> tuple[float, Tensor]:
        log_p = torch.log_softmax((wanted[rows] @ teacher_weight.T).float(), -1)  # (n, V)
        p = log_p.exp()
        return float((p * (log_p - log_q)).sum(dtype=torch.float64)), log_q.exp_().sub_(p)

    return by_chunks(hidden, weight, None, sums, chunk)
