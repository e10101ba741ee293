"""What an optimiser keeps of the weights that train: their exact values, gradients and moments, and a step of AdamW.

In bf16 small steps would be rounded away, so each weight has 32 bits: the model computes with the upper 16, rounded,
and `low` holds what is missing. Both together are a float32, and neither is kept twice. Of the moments the mean
gradient is in bf16 too (as in DeepSeek-V3: 2024, arXiv 2412.19437, section 3.3.3), the mean square, which changes by a
thousandth, in float32. Gradients are summed in float32, in blocks that live as long as the run: memory that the system
hands out anew in each step costs more time than adding to it. A step is one pass over all of this in the C++ extension;
`_plain_step` is its slow twin. Where several processes train the model, each keeps `low` and the moments of its own
part of the weights only, and steps that (`layers.fast.group`).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from riyaz import native
from riyaz.layers.fast import in_place, memory
from riyaz.layers.fast.gradient_sums import GradientSums, expect_whole
from riyaz.ranks import ALONE, Ranks

EPS = 1e-8  # of AdamW's denominator
HALF = 1 << 15  # of what the lower 16 bits count
# numbers of a block at once: the sum of 10⁸ squares in float32 would be off by a hundredth, and each temporary result
# of `_plain_step` would be as large as the block
PIECE = 1 << 18


class Blocks(NamedTuple):
    """Of all weights (N,): what the model computes with and the sums of gradients; and what the optimiser keeps, of the
    weights (n,) that this process steps."""

    working: Tensor
    low: Tensor | None
    mean: Tensor
    square: Tensor
    grad: Tensor

    def part(self, at: slice) -> "Blocks":
        """The blocks of some of the weights."""
        low = None if self.low is None else self.low[at]
        return Blocks(self.working[at], low, self.mean[at], self.square[at], self.grad[at])


class Masters:
    """The trainable parameters of a model, from now on in its compute type, until `detach`. All weights lie in one
    block of memory, matrices first, and so do the `sums` of their gradients and each moment: a step is a pass over
    blocks. Raises RiyazError for a weight that is sharded."""

    def __init__(self, model: nn.Module, compute: torch.dtype, ranks: Ranks = ALONE) -> None:
        self.model, self.ranks = model, ranks
        self.working = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        expect_whole(self.working)
        self.decaying = sum(weight.numel() for weight in self.working.values() if weight.ndim > 1)
        self.size = N = sum(weight.numel() for weight in self.working.values())
        self.own = ranks.own_part(N)  # of the weights, what this process steps
        working = torch.empty(N, dtype=compute)
        low = None if compute == torch.float32 else torch.empty(N, dtype=torch.int16)
        lower = {} if low is None else self.parts(low)
        for name, part in self.parts(working).items():
            _move(self.working[name], part, lower.get(name))
        low, lower = ranks.kept(low), {}
        memory.trim()  # the old weights are freed before zeros take their place
        n = self.own.stop - self.own.start
        self.blocks = Blocks(working, low, torch.zeros(n, dtype=compute), torch.zeros(n), torch.zeros(N))
        sums = self.parts(self.blocks.grad)
        self.sums = GradientSums({weight: sums[name] for name, weight in self.working.items()})
        self.plain = in_place.attach(model, self.sums)

    def _order(self) -> list[str]:
        """The names of the weights in the order in which they lie in a block."""
        return sorted(self.working, key=lambda name: self.working[name].ndim < 2)

    def parts(self, block: Tensor) -> dict[str, Tensor]:
        """The part of a block that belongs to each weight."""
        order = self._order()
        parts = dict(zip(order, block.split([self.working[name].numel() for name in order])))
        return {name: parts[name].view(weight.shape) for name, weight in self.working.items()}

    def block(self, tensors: Mapping[str, Tensor], suffix: str) -> Tensor:
        """A block of the tensors with the suffix, a copy of them."""
        return torch.cat([tensors[f"{name}.{suffix}"].flatten() for name in self._order()])

    def weights(self) -> dict[str, Tensor]:
        """The weights as a checkpoint keeps them: `name`, and `name.low` of one in bf16. Of several processes the first
        one has them, and the others their shapes."""
        low = self.blocks.low
        lower = {} if low is None else self.parts(self.ranks.gathered(low, self.size))
        return {name: weight.data for name, weight in self.working.items()} | suffixed(lower, "low")

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments as a checkpoint keeps them; of several processes as `weights`."""
        mean, square = (self.parts(self.ranks.gathered(own, self.size)) for own in self.blocks[2:4])
        return suffixed(mean, "exp_avg") | suffixed(square, "exp_avg_sq")

    def take(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """Where there are several processes, take what a checkpoint has put into the `weights` and `moments` of the
        first one."""
        if self.ranks.count == 1:  # these are views of the blocks
            return
        self.ranks.copied(self.blocks.working)
        kept = (("low", weights), ("exp_avg", moments), ("exp_avg_sq", moments))
        for (suffix, tensors), own in zip(kept, self.blocks[1:4]):
            if own is not None:
                self.ranks.scattered(self.block(tensors, suffix), own)

    def add_up(self) -> None:
        """Add up the gradients of all processes, in the part that each one steps."""
        self.ranks.add_up(self.blocks.grad)

    def total(self, number: float) -> float:
        """The sum of a number over the processes that step together."""
        return self.ranks.total(number)

    def norm(self) -> float:
        """The norm of all gradients together."""
        parts = torch._foreach_norm(self.blocks.grad[self.own].split(PIECE))
        return self.ranks.whole_norm(torch.stack(parts).double().norm().item())

    def agree(self) -> None:
        """Where processes step alone, go on with common weights (`layers.fast.local_masters`)."""

    def bits(self) -> int:
        """The sum of the bits of all weights in the model, as whole numbers: equal for equal weights."""
        working = self.blocks.working
        return int(working.view(torch.int32 if working.itemsize == 4 else torch.int16).sum())

    @torch.no_grad()
    def step(self, number: int, rate: float, betas: tuple[float, float], decay: float, factor: float) -> None:
        """Step `number`, from 1, of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) with the gradients
        times `factor`, which become 0. Matrices decay by rate × `decay`, norms and biases do not."""
        compute = _native_step if native.trains() else _plain_step
        size, root = rate / (1 - betas[0] ** number), math.sqrt(1 - betas[1] ** number)
        working, grad = self.blocks.working, self.blocks.grad
        own = self.blocks._replace(working=working[self.own], grad=grad[self.own])
        end = min(max(self.decaying - self.own.start, 0), len(own.square))
        for part, keep in ((slice(end), 1 - rate * decay), (slice(end, None), 1.0)):
            compute(own.part(part), factor, *betas, keep, size, root)
        for rest in (grad[: self.own.start], grad[self.own.stop :]):
            rest.zero_()  # of the weights that other processes step
        self.ranks.spread(working)

    def rest(self) -> None:
        """Free gradients and moments; the model computes as torch has it, in every process with the same weights."""
        in_place.detach(self.model, self.plain)
        self.sums.close()
        self.plain = {}
        self.blocks = self.blocks._replace(mean=torch.empty(0), square=torch.empty(0), grad=torch.empty(0))
        self.blocks = self.blocks._replace(low=self.ranks.whole(self.blocks.low, self.size))
        self.ranks = ALONE  # from now on nothing is shared

    def copy_first(self, ranks: Ranks) -> None:
        """After `rest`: copy the weights of the first process to the others."""
        for block in self.blocks[:2]:
            if block is not None:
                ranks.copied(block)

    def detach(self) -> None:
        """Leave the exact weights in the model, in float32."""
        self.rest()
        low = self.blocks.low
        lower = {} if low is None else self.parts(low)
        for name, weight in self.working.items():
            weight.data = join(weight.data, lower[name]) if lower else weight.data.clone()
        self.blocks = self.blocks._replace(working=torch.empty(0), low=None)


def _move(weight: Tensor, working: Tensor, low: Tensor | None) -> None:
    """Have a weight compute in `working`, with what that lacks of 32 bits in `low`."""
    exact = weight.detach().float().contiguous()
    if low is not None:
        exact, rest = split(exact)
        low.copy_(rest)
    weight.data = working.copy_(exact)


def split(exact: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 numbers as (bfloat16, the difference of their bits int16); a number between two is rounded up."""
    bits = exact.view(torch.int32)
    upper = bits.add(HALF).bitwise_right_shift_(16)
    low = (bits - (upper << 16)).to(torch.int16)
    return upper.to(torch.int16).view(torch.bfloat16), low


def join(working: Tensor, low: Tensor) -> Tensor:
    """The inverse of `split`."""
    return (working.view(torch.int16).to(torch.int32) << 16).add_(low).view(torch.float32)


def suffixed(tensors: Mapping[str, Tensor], suffix: str) -> dict[str, Tensor]:
    """The tensors, each name with the suffix."""
    return {f"{name}.{suffix}": tensor for name, tensor in tensors.items()}


def _plain_step(
    blocks: Blocks, factor: float, beta1: float, beta2: float, keep: float, size: float, root: float
) -> None:
    for start in range(0, len(blocks.working), PIECE):
        working, low, mean, square, grad = blocks.part(slice(start, start + PIECE))
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
    blocks: Blocks, factor: float, beta1: float, beta2: float, keep: float, size: float, root: float
) -> None:
    working, low, mean, square, grad = blocks
    threads = torch.get_num_threads()
    native.extension().adam(working, mean, square, grad, low, factor, beta1, beta2, keep, size, root, EPS, threads)
