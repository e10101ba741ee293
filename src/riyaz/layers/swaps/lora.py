"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen linear plus a trainable low-rank product.

`apply` puts an untrained adapter on a model, `attach` one that `riyaz.adapters` has read from files. `adapter_of`
copies the adapter of a model, `detach` takes it off, `merge` adds it to the weights.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function

from riyaz import native
from riyaz.adapters import Adapter, Pair
from riyaz.errors import RiyazError
from riyaz.layers.fast import memory
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.fast.native_functions import lines, multiplies
from riyaz.layers.swaps import frozen, ternary
from riyaz.layers.swaps.frozen import FrozenLinear
from riyaz.layers.swaps.swap import linears, swap

HEAD = "lm_head"
LANES = 16  # of a vector of the C++ extension
PLAIN = (nn.Linear, FrozenLinear)  # whose outputs and gradients `layers.swaps.frozen` computes
KINDS: tuple[type[nn.Module], ...] = (*PLAIN, *ternary.KINDS)


class _LoRAs(Function):
    """y = base(x) + s (x Aᵀ) Bᵀ of each layer, with frozen bases: x and s x Aᵀ are saved for backward, bases get no
    gradient. Of several layers the A stand below each other as one matrix (R, in)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Sequence[Any], *pairs: Tensor) -> tuple[Tensor, ...]:
        b = pairs[len(layers) :]
        a = pairs[0] if len(layers) == 1 else torch.cat(pairs[: len(layers)])  # (R, in)
        lows = (x @ a.T).split([matrix.shape[1] for matrix in b], 1)  # (T, r) each
        for layer, low in zip(layers, lows):
            low.mul_(layer.scale)
        ctx.save_for_backward(x, a, *b, *lows)
        ctx.layers = layers
        return tuple(
            frozen.base_output(layer.base, x).addmm_(low, matrix.T) for layer, low, matrix in zip(layers, lows, b)
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, a, *rest = ctx.saved_tensors
        b, lows = rest[: len(grads)], rest[len(grads) :]
        parts = [(grad @ matrix).mul_(layer.scale) for grad, matrix, layer in zip(grads, b, ctx.layers)]
        grad_low = parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # (T, R)
        grad_x = frozen.input_gradient(ctx.layers[0].base, grads[0])
        for layer, grad in zip(ctx.layers[1:], grads[1:]):
            frozen.add_input_gradient(grad_x, layer.base, grad)
        grad_x.addmm_(grad_low, a)
        grad_a = (grad_low.T @ x).split([matrix.shape[1] for matrix in b])
        return grad_x, None, *grad_a, *(grad.T @ low for grad, low in zip(grads, lows))


class _NativeLoRAs(Function):
    """The same by the C++ extension, of bases in codes or in AMX's tiles: thin products add to the sums of the large
    ones before these are rounded. `weights` are all A, then all B. Their gradients are added to `totals`, float32,
    where these are given; else they are those of `inputs`, the same tensors. Where x needs no gradient a graph needs
    one of the weights as its input in any case."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layers: Sequence[Any], weights: Sequence[Tensor], totals: Sequence[Tensor], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        x = x.contiguous()
        a, b = weights[: len(layers)], weights[len(layers) :]
        outs = tuple(memory.empty((len(x), len(matrix)), x.dtype) for matrix in b)
        bases, scales = [layer.base for layer in layers], [layer.scale for layer in layers]
        ctx.coded, threads = type(bases[0]) is FrozenLinear, torch.get_num_threads()
        lanes = sum(_lanes(matrix) if ctx.coded else len(matrix) for matrix in a)
        low = memory.empty((len(x), lanes), x.dtype)  # s x Aᵀ of all layers
        if ctx.coded:
            native.extension().lora([base.down for base in bases], x.detach(), a, b, scales, outs, low, threads)
            for base, out in zip(bases, outs):
                if base.bias is not None:
                    out.add_(base.bias)
        else:
            biases = [None if base.bias is None else base.bias.detach().contiguous() for base in bases]
            frozen_weights = [base.weight.detach() for base in bases]
            native.extension().dense_lora(x.detach(), frozen_weights, biases, a, b, scales, outs, low, threads)
        ctx.save_for_backward(x, low)
        ctx.layers, ctx.totals = layers, totals
        ctx.weights, ctx.versions = weights, _versions(weights)
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, low = ctx.saved_tensors
        layers, weights, count = ctx.layers, ctx.weights, len(ctx.layers)
        if torch.is_grad_enabled():
            raise RuntimeError("a LoRA of the C++ extension has no gradient of its gradient")
        if ctx.versions != _versions(weights):
            raise RuntimeError("A or B was changed in place between forward and backward")
        sums = ctx.totals or [torch.zeros(matrix.shape, dtype=torch.float32) for matrix in weights]
        grad_x = memory.empty(x.shape, x.dtype) if ctx.needs_input_grad[0] else None
        bases, scales = [layer.base for layer in layers], [layer.scale for layer in layers]
        threads = torch.get_num_threads()
        if ctx.coded:
            native.extension().lora_gradient(
                [base.up for base in bases], x.detach(), weights[:count], weights[count:], scales,
                [lines(grad) for grad in grads], low, grad_x, sums[:count], sums[count:], threads,
            )  # fmt: skip
        else:
            native.extension().dense_lora_gradient(
                x.detach(), [base.weight.detach() for base in bases], weights[:count], weights[count:], scales,
                [lines(grad, 2) for grad in grads], low, grad_x, sums[:count], sums[count:], threads,
            )  # fmt: skip
        return grad_x, None, None, None, *([None] if ctx.totals else [total.to(x.dtype) for total in sums])


