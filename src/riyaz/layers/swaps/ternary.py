"""Linears with weights −1, 0 and +1 (BitNet b1.58: Ma et al. 2024, arXiv 2402.17764), trained and frozen.

`apply` puts a TernaryLinear in the place of every linear of a model but its head, as `lora.apply` puts adapters: any
family trains ternary. Its float weights are masters, rounded in every forward; gradients pass the rounding as if it
were not there (straight-through: Bengio et al. 2013, arXiv 1308.3432). FrozenTernaryLinear has codes and scales only.
Both compute what `sources.ternary` defines, with the exact sums of integers that the C++ engine has: train = serve.

Legend: T tokens, C columns (inputs), O rows (outputs), G groups of columns with one scale.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from riyaz.layers.fast import native_functions
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.swaps.swap import linears, swap
from riyaz.sources.ternary import LEAST, LEVELS, Ternary

HEAD = "lm_head"


def ternary_codes(weight: Tensor, group: int | None = None) -> tuple[Tensor, Tensor]:
    """Weights (O, C) as (codes int8 (O, C), scales float32 (1, 1)), or scales (O, G) with one for each `group` columns:
    codes = round(weight / mean |weight|), at most 1 in size."""
    if group is None and native_functions.runs(weight):
        return native_functions.ternary_codes(weight, LEAST)
    scales = _absolute_means(weight, group)
    inverse = _expanded(1 / scales, group, weight.shape[1])
    return (weight.float() * inverse).round_().clamp_(-1, 1).to(torch.int8), scales


def activation_codes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs (…, C) as (codes int8 (…, C), scales float32 (…, 1)): the largest input of a token has the code ±127."""
    largest = x.abs().amax(-1, keepdim=True).float().clamp_(min=LEAST)
    return (x * (LEVELS / largest)).round_().to(torch.int8), largest / LEVELS


def ternary_product(q: Tensor, codes: Tensor, scales: Tensor, group: int | None) -> Tensor:
    """Σ_g scales[o, g] · float(Σ_{c in g} codes[o, c] q[t, c]), float32 (T, O); q int8 (T, C), codes int8 (O, C)."""
    if group is None:
        return _sums(q, codes).mul_(scales.view(()))
    out = q.new_zeros((len(q), len(codes)), dtype=torch.float32)
    for g, begin in enumerate(range(0, q.shape[1], group)):
        part = slice(begin, begin + group)
        out += _sums(q[:, part].contiguous(), codes[:, part].contiguous()).mul_(scales[:, g])
    return out


def _sums(q: Tensor, codes: Tensor) -> Tensor:
    """Σ_c codes[o, c] q[t, c], exact in int32, as float32 (T, O)."""
    return torch._int_mm(q, codes.T).float()


def _absolute_means(weight: Tensor, group: int | None) -> Tensor:
    """The mean absolute weights, at least LEAST, float32: (1, 1), or (O, G). As in `sources.ternary`."""
    if group is None:
        total = torch.linalg.vector_norm(weight, 1, dtype=torch.float64).view(1, 1)
        means = total / weight.numel()
    else:
        pieces = weight.split(group, 1)
        means = torch.stack([piece.abs().mean(1, dtype=torch.float64) for piece in pieces], 1)
    return means.float().clamp_(min=LEAST)


def _expanded(scales: Tensor, group: int | None, cols: int) -> Tensor:
    """Scales as they multiply weights: (1, 1) stays, (O, G) becomes (O, cols)."""
    return scales if group is None else scales.repeat_interleave(group, 1)[:, :cols]


