"""The functions of `layers.functions` and `layers.loss` by the C++ extension: one pass over memory each.

Each saves for backward what its twin in torch saves. Arithmetic is in float32 and results are rounded once. Kernels
take inputs detached: torch below 2.10 refuses to hand out one that requires a gradient.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from riyaz import native
from riyaz.layers.fast.memory import empty, empty_like


def runs(*tensors: Tensor) -> bool:
    """Whether the extension computes with these tensors: all float32 or all bfloat16, in memory of the CPU. Not in
    inference mode: so does the engine in torch, with which the one in C++ is compared."""
    dtype = tensors[0].dtype
    if dtype not in (torch.float32, torch.bfloat16) or torch.is_inference_mode_enabled() or not native.trains():
        return False
    return all(x.dtype == dtype and x.is_cpu for x in tensors)


class RMSNorm(Function):
    """x / sqrt(mean(x²) + eps) * weight, over the last dimension of x; the weight is float32 or bfloat16, whatever x
    is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x (…, C), weight (C,) -> (…, C)."""
        x, weight = x.contiguous(), weight.contiguous()
        out, scale = empty_like(x), torch.empty(x.shape[:-1].numel())  # 1 / rms of each row
        native.extension().norm(x.detach(), weight.detach(), eps, scale, out, torch.get_num_threads())
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """The gradients of x and, where it is wanted, of the weight."""
        x, weight, scale = ctx.saved_tensors
        grad_x, grad_weight = empty_like(x), torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        native.extension().norm_gradient(
            x.detach(), weight.detach(), scale, grads[0].contiguous(), grad_x, grad_weight, torch.get_num_threads()
        )
        return grad_x, grad_weight, None


class Rotate(Function):
    """The heads of q and k turned by the result of `functions.cos_sin`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """q (T, H, D), k (T, K, D), cos and sin (T, 1, D) -> (T, H, D), (T, K, D)."""
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(cos, sin)
        return _turn(q, cos, sin, back=False), _turn(k, cos, sin, back=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The gradients turned back."""
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, sin, back=True), _turn(grads[1], cos, sin, back=True), None, None


class Gate(Function):
    """activation(gate) * up, elementwise; the activation is `silu` or `gelu_tanh`."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
        """gate and up (T, F), which may be columns of one matrix -> (T, F)."""
        if gate.stride() != up.stride() or gate.stride(1) != 1:
            gate, up = gate.contiguous(), up.contiguous()
        out = empty(gate.shape, gate.dtype)
        native.extension().gate(gate.detach(), up.detach(), activation, out, torch.get_num_threads())
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients of both, columns of one matrix."""
        gate, up = ctx.saved_tensors
        T, F = gate.shape
        grad_gate, grad_up = empty((T, 2 * F), gate.dtype).split(F, 1)
        native.extension().gate_gradient(
            gate.detach(),
            up.detach(),
            grads[0].contiguous(),
            ctx.activation,
            grad_gate,
            grad_up,
            torch.get_num_threads(),
        )
        return grad_gate, grad_up, None


def softmax_loss(logits: Tensor, labels: Tensor, gradient: bool) -> float:
    """The sum of −log softmax(logits)[label] in nats, summed in float64; logits (N, V), labels (N,). With `gradient`
    it is written over the logits, otherwise they stay."""
    return float(native.extension().loss(logits, labels, gradient, torch.get_num_threads()))


def add(total: Tensor, x: Tensor, factor: float = 1.0) -> None:
    """total += factor · x in float32 without a copy of x in that type, which torch would make; of one shape."""
    if not runs(x) or total.dtype != torch.float32:
        total.add_(x, alpha=factor)
        return
    native.extension().add_scaled(total.view(-1), x.contiguous().view(-1), factor, torch.get_num_threads())


def multiplies(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether `write_products` and `product_gradients` take x (T, in) and weights (out, in): bfloat16 where
    `native.multiplies()`."""
    if x.dtype != torch.bfloat16 or not runs(x, *weights) or not native.multiplies():
        return False
    even = x.shape[1] > 0 and all(size % 2 == 0 for size in (x.shape[1], *map(len, weights)))
    return even and all(weight.is_contiguous() for weight in weights)


def write_products(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], outs: Sequence[Tensor]
) -> None:
    """Write x Wᵀ + bias of each weight into its `out` (T, out), whose lines are contiguous."""
    native.extension().dense(
        x.detach().contiguous(), [weight.detach() for weight in weights],
        [None if bias is None else bias.detach().contiguous() for bias in biases], outs, torch.get_num_threads(),
    )  # fmt: skip


def product_gradients(
    x: Tensor, weights: Sequence[Tensor], grads: Sequence[Tensor], grad_x: Tensor | None,
    totals: Sequence[Tensor | None],
) -> None:  # fmt: skip
    """From the gradients of `write_products` write that of x, and add those of weights to `totals`, float32."""
    native.extension().dense_gradient(
        x.detach().contiguous(), [weight.detach() for weight in weights], [lines(grad, 2) for grad in grads], grad_x,
        totals, torch.get_num_threads(),
    )  # fmt: skip


def lines(x: Tensor, multiple: int = 1) -> Tensor:
    """x (T, C) with contiguous lines, which need not follow each other, a multiple of numbers apart."""
    apart = x.stride(0) >= x.shape[1] and x.stride(0) % multiple == 0
    return x if x.stride(1) == 1 and apart else x.contiguous()


def add_weight_gradient(total: Tensor, grad: Tensor, x: Tensor) -> None:
    """Add the gradient of a weight (out, in) to its sum, from that of the output (T, out) and x (T, in)."""
    if x.dtype == total.dtype:
        total.addmm_(grad.T, x)
    else:
        add(total, torch.mm(grad.T, x, out=empty(total.shape, x.dtype)))


def ternary_codes(weight: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Weights (O, C) as codes −1, 0, +1, int8, and their scale (1, 1): the mean size, at least `least`."""
    codes = torch.empty(weight.shape, dtype=torch.int8)
    scale = native.extension().ternary_codes(weight.detach().contiguous(), codes, least, torch.get_num_threads())
    return codes, torch.tensor([[scale]])


def _turn(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    x = x.detach().contiguous()
    out = empty_like(x)
    native.extension().rotation(x, cos, sin, back, out, torch.get_num_threads())
    return out
