"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen linear plus a trainable low-rank product.

`apply` puts a fresh one on a model for training, `attach` one that `riyaz.adapters` read from files; `adapter_of` and
`detach` give back what a model holds. rsLoRA (Kalajdzievski 2023, arXiv 2312.03732) scales by α/√r instead of α/r.
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

from riyaz.adapters import Adapter, Pair
from riyaz.errors import RiyazError
from riyaz.layers.swap import KINDS, linears, swap

HEAD = "lm_head"


class _LoRA(Function):
    """y = x Wᵀ + bias + s (x Aᵀ) Bᵀ with W frozen: backward keeps x and x Aᵀ and makes no gradient for W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, s: float) -> Tensor:
        low = x @ a.T  # (T, r)
        out = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = s
        return out.addmm_(low, b.T, alpha=s)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor, None]:
        (grad,) = grads
        x, weight, a, b, low = ctx.saved_tensors
        grad_low = (grad @ b).mul_(ctx.scale)  # (T, r)
        grad_b = (grad.T @ low).mul_(ctx.scale)
        return (grad @ weight).addmm_(grad_low, a), None, None, grad_low.T @ x, grad_b, None


class LoRALinear(nn.Module):
    """A linear of any kind with its adapter beside it; `enabled = False` is the bare base, to the bit."""

    def __init__(self, base: Any, r: int, scale: float) -> None:
        super().__init__()
        self.base: Any = base  # a Linear, or another module with in_features and out_features
        self.scale = scale
        self.enabled = True
        self.lora_A = nn.Parameter(torch.zeros(r, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))

    def forward(self, x: Tensor) -> Tensor:
        """x (T, in) through the base and, when enabled, the adapter: (T, out)."""
        if not self.enabled:
            return self.base(x)
        a, b = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        if type(self.base) is nn.Linear:  # the fast path knows what a plain linear computes, and no other kind
            return _LoRA.apply(x, self.base.weight, self.base.bias, a, b, self.scale)
        return self.base(x).addmm(x @ a.T, b.T, alpha=self.scale)

    def fuse(self) -> nn.Linear:
        """The base with the product added in float32 and rounded once to the base's type. RiyazError for a base that
        is no plain linear: the sum need not be a weight of its kind."""
        if type(self.base) is not nn.Linear:
            raise RiyazError(f"a LoRA cannot be merged into a {type(self.base).__name__}", hint="keep it as an adapter")
        delta = self.lora_B.float() @ self.lora_A.float() * self.scale
        weight = (self.base.weight.float() + delta).to(self.base.weight.dtype)
        fused = nn.Linear(self.base.in_features, self.base.out_features, bias=False, device="meta")
        fused.weight = nn.Parameter(weight, requires_grad=False)
        fused.bias = self.base.bias
        return fused


class Replaced(nn.Module):
    """A module that an adapter trained whole, beside the base's own; `enabled = False` is the base."""

    def __init__(self, base: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.base, self.enabled = base, True
        self.trained = copy.copy(base)  # shares what it does not replace
        self.replaced = tuple(tensors)  # the names of the parameters that are the adapter's
        own = {
            name: nn.Parameter(tensor.to(base.get_parameter(name).dtype), requires_grad=False)
            for name, tensor in tensors.items()
        }
        self.trained._parameters = {**base._parameters, **own}

    @property
    def weight(self) -> Tensor:
        """The weight that answers now."""
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
    rslora: bool = False,
    kinds: tuple[type[nn.Module], ...] = KINDS,
) -> None:
    """Put a fresh adapter on every target linear, on all but the head if none are named: A uniform as in the paper's
    code, B zero, so step 0 is the base. `kinds` are the types of the linears, as in `swap.linears`."""
    generator = torch.Generator().manual_seed(seed)
    scale = alpha / math.sqrt(r) if rslora else alpha / r
    for name, linear in linears(model, targets, kinds):
        if targets is None and name == HEAD:
            continue
        lora = LoRALinear(linear, r, scale)
        bound = 1 / math.sqrt(lora.lora_A.shape[1])
        nn.init.uniform_(lora.lora_A, -bound, bound, generator=generator)
        swap(model, name, lora)


def attach(model: nn.Module, adapter: Adapter) -> None:
    """Put an adapter's pairs and whole tensors, frozen, on the bare model that they were read for."""
    assert adapter.soft_prompt is None, "a soft prompt is put on with layers.soft_prompt.attach"
    for name, pair in adapter.pairs.items():
        lora = LoRALinear(model.get_submodule(name), pair.rank, pair.scale)
        a, b = _tensor(pair.a), _tensor(pair.b)
        assert (a.shape, b.shape) == (lora.lora_A.shape, lora.lora_B.shape), f"the pair of {name} was not checked"
        lora.lora_A, lora.lora_B = nn.Parameter(a, requires_grad=False), nn.Parameter(b, requires_grad=False)
        swap(model, name, lora)
    for name in adapter.whole_modules:
        own = {path.rpartition(".")[2]: _tensor(array) for path, array in adapter.whole.items()
               if path.rpartition(".")[0] == name}  # fmt: skip
        swap(model, name, Replaced(model.get_submodule(name), own))


def adapter_of(model: nn.Module) -> Adapter:
    """What the model's adapter holds now, in float32, as a copy; the adapter stays on the model."""
    pairs = {name: Pair(_array(layer.lora_A), _array(layer.lora_B), layer.scale) for name, layer in adapters(model)}
    whole = {
        f"{name}.{part}": _array(module.trained.get_parameter(part))
        for name, module in whole_modules(model)
        for part in module.replaced
    }
    return Adapter(pairs, whole)


def detach(model: nn.Module) -> Adapter:
    """Take the adapter off the model, which is bare again, and give what it held."""
    adapter = adapter_of(model)
    for name, layer in list(adapters(model)):
        swap(model, name, layer.base)
    for name, module in list(whole_modules(model)):
        swap(model, name, module.base)
    return adapter


def adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The model's LoRA layers with their module paths."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def whole_modules(model: nn.Module) -> Iterator[tuple[str, Replaced]]:
    """The modules that an adapter replaces whole, with their paths."""
    for name, module in model.named_modules():
        if isinstance(module, Replaced):
            yield name, module


@contextmanager
def enabled(model: nn.Module, on: bool) -> Iterator[None]:
    """Inside, the adapter is on or truly off."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoRALinear | Replaced)]
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = on
    try:
        yield
    finally:
        for layer, state in zip(layers, before):
            layer.enabled = state


def merge(model: nn.Module) -> None:
    """Replace every adapter by plain modules that contain it. A tied head whose weight now differs from the
    embedding's becomes a parameter of its own, and the configuration says so."""
    for name, layer in list(adapters(model)):
        swap(model, name, layer.fuse())
    for name, module in list(whole_modules(model)):
        swap(model, name, module.trained)
    head, config = getattr(model, HEAD, None), getattr(model, "config", None)
    if head is None or not getattr(config, "tie_word_embeddings", False):
        return
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding)).weight  # the tokens'
    if torch.equal(head.weight, embedding):
        head.weight = embedding
    else:
        model.config = replace(config, tie_word_embeddings=False)  # type: ignore[type-var, assignment]


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares nothing with the array."""
    return torch.from_numpy(np.array(array, np.float32))


def _array(tensor: Tensor) -> np.ndarray:
    """A float32 array that shares nothing with the tensor."""
    array: np.ndarray = tensor.detach().float().numpy().copy()
    return array
