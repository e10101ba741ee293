"""What an optimiser keeps of the weights that train: their exact values, gradients and moments, and a step of AdamW.

In bf16 small steps would be rounded away, so each weight has 32 bits: the model computes with the upper 16, rounded,
and `low` holds what is missing. Both together are a float32, and neither is kept twice. Of the moments the mean
gradient is in bf16 too (as in DeepSeek-V3: 2024, arXiv 2412.19437, section 3.3.3), the mean square, which changes by a
thousandth, in float32. Gradients are summed in float32, in blocks that live as long as the run: memory that the system
hands out anew in each step costs more time than adding to it. A step is one pass over all of this in the C++ extension;
`_plain_step` is its slow twin.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from riyaz import native
from riyaz.layers.in_place import give_back, take_over
from riyaz.layers.native_functions import add

EPS = 1e-8  # of AdamW's denominator
HALF = 1 << 15  # of what the lower 16 bits count


class Masters:
    """The trainable parameters of a model, from now on in its compute type, until `detach`."""

    def __init__(self, model: nn.Module, compute: torch.dtype) -> None:
        self.working = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.low: dict[str, Tensor] = {}  # of weights in bf16
        for name, weight in self.working.items():
            exact = weight.detach().float().contiguous()
            if compute == torch.float32:
                weight.data = exact
            else:
                weight.data, self.low[name] = split(exact)
        self.grad, self.square = self._zeros(torch.float32), self._zeros(torch.float32)
        self.mean = self._zeros(compute)
        self.hooks = [
            weight.register_post_accumulate_grad_hook(_add_to(self.grad[name])) for name, weight in self.working.items()
        ]
        self.taken = take_over(model, {weight: self.grad[name] for name, weight in self.working.items()})

    def _zeros(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Zeros for each weight, parts of one block."""
        block = torch.zeros(sum(weight.numel() for weight in self.working.values()), dtype=dtype)
        parts = block.split([weight.numel() for weight in self.working.values()])
        return {name: part.view(weight.shape) for (name, weight), part in zip(self.working.items(), parts, strict=True)}

    def weights(self) -> dict[str, Tensor]:
        """The weights as a checkpoint keeps them: `name`, and `name.low` of one in bf16."""
        return {name: weight.data for name, weight in self.working.items()} | _suffixed(self.low, "low")

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments as a checkpoint keeps them."""
        return _suffixed(self.mean, "exp_avg") | _suffixed(self.square, "exp_avg_sq")

    def norm(self) -> float:
        """The norm of all gradients together."""
        return torch.nn.utils.get_total_norm(list(self.grad.values()), foreach=True).item()

    @torch.no_grad()
    def step(self, number: int, rate: float, betas: tuple[float, float], decay: float, factor: float) -> None:
        """Step `number`, from 1, of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) with the gradients
        times `factor`, which become 0. Matrices decay by rate × `decay`, norms and biases do not."""
        compute = _native_step if native.trains() else _plain_step
        size, root = rate / (1 - betas[0] ** number), math.sqrt(1 - betas[1] ** number)
        for name, weight in self.working.items():
            tensors = (weight.data, self.low.get(name), self.mean[name], self.square[name], self.grad[name])
            compute(*tensors, factor, *betas, 1 - rate * decay * (weight.ndim > 1), size, root)

    def rest(self) -> None:
        """Free gradients and moments; the model computes as torch has it."""
        give_back(self.taken)
        for hook in self.hooks:
            hook.remove()
        self.taken, self.hooks = [], []
        self.grad, self.mean, self.square = {}, {}, {}

    def detach(self) -> None:
        """Leave the exact weights in the model, in float32."""
        self.rest()
        for name, low in self.low.items():
            self.working[name].data = join(self.working[name].data, low)


def split(exact: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 numbers as (bfloat16, the difference of their bits int16); a number between two is rounded up."""
    bits = exact.view(torch.int32)
    upper = bits.add(HALF).bitwise_right_shift_(16)
    low = (bits - (upper << 16)).to(torch.int16)
    return upper.to(torch.int16).view(torch.bfloat16), low


def join(working: Tensor, low: Tensor) -> Tensor:
    """The inverse of `split`."""
    return (working.view(torch.int16).to(torch.int32) << 16).add_(low).view(torch.float32)


def _suffixed(tensors: Mapping[str, Tensor], suffix: str) -> dict[str, Tensor]:
    return {f"{name}.{suffix}": tensor for name, tensor in tensors.items()}


def _plain_step(
    working: Tensor, low: Tensor | None, mean: Tensor, square: Tensor, grad: Tensor,
    factor: float, beta1: float, beta2: float, keep: float, size: float, root: float,
) -> None:  # fmt: skip
    grad.mul_(factor)
    moved = mean.float().lerp_(grad, 1 - beta1)
    mean.copy_(moved)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    weight = working if low is None else join(working, low)
    weight.mul_(keep).addcdiv_(moved, square.sqrt().div_(root).add_(EPS), value=-size)
    if low is not None:
        for mine, new in zip((working, low), split(weight), strict=True):
            mine.copy_(new)
    grad.zero_()


def _native_step(
    working: Tensor, low: Tensor | None, mean: Tensor, square: Tensor, grad: Tensor,
    factor: float, beta1: float, beta2: float, keep: float, size: float, root: float,
) -> None:  # fmt: skip
    flat = (x.view(-1) for x in (working, mean, square, grad))
    lower = None if low is None else low.view(-1)
    native.extension().adam(*flat, lower, factor, beta1, beta2, keep, size, root, EPS, torch.get_num_threads())


def _add_to(total: Tensor) -> Callable[[Tensor], None]:
    """A hook that adds a parameter's gradient to a float32 sum."""

    def hook(working: Tensor) -> None:
        if working.grad is not None:  # otherwise `take_over` has seen to it
            add(total, working.grad)
            working.grad = None

    return hook
