"""Norm, rotation and gate with hand-written gradients: fewer passes over memory, fewer saved tensors.

On a CPU these are bound by memory. Autograd would save every intermediate result; these save only their inputs and
compute the rest again. Each runs in the C++ extension where that is there and takes the tensors' types, otherwise in
torch (`RIYAZ_NATIVE=0`). Tests compare both with the plain forms in `tests/helpers/plain_layers.py`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from riyaz.layers.fast import native_functions
from riyaz.layers.fast.recompute import recomputable


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.rsqrt(scale.square_() / x.shape[-1] + eps).to(x.dtype)  # (T, 1)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (grad,) = grads
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        grad_weight = (grad * normed).sum(0, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad = grad * weight
        mean = torch.linalg.vecdot(grad.float(), normed.float()).div_(x.shape[-1]).to(x.dtype)  # (T,)
        grad_x = grad.addcmul_(normed, mean[:, None], value=-1).mul_(scale)
        return grad_x, None if grad_weight is None else grad_weight.to(weight.dtype), None


class _Rotate(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        return _turn(q, cos, sin, 1), _turn(k, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, sin, -1), _turn(grads[1], cos, sin, -1), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin, value=sign)  # roll swaps the two halves


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        gate, up = ctx.saved_tensors
        grad_up = F.silu(gate).mul_(grad)
        grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, grad_up


class _GeGLU(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.gelu(gate, approximate="tanh").mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        gate, up = ctx.saved_tensors
        grad_up = F.gelu(gate, approximate="tanh").mul_(grad)
        grad_gate = torch.ops.aten.gelu_backward(grad * up, gate, approximate="tanh")
        return grad_gate, grad_up


class _ReLU2(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return gate.relu().square_().mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grads
        gate, up = ctx.saved_tensors
        positive = gate.relu()
        grad_gate = (positive * 2).mul_(up).mul_(grad)
        return grad_gate, positive.square_().mul_(grad)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight, the mean in float32; x (T, C), weight (C,)."""
    is_native = native_functions.runs(x) and weight.dtype in (torch.float32, torch.bfloat16)
    function = native_functions.RMSNorm if is_native else _RMSNorm
    return recomputable(function, x, weight, eps)


def cos_sin(angle: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, 1, D) of the angles (T, D/2), repeated for both halves of a head and negative in the sines
    of the first, as `rotate` takes them."""
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    return torch.cat((cos, cos), 1)[:, None], torch.cat((-sin, sin), 1)[:, None]


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate the halves of each head of q (T, H, D) and k (T, K, D) by the result of `cos_sin`, in Hugging Face's
    layout; the gradient is the rotation by the negative angles, so neither is saved."""
    function = native_functions.Rotate if native_functions.runs(q, k, cos, sin) else _Rotate
    rotated: tuple[Tensor, Tensor] = function.apply(q, k, cos, sin)
    return rotated


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, elementwise; gate and up (T, F)."""
    if native_functions.runs(gate, up):
        return recomputable(native_functions.Gate, gate, up, "silu")
    return recomputable(_SwiGLU, gate, up)


def geglu(gate: Tensor, up: Tensor) -> Tensor:
    """gelu(gate) * up, elementwise, with the tanh approximation of GELU; gate and up (T, F)."""
    if native_functions.runs(gate, up):
        return recomputable(native_functions.Gate, gate, up, "gelu_tanh")
    return recomputable(_GeGLU, gate, up)


def relu2(gate: Tensor, up: Tensor) -> Tensor:
    """relu(gate)² * up, elementwise; gate and up (T, F)."""
    return recomputable(_ReLU2, gate, up)
