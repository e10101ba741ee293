"""Linears, embeddings and LoRAs that add the gradients of their weights to float32 sums in place.

Autograd would make each weight's gradient in new memory, an embedding's in the size of the whole table, and then add
them up. In full fine-tuning of a small model that takes longer than the optimiser. Outputs come from
`layers.fast.memory`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from riyaz import native
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.fast.memory import empty
from riyaz.layers.fast.native_functions import add_weight_gradient, multiplies, product_gradients, write_products
from riyaz.layers.swaps.lora import LoRALinear
from riyaz.layers.swaps.swap import swap
from riyaz.layers.swaps.ternary import TernaryLinear


class SummingLinear(nn.Linear):
    """A linear that adds the gradient of its weight to the weight's sum."""

    gradient_sums: GradientSums

    def __init__(self, linear: nn.Linear, sums: GradientSums) -> None:
        vars(self).update(vars(linear), gradient_sums=sums)  # with the same parameters

    def forward(self, x: Tensor) -> Tensor:
        """x (T, in) -> (T, out)."""
        return outputs(x, [self])[0]


class SummingEmbedding(nn.Embedding):
    """An embedding that adds the gradient of its weight to the weight's sum."""

    gradient_sums: GradientSums

    def __init__(self, embedding: nn.Embedding, sums: GradientSums) -> None:
        vars(self).update(vars(embedding), gradient_sums=sums)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (T,) -> (T, C)."""
        return _Embed.apply(tokens, self.weight, self.gradient_sums.of(self.weight))


SUMMING: dict[type[nn.Module], Any] = {nn.Linear: SummingLinear, nn.Embedding: SummingEmbedding}


def attach(model: nn.Module, sums: GradientSums) -> dict[str, nn.Module]:
    """Have the linears, plain or ternary, the embeddings and the LoRAs whose weights have a sum add their gradients to
    it, until `detach` is given what is returned: the paths and modules in whose place others stand meanwhile. Where the
    extension multiplies, others stand for frozen linears too, which add nothing. Other uses of a weight give gradients
    as before."""
    plain: dict[str, nn.Module] = {}
    multiplied = native.multiplies()
    beneath = {module.base for module in model.modules() if isinstance(module, LoRALinear)}
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear | TernaryLinear):
            if all(weight in sums for weight in module.parameters(recurse=False)):
                module.gradient_sums = sums
        elif name and type(module) in SUMMING and module not in beneath:  # by exact type, as `swap.linears`
            frozen = type(module) is nn.Linear and not module.weight.requires_grad
            if module.weight in sums or (frozen and multiplied):
                plain[name] = module
                swap(model, name, SUMMING[type(module)](module, sums))
    return plain


def detach(model: nn.Module, plain: Mapping[str, nn.Module]) -> None:
    """Have the modules compute as torch has them."""
    for name, module in plain.items():
        swap(model, name, module)
    for module in model.modules():
        if isinstance(module, LoRALinear | TernaryLinear):
            module.gradient_sums = None


def computes(linear: nn.Module) -> bool:
    """Whether `outputs` computes this linear."""
    return type(linear) is SummingLinear


def outputs(x: Tensor, linears: Sequence[Any], columns: bool = False) -> tuple[Tensor, ...]:
    """x Wᵀ + bias (T, out) of each linear that it `computes`, for x (T, in). With `columns` they may be columns of one
    matrix, made by one product where the weights are rows of one."""
    weights, biases = [linear.weight for linear in linears], [linear.bias for linear in linears]
    totals = [linear.gradient_sums.of(weight) for linear, weight in zip(linears, weights)]
    results: tuple[Tensor, ...] = _Linears.apply(x, totals, columns, *weights, *biases)
    return results


class _Linears(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, totals: list[Tensor | None], columns: bool, *weights_and_biases: Any
    ) -> tuple[Tensor, ...]:
        weights, biases = weights_and_biases[: len(totals)], weights_and_biases[len(totals) :]
        ctx.save_for_backward(x if any(ctx.needs_input_grad[3:]) else None, *weights)
        ctx.totals = totals
        added = [id(total) for total in totals if total is not None]
        ctx.native = multiplies(x, weights) and len({*added}) == len(added)  # threads add to one at a time
        if ctx.native:
            outs = _empty_outs(x, [len(weight) for weight in weights], columns)
            write_products(x, weights, biases, outs)
            return outs
        if columns and biases == (None,) * len(totals) and (whole := _whole(weights, 0)) is not None:
            parts = _product(x, whole, None).split([len(weight) for weight in weights], 1)
            return tuple(part.data for part in parts)  # no views, of which autograd would follow the changes
        return tuple(_product(x, weight, bias) for weight, bias in zip(weights, biases))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, *weights = ctx.saved_tensors
        count, wanted, grad_x = len(grads), ctx.needs_input_grad[3:], None
        biases = [grad.sum(0) if own else None for grad, own in zip(grads, wanted[count:])]
        if ctx.native:
            shape = (len(grads[0]), weights[0].shape[1])
            grad_x = empty(shape, grads[0].dtype) if ctx.needs_input_grad[0] else None
            lines: Any = grad_x if x is None else x  # where no weight trains only its shape counts
            totals = [total if own else None for total, own in zip(ctx.totals, wanted)]
            product_gradients(lines, weights, grads, grad_x, totals)
            return grad_x, None, None, *[None] * count, *biases
        parts = [*zip(grads, weights, ctx.totals, wanted)]
        whole: Any = [_whole(grads, 1), _whole(weights, 0), _whole(ctx.totals, 0)]
        if len({*wanted[:count]}) == 1 and all(matrix is not None for matrix in whole):
            parts = [(*whole, wanted[0])]
        if ctx.needs_input_grad[0]:
            grad, weight, *_ = parts[0]
            grad_x = torch.mm(grad, weight, out=empty((len(grad), weight.shape[1]), grad.dtype))
            for grad, weight, *_ in parts[1:]:
                grad_x.addmm_(grad, weight)
        for grad, _, total, own in parts:
            if own:
                add_weight_gradient(total, grad, x)
        return grad_x, None, None, *[None] * count, *biases


def _empty_outs(x: Tensor, widths: Sequence[int], columns: bool) -> tuple[Tensor, ...]:
    """Results (T, width) that are still to be written; `columns`: of one matrix."""
    if not columns:
        return tuple(empty((len(x), width), x.dtype) for width in widths)
    parts = empty((len(x), sum(widths)), x.dtype).split(list(widths), 1)
    return tuple(part.data for part in parts)  # no views, of which autograd would follow the changes


def _whole(parts: Sequence[Tensor | None], dim: int) -> Tensor | None:
    """The matrix whose rows (dim 0) or columns (dim 1) are those of all parts, where all are given and their memory is
    that of one."""
    matrices = [part for part in parts if part is not None]
    if len(matrices) < len(parts):
        return None
    first = matrices[0]
    end = first.data_ptr()
    for part in matrices:
        if part.data_ptr() != end or part.stride() != first.stride() or part.shape[1 - dim] != first.shape[1 - dim]:
            return None
        end += part.shape[dim] * part.stride(dim) * part.itemsize
    if first.stride(1) != 1 or end > first.untyped_storage().data_ptr() + first.untyped_storage().nbytes():
        return None
    shape = [sum(part.shape[i] for part in matrices) if i == dim else first.shape[i] for i in (0, 1)]
    return first.as_strided(shape, first.stride())


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