def _in_tiles(x: Tensor, layers: Sequence[Any]) -> bool:
    """Whether the C++ extension multiplies x with these layers' bases and LoRAs in AMX's tiles; elsewhere a frozen base
    is in codes."""
    if any(type(layer.base) is not nn.Linear or len(layer.lora_A) % 2 for layer in layers):
        return False
    return multiplies(x, [layer.base.weight for layer in layers]) and native.extension().has_tiles()


def _versions(weights: Sequence[Tensor]) -> list[int | None]:
    """How often each was changed in place; None for what inference mode made, of which nothing is counted."""
    return [None if matrix.is_inference() else matrix._version for matrix in weights]


def _lanes(a: Tensor) -> int:
    """Columns that the extension keeps for x Aᵀ (T, r): a multiple of 16."""
    return -(-len(a) // LANES) * LANES


def computes(linear: nn.Module) -> bool:
    """Whether `outputs` computes this linear: it knows the gradient of no other kind."""
    return type(linear) is LoRALinear and linear.enabled and type(linear.base) in PLAIN


def outputs(x: Tensor, layers: Sequence[Any]) -> tuple[Tensor, ...]:
    """The outputs (T, out) of LoRAs that it `computes`, for x (T, in)."""
    pairs = [layer.lora_A for layer in layers] + [layer.lora_B for layer in layers]
    weights = pairs if x.dtype == pairs[0].dtype else [matrix.to(x.dtype) for matrix in pairs]
    results: tuple[Tensor, ...]
    if all(type(layer.base) is FrozenLinear for layer in layers) or _in_tiles(x, layers):
        added = all(layer.gradient_sums for layer in layers)
        totals = [layers[0].gradient_sums.of(matrix) for matrix in pairs] if added else []
        inputs = weights[:1] if added else weights
        results = _NativeLoRAs.apply(x, layers, [matrix.detach().contiguous() for matrix in weights], totals, *inputs)
    else:
        results = _LoRAs.apply(x, layers, *weights)
    return results


class LoRALinear(nn.Module):
    """A linear of any kind plus its LoRA; with `enabled = False` the output is the base's, bit for bit."""

    gradient_sums: GradientSums | None = None  # to which training may add the gradients of A and B: `in_place.attach`

    def __init__(self, base: Any, r: int, scale: float, start: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.start = start  # A and B from which training goes on; None: from none
        self.base: Any = base  # a Linear, or another module with in_features and out_features
        self.scale = scale
        self.enabled = True
        self.lora_A = nn.Parameter(torch.zeros(r, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))

    def forward(self, x: Tensor) -> Tensor:
        """x (T, in) -> (T, out): the base's output plus, when enabled, the LoRA's."""
        if not self.enabled:
            return self.base(x)
        if computes(self):
            return outputs(x, [self])[0]
        a, b = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        return self.base(x).addmm(x @ a.T, b.T, alpha=self.scale)

    def fuse(self) -> nn.Linear:
        """A linear with the weight W + s B A, added in float32 and rounded once to the base's type. Raises RiyazError
        for another kind of base, such as one in codes, whose weight may not be able to hold the sum."""
        if isinstance(self.base, ternary.KINDS):
            what = "an adapter cannot be merged into a ternary model: weights of -1, 0 and 1 cannot hold the sum"
            raise RiyazError(what, hint="keep it as an adapter beside the model")
        if type(self.base) is not nn.Linear:
            raise RiyazError(f"a LoRA cannot be merged into a {type(self.base).__name__}", hint="keep it as an adapter")
        delta = self.lora_B.float() @ self.lora_A.float() * self.scale
        weight = (self.base.weight.float() + delta).to(self.base.weight.dtype)
        fused = nn.Linear(self.base.in_features, self.base.out_features, bias=False, device="meta")
        fused.weight = nn.Parameter(weight, requires_grad=False)
        fused.bias = self.base.bias
        return fused


class Replaced(nn.Module):
    """A module of the base and its trained replacement from an adapter; with `enabled = False` the base's is used."""

    def __init__(self, base: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.base, self.enabled = base, True
        self.trained = copy.copy(base)  # shares the parameters that the adapter does not replace
        self.replaced = tuple(tensors)  # the names of the parameters that come from the adapter
        own = {
            name: nn.Parameter(tensor.to(base.get_parameter(name).dtype), requires_grad=False)
            for name, tensor in tensors.items()
        }
        self.trained._parameters = {**base._parameters, **own}

    @property
    def weight(self) -> Tensor:
        """The weight in use: the trained one when enabled, else the base's."""
        return (self.trained if self.enabled else self.base).get_parameter("weight")

    def forward(self, x: Tensor) -> Tensor:
        """The output (T, out) of the trained module when enabled, else of the base."""
        return self.trained(x) if self.enabled else self.base(x)


def apply(
    model: nn.Module,
    *,
    r: int,
    alpha: float,
    seed: int,
    targets: Sequence[str] | None = None,
    kinds: tuple[type[nn.Module], ...] = KINDS,
) -> None:
    """Put an untrained LoRA of rank r, scaled by α/r, on the linears named in `targets` (None: all but the head).

    A is uniform as in the paper's code and B zero, so before training the model equals its base. `kinds` are the types
    of the linears, as in `swap.linears`.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, linear in linears(model, targets, kinds):
        if targets is None and name == HEAD:
            continue
        lora = LoRALinear(linear, r, alpha / r)
        bound = 1 / math.sqrt(lora.lora_A.shape[1])
        nn.init.uniform_(lora.lora_A, -bound, bound, generator=generator)
        swap(model, name, lora)


def attach(model: nn.Module, adapter: Adapter, *, trains: bool = False) -> None:
    """Put an adapter's LoRA pairs and replaced tensors on a model without an adapter; it must be the base that the
    adapter was read for. They are frozen; where it `trains`, the pairs are not, and `before_training` knows them."""
    assert adapter.soft_prompt is None, "a soft prompt is attached by layers.swaps.soft_prompt.attach"
    for name, pair in adapter.pairs.items():
        a, b = _tensor(pair.a), _tensor(pair.b)
        start = (a.clone(), b.clone()) if trains else None
        lora = LoRALinear(model.get_submodule(name), pair.rank, pair.scale, start)
        assert (a.shape, b.shape) == (lora.lora_A.shape, lora.lora_B.shape), f"{name}: shapes differ from the layer's"
        lora.lora_A, lora.lora_B = nn.Parameter(a, requires_grad=trains), nn.Parameter(b, requires_grad=trains)
        swap(model, name, lora)
    for name in adapter.whole_modules:
        own = {path.rpartition(".")[2]: _tensor(array) for path, array in adapter.whole.items()
               if path.rpartition(".")[0] == name}  # fmt: skip
        swap(model, name, Replaced(model.get_submodule(name), own))


def adapter_of(model: nn.Module) -> Adapter:
    """A float32 copy of the model's adapter, which stays on the model."""
    pairs = {name: Pair(_array(layer.lora_A), _array(layer.lora_B), layer.scale) for name, layer in lora_layers(model)}
    whole = {
        f"{name}.{part}": _array(module.trained.get_parameter(part))
        for name, module in replaced_modules(model)
        for part in module.replaced
    }
    return Adapter(pairs, whole)


def detach(model: nn.Module) -> Adapter:
    """Take the adapter off the model and return it in float32; the model is its base again."""
    adapter = adapter_of(model)
    for name, layer in list(lora_layers(model)):
        swap(model, name, layer.base)
    for name, module in list(replaced_modules(model)):
        swap(model, name, module.base)
    return adapter


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The model's LoRA layers with their module paths."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def replaced_modules(model: nn.Module) -> Iterator[tuple[str, Replaced]]:
    """The modules that the model's adapter replaces, with their module paths."""
    for name, module in model.named_modules():
        if isinstance(module, Replaced):
            yield name, module


@contextmanager
def enabled(model: nn.Module, on: bool) -> Iterator[None]:
    """Switch the model's adapter on or off inside the `with` block, and back afterwards."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoRALinear | Replaced)]
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = on
    try:
        yield
    finally:
        for layer, state in zip(layers, before):
            layer.enabled = state


@contextmanager
def before_training(model: nn.Module) -> Iterator[None]:
    """Inside the `with` block the model is what it was before its training: without a LoRA, or with the one from which
    the training goes on; no gradient may be taken of it there."""
    layers = [layer for _, layer in lora_layers(model)]
    trained = [(layer.lora_A.data, layer.lora_B.data) for layer in layers]
    with enabled(model, any(layer.start is not None for layer in layers)):
        for layer, (a, _) in zip(layers, trained):
            if layer.start is not None:
                layer.lora_A.data, layer.lora_B.data = (matrix.to(a.dtype) for matrix in layer.start)
        try:
            yield
        finally:
            for layer, (a, b) in zip(layers, trained):
                layer.lora_A.data, layer.lora_B.data = a, b


@contextmanager
def taken_off(model: nn.Module) -> Iterator[None]:
    """Take the model's LoRAs off inside the `with` block, and put the same ones back afterwards."""
    layers = list(lora_layers(model))
    for name, layer in layers:
        swap(model, name, layer.base)
    try:
        yield
    finally:
        for name, layer in layers:
            swap(model, name, layer)


def merge(model: nn.Module) -> None:
    """Replace every adapted module by a plain one with the adapter merged into its weights. A tied head whose weight
    now differs from the embedding's is untied, also in the model's configuration."""
    for name, layer in list(lora_layers(model)):
        swap(model, name, layer.fuse())
    for name, module in list(replaced_modules(model)):
        swap(model, name, module.trained)
    head, config = getattr(model, HEAD, None), getattr(model, "config", None)
    if head is None or not getattr(config, "tie_word_embeddings", False):
        return
    # the first embedding is that of the tokens
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding)).weight
    if torch.equal(head.weight, embedding):
        head.weight = embedding
    else:
        model.config = replace(config, tie_word_embeddings=False)  # type: ignore[type-var, assignment]


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().float().numpy().copy()
    return array
