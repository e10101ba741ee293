"""Several adapters on one model: each row of a batch uses the weights of its own adapter."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from riyaz.adapters import Adapter, Pair
from riyaz.engine.torch.packed import PackedLinear


class Route:
    """Which rows of the input use which adapter: (name or None, slice) in the order of the rows."""

    def __init__(self) -> None:
        self.parts: Sequence[tuple[str | None, slice]] = ()

    def take(self, adapters: Sequence[str | None], counts: Sequence[int]) -> None:
        """Of the rows of the next input so many use each adapter; adjacent rows of one adapter are one part."""
        parts: list[tuple[str | None, slice]] = []
        start = 0
        for adapter, count in zip(adapters, counts):
            if parts and parts[-1][0] == adapter:
                parts[-1] = adapter, slice(parts[-1][1].start, start + count)
            else:
                parts.append((adapter, slice(start, start + count)))
            start += count
        self.parts = parts

    @property
    def length(self) -> int:
        """The number of rows T of all parts."""
        return self.parts[-1][1].stop if self.parts else 0


class AdaptedLinear(nn.Module):
    """A linear of any kind with LoRA pairs A (r, in), B (out, r) of any number of adapters, in `dtype`, that of its
    inputs."""

    def __init__(self, base: Any, route: Route, dtype: torch.dtype) -> None:
        super().__init__()
        self.base, self.route, self.dtype = base, route, dtype
        self.pairs: dict[str, tuple[Tensor, Tensor, float]] = {}

    def put(self, name: str, pair: Pair) -> None:
        """Add an adapter's pair."""
        a, b = (torch.tensor(array).to(self.dtype) for array in (pair.a, pair.b))
        self.pairs[name] = a, b, pair.scale

    def drop(self, name: str) -> None:
        """Remove an adapter's pair."""
        self.pairs.pop(name, None)

    def forward(self, x: Tensor) -> Tensor:
        """The output (T, out) for x (T, in): the base, plus each adapter's product on its rows."""
        out = self.base(x)
        for name, rows in self.route.parts:
            if name in self.pairs:
                a, b, scale = self.pairs[name]
                out[rows].addmm_(x[rows] @ a.T, b.T, alpha=scale)
        return out


class AdaptedPackedLinear(nn.Module):
    """AdaptedLinear for a packed linear: the weight and every A are one matrix, as a separate call for each A would
    double its cost."""

    def __init__(self, base: PackedLinear, route: Route) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.bias, self.route = base.bias, route
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}  # A (r, in) and scale · B (out, r) in bf16
        self._down = base  # the weight, and every A stacked below it
        self._up: dict[str, tuple[slice, PackedLinear]] = {}  # columns of A's output, and the linear of scale · B

    @property
    def weight(self) -> Tensor:
        """The base's weight (out, in), unpacked into new memory."""
        return self._down.weight[: self.out_features]

    def put(self, name: str, pair: Pair) -> None:
        """Add an adapter's pair."""
        a, b = torch.tensor(pair.a).bfloat16(), torch.tensor(pair.b * np.float32(pair.scale)).bfloat16()
        self._pack({**self.pairs, name: (a, b)})

    def drop(self, name: str) -> None:
        """Remove an adapter's pair."""
        if name in self.pairs:
            self._pack({other: pair for other, pair in self.pairs.items() if other != name})

    def _pack(self, pairs: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.pairs, self._up = pairs, {}
        start = self.out_features
        for name, (a, b) in pairs.items():
            self._up[name] = slice(start, start + len(a)), PackedLinear(b, None)
            start += len(a)
        weight = torch.cat((self.weight, *(a for a, _ in pairs.values())))  # (out + Σ r, in)
        bias = None if self.bias is None else torch.cat((self.bias, self.bias.new_zeros(start - self.out_features)))
        self._down = PackedLinear(weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        """The output (T, out) for x (T, in): the base, plus each adapter's product on its rows."""
        both = self._down(x)  # (T, out + Σ r)
        out = both[:, : self.out_features].contiguous()
        for name, rows in self.route.parts:
            if name in self._up:
                low, up = self._up[name]
                out[rows] += up(both[rows, low].contiguous())
        return out


class AdaptedModule(nn.Module):
    """A module that some adapters trained whole: their rows use the trained copy, all others the base module."""

    def __init__(self, base: nn.Module, route: Route) -> None:
        super().__init__()
        self.base, self.route = base, route
        self.trained: dict[str, nn.Module] = {}

    def put(self, name: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Add the parameters that an adapter trained; the module's other parameters are shared with the base."""
        plain = self.base
        if isinstance(plain, AdaptedLinear):
            plain = plain.base
        if isinstance(plain, AdaptedPackedLinear | PackedLinear):
            own = {part: torch.tensor(array).bfloat16() for part, array in tensors.items()}
            weight = own.get("weight", plain.weight)
            self.trained[name] = PackedLinear(weight, own.get("bias", plain.bias))
            return
        parameters = {
            part: nn.Parameter(torch.tensor(array).to(plain.get_parameter(part).dtype), requires_grad=False)
            for part, array in tensors.items()
        }
        self.trained[name] = copy.copy(plain)
        self.trained[name]._parameters = {**plain._parameters, **parameters}

    def drop(self, name: str) -> None:
        """Remove an adapter's parameters."""
        self.trained.pop(name, None)

    def forward(self, x: Tensor) -> Tensor:
        """The output for x (T, …), or (T · H, …) for a norm of H heads, each row through its adapter's module or the
        base."""
        out = self.base(x)
        heads = len(x) // max(1, self.route.length)
        for name, rows in self.route.parts:
            if name in self.trained:
                own = slice(rows.start * heads, rows.stop * heads)
                out[own] = self.trained[name](x[own])
        return out


def misfits(model: Any, adapter: Adapter, context: int) -> list[str]:
    """One error text per part of an adapter that does not fit the model, whose context has so many positions."""
    problems = []
    for path, pair in adapter.pairs.items():
        linear = _bare(model, path)
        shape = getattr(linear, "out_features", None), getattr(linear, "in_features", None)
        if (pair.b.shape[0], pair.a.shape[1]) != shape or pair.b.shape[1] != pair.rank:
            problems.append(f"{path} has A {pair.a.shape} and B {pair.b.shape}")
    for path, array in adapter.whole.items():
        module, _, part = path.rpartition(".")
        if array.shape != getattr(getattr(_bare(model, module), part, None), "shape", None):
            problems.append(f"{path} has the shape {array.shape}")
    vectors, width = adapter.soft_prompt, model.config.hidden_size
    if vectors is not None and (vectors.shape[1:] != (width,) or not 0 < len(vectors) < context):
        problems.append(f"its soft prompt has the shape {vectors.shape}")
    return problems


def _bare(model: Any, path: str) -> Any:
    """The model's own module at a path, inside the modules that loaded adapters put around it; None if missing."""
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    while isinstance(module, AdaptedLinear | AdaptedModule):
        module = module.base
    return module
