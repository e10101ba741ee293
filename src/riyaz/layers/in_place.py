"""Linears and embeddings that add the gradients of their weights to float32 sums in place.

Autograd would make each weight's gradient in new memory, an embedding's in the size of the whole table, and then add
them up. In full fine-tuning of a small model that takes longer than the optimiser. Outputs come from `layers.memory`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from riyaz.layers.memory import empty
from riyaz.layers.native_functions import add


def take_over(model: nn.Module, sums: Mapping[nn.Parameter, Tensor]) -> list[nn.Module]:
    """Have the plain linears and embeddings whose weights are in `sums` add their gradients to these, until `give_back`
    of what is returned. `total` of the head is its sum, for `loss.head_loss`; other uses of a weight give gradients as
    before."""
    taken: list[nn.Module] = []
    for module in model.modules():
        total = sums.get(getattr(module, "weight", None))  # type: ignore[arg-type]
        if type(module) in (nn.Linear, nn.Embedding) and total is not None:
            compute = _linear if type(module) is nn.Linear else _embed
            module.total = total
            module.forward = partial(compute, module)  # type: ignore[method-assign]
            taken.append(module)
    return taken


def give_back(taken: list[nn.Module]) -> None:
    """Have the modules compute as torch has them."""
    for module in taken:
        del module.forward, module.total


def _linear(module: Any, x: Tensor) -> Tensor:
    return _Linear.apply(x, module.weight, module.bias, module.total)


def _embed(module: Any, tokens: Tensor) -> Tensor:
    return _Embed.apply(tokens, module.weight, module.total)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, total: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.total = total
        out = empty((len(x), len(weight)), x.dtype)  # (T, out)
        return torch.mm(x, weight.T, out=out) if bias is None else torch.addmm(bias, x, weight.T, out=out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad_x = torch.mm(grad, weight, out=empty(x.shape, x.dtype)) if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            if x.dtype == ctx.total.dtype:
                ctx.total.addmm_(grad.T, x)
            else:
                add(ctx.total, torch.mm(grad.T, x, out=empty(weight.shape, x.dtype)))
        return grad_x, None, grad.sum(0) if ctx.needs_input_grad[2] else None, None


class _Embed(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, total: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.total = total
        return weight.index_select(0, tokens)  # (T, C)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        (tokens,) = ctx.saved_tensors
        ctx.total.index_add_(0, tokens, grads[0].to(ctx.total.dtype))
        return None, None, None
