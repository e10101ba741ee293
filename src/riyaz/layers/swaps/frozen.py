"""Linears of a frozen base in codes of 8 bits, for training something beside them.

Half of LoRA's and most of prompt tuning's time goes into products with weights that never change, forward and backward.
With weights, inputs and gradients as codes of 8 bits (LLM.int8: Dettmers et al. 2022, arXiv 2208.07339, with one scale
in 64 columns instead of one a row) a CPU with VNNI computes them two to three times as fast as in float32. The served
base has codes of 8 bits or fewer too. The effect on the loss is in docs/log.md.
"""

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from riyaz import native
from riyaz.errors import RiyazError
from riyaz.layers.fast import memory
from riyaz.layers.swaps.swap import linears, swap

VARIABLE = "RIYAZ_FROZEN"
NUMBERS = 2**24  # weights that are copied at once to be encoded: 64 MB; a head of 262,144 rows has ten times as many


class FrozenLinear(nn.Module):
    """A frozen linear as two int8 matrices of the C++ extension: W for the forward and Wᵀ for the backward pass. Of
    `weight` (out, in), where the linear has none yet."""

    def __init__(self, linear: nn.Linear, weight: Tensor | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias  # (out,), frozen, or None
        weight = linear.weight.detach() if weight is None else weight
        self.down, self.up = _codes(weight), _codes(weight.T)

    def forward(self, x: Tensor) -> Tensor:
        """x (T, in) -> (T, out)."""
        return _CodesProduct.apply(x, self)

    def multiply(self, x: Tensor) -> Tensor:
        """x Wᵀ + bias for x (T, in), without a graph."""
        out = _times(self.down, x, self.out_features)
        return out if self.bias is None else out.add_(self.bias)

    def gradient(self, grad: Tensor) -> Tensor:
        """The gradient of x (T, in) from that of the output (T, out)."""
        return _times(self.up, grad, self.in_features)


class _CodesProduct(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: FrozenLinear) -> Tensor:
        ctx.linear = linear
        return linear.multiply(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.linear.gradient(grads[0]), None


def encode(model: nn.Module) -> None:
    """Replace the linears of a frozen model, the head too, by FrozenLinears, where `is_int8()`. Their weights are freed
    one after the other, but those of an embedding. A LoRA that is trained beside them belongs to the base as it is:
    `riyaz merge` adds it to the exact weights."""
    if not is_int8():
        return
    for name in [name for name, _ in linears(model, None)]:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        swap(model, name, FrozenLinear(linear))


def put_frozen(model: nn.Module, name: str, weight: Tensor) -> None:
    """Replace the linear of a model without weights, at this path, by a FrozenLinear of `weight` (out, in)."""
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    swap(model, name, FrozenLinear(linear, weight))


def is_plain(module: nn.Module) -> bool:
    """Whether `encode` replaces this module."""
    return type(module) is nn.Linear


def is_int8() -> bool:
    """Whether frozen linears are encoded: with AVX-512 and without AMX's tiles, where products of codes were measured
    to be faster than those of floats, unless `RIYAZ_FROZEN` is exact; with every instruction set if it is int8. Raises
    RiyazError for another value."""
    setting = os.environ.get(VARIABLE, "")
    if setting not in ("", "exact", "int8"):
        raise RiyazError(f"{VARIABLE} is {setting!r}", hint="set it to exact or int8, or leave it out")
    return setting != "exact" and native.trains() and (setting == "int8" or native.isa().startswith("avx512"))


def is_coded(model: nn.Module) -> bool:
    """Whether any linear of the model is a FrozenLinear."""
    return any(isinstance(module, FrozenLinear) for module in model.modules())


def trainer(model: nn.Module) -> str:
    """What computes when this model trains: `native.trainer()`, and whether its frozen linears are codes."""
    return native.trainer() + (" with the frozen base in int8" if is_coded(model) else "")


def _codes(weight: Tensor) -> Any:
    """A matrix (rows, cols) in codes of 8 bits."""
    matrix, threads = native.extension().FrozenCodes(*weight.shape), torch.get_num_threads()
    rows = max(1, NUMBERS // weight.shape[1])
    for first in range(0, len(weight), rows):
        if not matrix.fill(first, weight[first : first + rows].float().contiguous(), threads):
            raise RiyazError("a weight of the base is not a finite number", hint="take another model")
    return matrix


def _times(matrix: Any, x: Tensor, width: int) -> Tensor:
    """The products (T, width) of x (T, cols) and a matrix of codes."""
    x = x.detach().contiguous()
    out = memory.empty((len(x), width), x.dtype)
    native.extension().code_product(matrix, x, out, torch.get_num_threads())
    return out


def base_output(linear: Any, x: Tensor) -> Tensor:
    """x Wᵀ + bias (T, out) of a plain linear or one in codes, for x (T, in), inside a Function."""
    return linear.multiply(x) if isinstance(linear, FrozenLinear) else F.linear(x, linear.weight, linear.bias)


def input_gradient(linear: Any, grad: Tensor) -> Tensor:
    """The gradient of x (T, in) from that of `base_output` (T, out), inside a Function."""
    return linear.gradient(grad) if isinstance(linear, FrozenLinear) else grad @ linear.weight


def add_input_gradient(total: Tensor, linear: Any, grad: Tensor) -> None:
    """Add `input_gradient` to `total` (T, in)."""
    if isinstance(linear, FrozenLinear):
        total += linear.gradient(grad)
    else:
        total.addmm_(grad, linear.weight)
