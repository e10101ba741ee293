"""Linears and embeddings that add the gradients of their weights to float32 sums in place.

Autograd would make each weight's gradient in new memory, an embedding's in the size of the whole table, and then add
them up. In full fine-tuning of a small model that takes longer than the optimiser. Outputs come from `layers.memory`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from riyaz.layers.memory import empty
from riyaz.layers.native_functions import add_gradient
from riyaz.layers.ternary import TernaryLinear


def take_over(model: nn.Module, sums: Mapping[nn.Parameter, Tensor]) -> list[nn.Module]:
    """Have the linears, plain or ternary, and embeddings whose weights are in `sums` add their gradients to these,
    until `give_back` of what is returned. `total` of the head is its sum, for `loss.head_loss`; other uses of a weight
    give gradients as before."""
    taken: list[nn.Module] = []
    for module in model.modules():
        total = sums.get(getattr(module, "weight", None))  # type: ignore[arg-type]
        compute = _COMPUTE.get(type(module))
        if total is None or not (compute or isinstance(module, TernaryLinear)):
            continue
        module.total = total
        if compute:
            module.forward = partial(compute, module)  # type: ignore[method-assign]
        taken.append(module)
    return taken


def give_back(taken: list[nn.Module]) -> None:
    """Have the modules compute as torch has them."""
    for module in taken:
        del module.total
        vars(module).pop("forward", None)


def takes(linear: nn.Module) -> bool:
    """Whether `products` computes this linear."""
    return type(linear) is nn.Linear and hasattr(linear, "total")


def products(x: Tensor, linears: Sequence[Any]) -> tuple[Tensor, ...]:
    """x Wᵀ + bias (T, out) of each linear that `takes`, for x (T, in)."""
    weights, biases = [linear.weight for linear in linears], [linear.bias for linear in linears]
    found: tuple[Tensor, ...] = _Linears.apply(x, [linear.total for linear in linears], *weights, *biases)
    return found


def _linear(module: Any, x: Tensor) -> Tensor:
    return products(x, [module])[0]


def _embed(module: Any, tokens: Tensor) -> Tensor:
    return _Embed.apply(tokens, module.weight, module.total)


class _Linears(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, totals: list[Tensor], *weights_and_biases: Tensor | None) -> tuple[Tensor, ...]:
        weights, biases = weights_and_biases[: len(totals)], weights_and_biases[len(totals) :]
        ctx.save_for_backward(x, *weights)
        ctx.totals = totals
        return tuple(_product(x, weight, bias) for weight, bias in zip(weights, biases))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, *weights = ctx.saved_tensors
        wanted, grad_x = ctx.needs_input_grad[2:], None
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(grads[0], weights[0], out=empty(x.shape, x.dtype))
            for grad, weight in zip(grads[1:], weights[1:]):
                grad_x.addmm_(grad, weight)
        for grad, total, own in zip(grads, ctx.totals, wanted):
            if own:
                add_gradient(total, grad, x)
        biases = (grad.sum(0) if own else None for grad, own in zip(grads, wanted[len(weights) :]))
        return grad_x, None, *[None] * len(weights), *biases


def _product(x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
    """x Wᵀ + bias (T, out)."""
    out = empty((len(x), len(weight)), x.dtype)
    return torch.mm(x, weight.T, out=out) if bias is None else torch.addmm(bias, x, weight.T, out=out)


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


_COMPUTE: dict[type[nn.Module], Callable[..., Tensor]] = {nn.Linear: _linear, nn.Embedding: _embed}
