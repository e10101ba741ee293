"""A step of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) in one pass over memory.

Clipping, the step, the rounding to the compute type and the zeroing of gradients are four passes and more in torch, for
a model whose weights and moments no cache holds. The state is that of torch's optimiser, which is the slow twin.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from riyaz import native


def step(optimizer: torch.optim.AdamW, pairs: Iterable[tuple[Tensor, Tensor]], factor: float) -> None:
    """One step with the gradients times `factor`; they become 0, and the first tensor of each pair (working, master)
    the master rounded to its type."""
    pairs = list(pairs)
    if native.trains():
        rounded = {master: working for working, master in pairs if working.dtype == torch.bfloat16}
        for group in optimizer.param_groups:
            for master in group["params"]:
                _step(master, rounded.get(master), _state(optimizer, master), group, factor)
        return
    for _, master in pairs:
        assert master.grad is not None
        master.grad.mul_(factor)
    optimizer.step()
    publish(pairs)
    for _, master in pairs:
        assert master.grad is not None
        master.grad.zero_()


@torch.no_grad()
def publish(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy each master to its working tensor, rounded to its type; in float32 both have the same memory."""
    for working, master in pairs:
        if working.dtype != master.dtype:
            working.copy_(master)


def _state(optimizer: torch.optim.AdamW, master: Tensor) -> dict[str, Tensor]:
    """The moments and the number of steps, as torch keeps them."""
    state: dict[str, Tensor] = optimizer.state[master]
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(master), torch.zeros_like(master)
    return state


def _step(
    master: Tensor, rounded: Tensor | None, state: dict[str, Tensor], group: dict[str, Any], factor: float
) -> None:
    assert master.grad is not None
    state["step"] += 1
    taken, rate, (beta1, beta2) = state["step"].item(), group["lr"], group["betas"]
    numbers = (master.detach(), state["exp_avg"], state["exp_avg_sq"], master.grad)
    native.extension().adam(
        *(x.view(-1) for x in numbers), rounded.detach().view(-1) if rounded is not None else None, factor, beta1,
        beta2, 1 - rate * group["weight_decay"], rate / (1 - beta1**taken), math.sqrt(1 - beta2**taken), group["eps"],
        torch.get_num_threads(),
    )  # fmt: skip
