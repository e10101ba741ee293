"""The float32 sums of the gradients of the weights that train: one object that says to which sum a gradient is added.

`Masters` makes it, and reads and zeroes the sums in each step of the optimiser. In a backward pass a layer that holds
it adds the gradients of its own weights in place (`in_place.attach`), a loss that is given it those of the head, and a
hook the gradient that autograd has made of any other weight.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from riyaz.errors import RiyazError
from riyaz.layers.fast.native_functions import add


class GradientSums:
    """The sum of the gradients of each weight, float32 and of the weight's shape."""

    def __init__(self, sums: Mapping[nn.Parameter, Tensor]) -> None:
        self._sums = dict(sums)
        self._hooks = [weight.register_post_accumulate_grad_hook(_add_to(total)) for weight, total in sums.items()]

    def of(self, weight: Tensor) -> Tensor | None:
        """The sum of a weight; None of a frozen one. Raises RiyazError for one that trains and was put in the place of
        another, whose gradient the optimiser would never see."""
        total = self._sums.get(weight)  # type: ignore[call-overload]
        if total is None and weight.requires_grad:
            what = f"a weight of the shape {tuple(weight.shape)} has replaced the one that the optimiser steps"
            raise RiyazError(what, hint="do not shard a model (fully_shard) that is in training")
        return total

    def __contains__(self, weight: object) -> bool:
        """Whether the weight has a sum."""
        return weight in self._sums

    def close(self) -> None:
        """Leave gradients to autograd again; layers forget their sums by `in_place.detach`."""
        for hook in self._hooks:
            hook.remove()


def expect_whole(weights: Mapping[str, Tensor]) -> None:
    """Raises RiyazError for a weight whose numbers are not in this tensor, such as a DTensor, which holds a shard: the
    gradients that layers add in place would be those of this process alone."""
    for name, weight in weights.items():
        if type(weight.data) is not Tensor:
            what = f"a {type(weight.data).__name__} cannot be trained: its gradients are never summed over processes"
            raise RiyazError(what, name, "train the model before fully_shard or distribute_tensor")


def _add_to(total: Tensor) -> Callable[[Tensor], None]:
    """A hook that adds a parameter's gradient to its sum."""

    def hook(weight: Tensor) -> None:
        if weight.grad is not None:  # otherwise the weight's layer has added it
            add(total, weight.grad)
            weight.grad = None

    return hook
