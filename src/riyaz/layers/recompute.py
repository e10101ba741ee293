"""Results of norms and gates that backward computes again instead of keeping them from forward on.

A linear that trains, or has a LoRA, needs its input in backward. The inputs after norms and gates follow from tensors
that are kept anyway, by one pass over memory: about a third of a decoder's activations for one per cent of a step's
time. Unlike checkpoints of whole blocks (Chen et al. 2016, arXiv 1604.06174) no matrix product is repeated.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class _Recipe:
    """How a result is computed again. Tensors that several linears share are computed once for all of them: backward
    comes to those linears one after the other, so that keeping the last result is enough."""

    last: "tuple[_Recipe, Tensor] | None" = None

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self.compute = compute

    def result(self) -> Tensor:
        if _Recipe.last is None or _Recipe.last[0] is not self:
            _Recipe.last = None  # freed before the next is made
            with torch.no_grad():
                _Recipe.last = (self, self.compute())
        return _Recipe.last[1]


def recomputable(function: Any, *inputs: Any) -> Tensor:
    """`function.apply(*inputs)`, which backward may compute again inside `recomputing`; the function keeps its inputs
    for its own gradient and gives the same bits each time."""
    out: Tensor = function.apply(*inputs)
    if torch.is_grad_enabled():
        kept = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
        out._recipe = _Recipe(lambda: function.apply(*kept))  # type: ignore[attr-defined]
    return out


@contextmanager
def recomputing() -> Iterator[None]:
    """Inside the `with` block graphs keep recipes in place of the results of `recomputable`; their backward belongs
    into the block too."""
    try:
        with saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _Recipe.last = None


def _pack(x: Tensor) -> "Tensor | _Recipe":
    recipe: _Recipe | None = getattr(x, "_recipe", None)
    if recipe is None or x._version:  # one that was changed in place is not what its recipe makes
        return x.detach()  # with its history an output would keep itself alive
    return recipe


def _unpack(kept: "Tensor | _Recipe") -> Tensor:
    return kept.result() if isinstance(kept, _Recipe) else kept