class _TernaryProduct(Function):
    """y = product of codes + bias, with the gradient of x_q W_qᵀ: codes are saved for backward, one byte each."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        codes: Tensor,
        scales: Tensor,
        bias: Tensor | None,
        group: int | None,
        total: Tensor | None,
    ) -> Tensor:
        q, step = activation_codes(x)
        out = ternary_product(q, codes, scales, group).mul_(step).to(x.dtype)
        ctx.save_for_backward(q, step, codes, scales)
        ctx.group, ctx.dtype, ctx.total = group, None if weight is None else weight.dtype, total
        return out if bias is None else out.add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        q, step, codes, scales = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ _weights(codes, scales, ctx.group, grad.dtype)
        if ctx.needs_input_grad[1]:
            scaled, inputs = grad * step.to(grad.dtype), q.to(grad.dtype)
            if ctx.total is None:
                grad_weight = (scaled.T @ inputs).to(ctx.dtype)
            else:
                native_functions.add_weight_gradient(ctx.total, scaled, inputs)
        if ctx.needs_input_grad[4]:
            grad_bias = grad.sum(0)
        return grad_x, grad_weight, None, None, grad_bias, None, None


def _weights(codes: Tensor, scales: Tensor, group: int | None, dtype: torch.dtype) -> Tensor:
    """codes · scales (O, C) in `dtype`."""
    return codes.to(dtype) * _expanded(scales, group, codes.shape[1]).to(dtype)


class TernaryLinear(nn.Module):
    """A linear whose float weights are rounded to ternary ones, and whose inputs to 8 bits, in every forward.

    In training `share` below 1 rounds only in part: w + share · (round(w) − w), as inputs; a model that was trained in
    full precision is led to ternary weights by raising it (1.58-bit fine-tuning: Mekkouri et al. 2024)."""

    gradient_sums: GradientSums | None = None  # to which training adds the gradient of the weight: `in_place.attach`

    def __init__(self, linear: nn.Linear, group: int | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.weight, self.bias = linear.weight, linear.bias
        self.group, self.share = group, 1.0

    def forward(self, x: Tensor) -> Tensor:
        """x (T, C) -> (T, O)."""
        with torch.no_grad():
            codes, scales = ternary_codes(self.weight, self.group)
        if self.share == 1 or not self.training:
            total = None if self.gradient_sums is None else self.gradient_sums.of(self.weight)
            return _TernaryProduct.apply(x, self.weight, codes, scales, self.bias, self.group, total)
        with torch.no_grad():
            q, step = activation_codes(x)
            moved = (q * step).to(x.dtype).sub_(x).mul_(self.share)
            rounding = _weights(codes, scales, self.group, self.weight.dtype).sub_(self.weight).mul_(self.share)
        return nn.functional.linear(x + moved, self.weight + rounding, self.bias)

    def frozen(self) -> "FrozenTernaryLinear":
        """The same linear without masters."""
        codes, scales = ternary_codes(self.weight.detach(), self.group)
        return FrozenTernaryLinear(codes, scales, self.group, self.bias)


class FrozenTernaryLinear(nn.Module):
    """A ternary linear of codes and scales, which only an adapter beside it can change. They are no buffers, so that a
    change of the model's number type leaves them as they are."""

    def __init__(self, codes: Tensor, scales: Tensor, group: int | None = None, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = codes.shape
        self.codes, self.scales, self.group = codes, scales, group
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weights (O, C) in float32, in new memory."""
        return _weights(self.codes, self.scales, self.group, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """x (T, C) -> (T, O)."""
        return _TernaryProduct.apply(x, None, self.codes, self.scales, self.bias, self.group, None)


KINDS = (TernaryLinear, FrozenTernaryLinear)


def apply(model: nn.Module, group: int | None = None) -> None:
    """Make every linear of the model ternary but its head; each keeps its weight as master."""
    for name, linear in linears(model, None):
        if name != HEAD:
            assert isinstance(linear, nn.Linear)
            swap(model, name, TernaryLinear(linear, group))


def put_ternary(model: nn.Module, matrices: Mapping[str, Ternary]) -> None:
    """Replace the linears at these paths by frozen ternary ones; biases stay."""
    for name, matrix in matrices.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        codes, scales = torch.from_numpy(matrix.codes), torch.from_numpy(matrix.scales)
        frozen = FrozenTernaryLinear(codes, scales, matrix.group)
        frozen.bias = linear.bias  # on the meta device until the model is filled
        swap(model, name, frozen)


def freeze(model: nn.Module) -> None:
    """Replace the ternary linears by frozen ones, which round no weights in a forward."""
    for name, module in list(model.named_modules()):
        if isinstance(module, TernaryLinear):
            swap(model, name, module.frozen())


def set_share(model: nn.Module, share: float) -> None:
    """Set how far the model's ternary linears round in training."""
    for module in model.modules():
        if isinstance(module, TernaryLinear):
            module.share = share
