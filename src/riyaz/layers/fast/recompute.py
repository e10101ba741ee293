"""Results of norms and gates that backward computes again instead of keeping them from forward on.

A linear that trains, or has a LoRA, needs its input in backward. The inputs after norms and gates follow from tensors
that are kept anyway, by one pass over memory: about a third of a decoder's activations, for less time than the noise of
a step shows; the first KEPT bytes of a pass are kept all the same, since in a small model the memory is cheap and the
time is 2 % of a step. Unlike checkpoints of whole blocks (Chen et al. 2016, arXiv 1604.06174) no matrix product is
repeated.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

SMALL = 2**20  # bytes; to make a smaller result again takes more time than its memory is worth
KEPT = 2**27  # bytes of larger results that a pass keeps all the same, its first ones: 128 MB


class _Recipe:
    """How a result is computed again from inputs that have not changed since."""

    def __init__(self, function: Any, inputs: tuple[Any, ...], version: int) -> None:
        self.function, self.version = function, version  # of the result: a higher one was changed in place
        self.kept = False  # whether graphs keep the result itself
        self.inputs = [_hold(x) if isinstance(x, Tensor) else x for x in inputs]

    def result(self) -> Tensor:
        last = _made.last
        if last is None or last[0] is not self:
            _made.last = last = None  # freed before the next is made
            with torch.no_grad():
                inputs = [_held(*x) if isinstance(x, tuple) else x for x in self.inputs]
                _made.last = last = (self, self.function.apply(*inputs))
        return last[1]


class _Made(threading.local):
    """The last result that a thread's backward has made. Tensors that several linears share are computed once for all
    of them: backward comes to those linears one after the other, so that keeping the last result is enough."""

    last: tuple[_Recipe, Tensor] | None = None
    kept = 0  # bytes of the results that the pass keeps though they could be made again


_made = _Made()


def recomputable(function: Any, *inputs: Any) -> Tensor:
    """`function.apply(*inputs)`, which backward may compute again inside `recomputing` unless it is SMALL; the function
    keeps its inputs for its own gradient and gives the same bits each time."""
    out: Tensor = function.apply(*inputs)
    if torch.is_grad_enabled() and out.nbytes >= SMALL:
        out._recipe = _Recipe(function, inputs, out._version)  # type: ignore[attr-defined]
    return out


def widest(model: nn.Module) -> int:
    """The most numbers of a token that a linear of the model takes: no result of a norm or gate is larger."""
    return max((getattr(module, "in_features", 0) for module in model.modules()), default=0)


@contextmanager
def recomputing(largest: int) -> Iterator[None]:
    """Inside the `with` block graphs keep recipes in place of the results of `recomputable`, the largest of which has
    so many bytes: if these are fewer than SMALL, none is worth torch's calls for each tensor that a graph keeps. Their
    backward belongs into the block too."""
    if largest < SMALL:
        yield
        return
    _made.kept = 0
    try:
        with saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _made.last = None


def _pack(x: Tensor) -> "tuple[Tensor, int] | _Recipe":
    recipe: _Recipe | None = getattr(x, "_recipe", None)
    if recipe is None or x._version != recipe.version:  # one that was changed in place is not what its recipe makes
        return _hold(x)
    if not recipe.kept and _made.kept + x.nbytes <= KEPT:
        recipe.kept = True
        _made.kept += x.nbytes
    return _hold(x) if recipe.kept else recipe


def _unpack(kept: "tuple[Tensor, int] | _Recipe") -> Tensor:
    return kept.result() if isinstance(kept, _Recipe) else _held(*kept)


def _hold(x: Tensor) -> tuple[Tensor, int]:
    return x.detach(), x._version  # with its history an output would keep itself alive


def _held(x: Tensor, version: int) -> Tensor:
    if x._version != version:  # autograd does not look where there are hooks
        raise RuntimeError("a tensor that backward needs was changed in place")
    return x
