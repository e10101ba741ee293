"""Results of norms and gates that backward computes again instead of keeping them from forward on.

A linear that trains, or has a LoRA, needs its input in backward. The outputs of norms and gates follow from tensors
that are kept anyway, in one pass over memory. They are about a third of a decoder's activations, and computing them
again takes less time than a step's noise. The first STORED bytes of a pass are kept nevertheless: in a small model the
memory is cheap and the time is 2 % of a step. Unlike checkpoints of whole blocks (Chen et al. 2016, arXiv 1604.06174)
no matrix product is repeated.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

SMALL = 2**20  # bytes; to make a smaller result again takes more time than its memory is worth
STORED = 2**27  # bytes of larger results that a pass keeps all the same, its first ones: 128 MB


class Recipe:
    """How a result is computed again from inputs that have not changed since."""

    def __init__(self, out: "weakref.ref[Tensor]", version: int, function: Any, inputs: tuple[Any, ...]) -> None:
        self.out, self.version, self.function = out, version, function
        self.inputs = [_hold(x) if isinstance(x, Tensor) else x for x in inputs]

    def result(self) -> Tensor:
        """The result, made anew."""
        with torch.no_grad():
            inputs = [_held(*x) if isinstance(x, tuple) else x for x in self.inputs]
            return self.function.apply(*inputs)


class Recipes:
    """The recipes of one pass, forward and backward: what `recomputable` adds, and hooks of autograd look up."""

    def __init__(self) -> None:
        self.of: dict[int, Recipe] = {}  # by the id of the result, as long as that lives
        self.stored = 0  # bytes of the results that the pass keeps though they could be made again
        # Tensors that several linears share are computed once for all of them: backward comes to those linears one
        # after the other, so that keeping the last result is enough.
        self.last: tuple[Recipe, Tensor] | None = None

    def add(self, out: Tensor, function: Any, inputs: tuple[Any, ...]) -> None:
        """Remember how a result was made."""
        key = id(out)
        freed = weakref.ref(out, lambda _: self.of.pop(key, None))  # with the recipe its inputs
        self.of[key] = Recipe(freed, out._version, function, inputs)

    def pack(self, x: Tensor) -> "tuple[Tensor, int] | Recipe":
        """What a graph keeps in place of a tensor: its recipe, or the tensor and its version."""
        recipe = self.of.get(id(x))
        if recipe is None or recipe.out() is not x or x._version != recipe.version:
            return _hold(x)  # a result that was changed in place is not what its recipe makes
        if self.stored + x.nbytes > STORED:
            return recipe
        self.stored += x.nbytes
        del self.of[id(x)]  # other graphs keep the result, too
        return _hold(x)

    def unpack(self, packed: "tuple[Tensor, int] | Recipe") -> Tensor:
        """The tensor of which a graph keeps this."""
        if isinstance(packed, tuple):
            return _held(*packed)
        if self.last is None or self.last[0] is not packed:
            self.last = None  # freed before the next is made
            self.last = packed, packed.result()
        return self.last[1]

    def clear(self) -> None:
        """Free what the pass has held."""
        self.of.clear()
        self.last = None


class _Current(threading.local):
    """The recipes of the thread's pass: models call norms and gates without knowing of it."""

    recipes: Recipes | None = None


_current = _Current()


def recomputable(function: Any, *inputs: Any) -> Tensor:
    """`function.apply(*inputs)`, which backward may compute again inside `recomputing` unless it is SMALL; the function
    keeps its inputs for its own gradient and gives the same bits each time."""
    out: Tensor = function.apply(*inputs)
    if _current.recipes is not None and torch.is_grad_enabled() and out.nbytes >= SMALL:
        _current.recipes.add(out, function, inputs)
    return out


def widest(model: nn.Module) -> int:
    """The most numbers of a token that a linear of the model takes: no result of a norm or gate is larger."""
    return max((getattr(module, "in_features", 0) for module in model.modules()), default=0)


@contextmanager
def recomputing(largest: int) -> Iterator[None]:
    """Inside the `with` block, forward and backward, graphs keep recipes in place of the results of `recomputable`.
    `largest` is the size of the largest result in bytes. Below SMALL nothing changes: the hooks would cost more time
    than the memory is worth."""
    if largest < SMALL:
        yield
        return
    _current.recipes = recipes = Recipes()
    try:
        with saved_tensors_hooks(recipes.pack, recipes.unpack):
            yield
    finally:
        _current.recipes = None
        recipes.clear()


def _hold(x: Tensor) -> tuple[Tensor, int]:
    return x.detach(), x._version  # with its history an output would keep itself alive


def _held(x: Tensor, version: int) -> Tensor:
    if x._version != version:  # autograd does not look where there are hooks
        raise RuntimeError("a tensor that backward needs was changed in place")
    return x
