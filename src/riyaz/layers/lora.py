"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen linear plus a trainable low-rank product.

rsLoRA (Kalajdzievski 2023, arXiv 2312.03732) scales by α/√r instead of α/r. Files are PEFT's, with `peft_lora`;
`lora_mlx` and `lora_gguf` know those of two other tools, and give and take the same pairs.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from riyaz.errors import RiyazError
from riyaz.families import transposed
from riyaz.layers import peft, peft_lora
from riyaz.layers.swap import linears, swap

HEAD = "lm_head"
PREFIX = "base_model.model."
HALVES = ("lora_A", "lora_B")
HEAD_WEIGHT = "lm_head.weight"


class Pair(NamedTuple):
    """What a file says of one linear: A (r, in), B (out, r), and the factor of their product."""

    a: Tensor
    b: Tensor
    scale: float


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
    """A linear with its adapter beside it; `enabled = False` is the bare base, to the bit."""

    def __init__(self, base: nn.Linear, r: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.enabled = True
        self.lora_A = nn.Parameter(torch.zeros(r, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, r))

    def forward(self, x: Tensor) -> Tensor:
        """x (T, in) through the base and, when enabled, the adapter: (T, out)."""
        if not self.enabled:
            return self.base(x)
        a, b = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        return _LoRA.apply(x, self.base.weight, self.base.bias, a, b, self.scale)

    def fuse(self) -> nn.Linear:
        """The base with the product added in float32 and rounded once to the base's type."""
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
        """What the module in force makes of x."""
        return self.trained(x) if self.enabled else self.base(x)


def apply(
    model: nn.Module,
    *,
    r: int,
    alpha: float,
    seed: int,
    targets: Sequence[str] | None = None,
    rslora: bool = False,
) -> None:
    """Put a fresh adapter on every target linear, on all but the head if none are named: A uniform as in the paper's
    code, B zero, so step 0 is the base."""
    generator = torch.Generator().manual_seed(seed)
    scale = alpha / math.sqrt(r) if rslora else alpha / r
    for name, linear in linears(model, targets):
        if targets is None and name == HEAD:
            continue
        lora = LoRALinear(linear, r, scale)
        bound = 1 / math.sqrt(linear.in_features)
        nn.init.uniform_(lora.lora_A, -bound, bound, generator=generator)
        swap(model, name, lora)


def adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The model's LoRA layers with their module paths."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def pairs(model: nn.Module) -> dict[str, Pair]:
    """What the model's LoRA layers hold, by module path."""
    return {name: Pair(layer.lora_A, layer.lora_B, layer.scale) for name, layer in adapters(model)}


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
    """Replace every adapter by plain modules that contain it. A head that was the embedding and no longer says the
    same becomes one of its own, and the configuration says so."""
    for name, layer in list(adapters(model)):
        swap(model, name, layer.fuse())
    for name, module in list(whole_modules(model)):
        swap(model, name, module.trained)
    head, config = getattr(model, "lm_head", None), getattr(model, "config", None)
    if head is None or not getattr(config, "tie_word_embeddings", False):
        return
    embedding = _embedding(model)[1].weight
    if torch.equal(head.weight, embedding):
        head.weight = embedding
    else:
        model.config = replace(config, tie_word_embeddings=False)  # type: ignore[type-var, assignment]


def whole_modules(model: nn.Module) -> Iterator[tuple[str, Replaced]]:
    """The modules that an adapter replaces whole, with their paths."""
    for name, module in model.named_modules():
        if isinstance(module, Replaced):
            yield name, module


def save_peft(model: nn.Module, folder: Path, *, base: str, alpha: float | None = None, rslora: bool = False) -> None:
    """Write the adapter as PEFT reads it; float32 tensors. Without `alpha` the layers' own ranks and scales are
    written as plain LoRA, which every tool understands: α = scale · r, by pattern where layers differ."""
    layers, whole = dict(adapters(model)), dict(whole_modules(model))
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_A
        tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_B
    for name, module in whole.items():
        for part, tensor in module.trained.named_parameters():
            tensors[f"{PREFIX}{name}.{part}"] = _turned(model, f"{name}.{part}", tensor)
    ranks = {name: len(layer.lora_A) for name, layer in layers.items()}
    alphas = {name: alpha or layer.scale * ranks[name] for name, layer in layers.items()}
    rank, most = _usual(ranks, peft_lora.DEFAULT_RANK), _usual(alphas, peft_lora.DEFAULT_ALPHA)
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
        "r": rank, "lora_alpha": most, "lora_dropout": 0.0, "bias": "none",
        "target_modules": _targets(model, layers), "fan_in_fan_out": _is_transposed(model, layers),
        "inference_mode": True, "modules_to_save": sorted(whole) or None,
    }  # fmt: skip
    # older loaders fail on keys they do not know, so these stand only where they are used
    if any(ranks[name] != rank for name in ranks):
        config["rank_pattern"] = {name: r for name, r in ranks.items() if r != rank}
    if any(alphas[name] != most for name in alphas):
        config["alpha_pattern"] = {name: value for name, value in alphas.items() if value != most}
    if rslora:
        config["use_rslora"] = True
    peft.write(folder, config, tensors)


def _is_transposed(model: Any, layers: Iterable[str]) -> bool:
    """Whether the base's own file holds these linears as (in, out); A and B are (r, in) and (out, r) either way."""
    return any(transposed(model.config.model_type, f"{name}.weight") for name in layers)


def _turned(model: Any, path: str, tensor: Tensor) -> Tensor:
    """A whole tensor in the other one of the two layouts, that of the base's own file and riyaz's."""
    return tensor.T.contiguous() if transposed(model.config.model_type, path) else tensor


def load_peft(model: nn.Module, folder: Path) -> None:
    """Put a PEFT LoRA folder on the model; every tensor must find its layer, and every mismatch is named."""
    config = peft_lora.read_config(folder / peft.CONFIG)
    file = peft.open_weights(folder)
    layers = dict(linears(model, None))
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    ends = (f"{_embedding(model)[0]}.weight", HEAD_WEIGHT)
    tied = bool(config.get("ensure_weight_tying")) and getattr(model.config, "tie_word_embeddings", False)
    problems = []
    for key, info in file.tensors.items():
        path = key.removeprefix(PREFIX)
        name, _, part = path.removesuffix(".weight").rpartition(".")
        plain = path.replace(".base_layer.", ".")
        if key.startswith(PREFIX) and info.dtype not in peft.FLOATS:
            problems.append(f"{key} has the type {info.dtype}")
        elif key.startswith(PREFIX) and part in HALVES and name in layers:
            halves.setdefault(name, {})[part] = peft.read_float(file, key)
        elif key.startswith(PREFIX) and (peft_lora.is_saved(path, config) or (tied and path in ends)):
            whole[path] = _turned(model, path, peft.read_float(file, key))
        elif key.startswith(PREFIX) and plain in ends:  # PEFT's copy of the base's own, where these are targets
            problems += _unlike(model, plain, peft.read_float(file, key))
        else:
            problems.append(unmatched(model, key))
    pairs: dict[str, Pair] = {}
    for name, found in halves.items():
        if found.keys() != set(HALVES):
            problems.append(f"{name} has only {', '.join(found)}")
            continue
        rank = found["lora_A"].shape[0] if found["lora_A"].ndim else 0
        pairs[name] = Pair(found["lora_A"], found["lora_B"], peft_lora.scale(name, rank, config))
        problems += peft_lora.wrong_rank(name, rank, config)
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    problems += peft_lora.bare(halves, whole, layers, parameters, config)
    if tied:
        trained = [whole[path] for path in ends if path in whole]
        whole |= dict.fromkeys(ends, trained[0]) if trained else {}
    put(model, pairs, whole, problems, folder)


def _embedding(model: nn.Module) -> tuple[str, nn.Embedding]:
    """The tokens' embedding, which is every family's first, and its path."""
    return next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Embedding))


def unmatched(model: nn.Module, key: str) -> str:
    """One line for an adapter's tensor, or the path of its module, that no linear takes."""
    name = key.removeprefix(PREFIX).partition(".lora_")[0]
    if name in dict(model.named_modules()) and isinstance(model.get_submodule(name), nn.Embedding):
        return f"{name} is an embedding, and LoRA on embeddings is not supported"
    return f"{key} matches no layer"


def put(
    model: nn.Module, pairs: Mapping[str, Pair], whole: Mapping[str, Tensor], problems: Sequence[str], where: Path
) -> None:
    """Put an adapter's pairs (by module path) and whole tensors (by parameter path) on a model; RiyazError lists
    the caller's problems and everything here that does not fit, and the model stays as it was."""
    layers, problems = dict(linears(model, None)), list(problems)
    for name, pair in pairs.items():
        problems += _unfit(name, layers[name], pair) if name in layers else [unmatched(model, name)]
    parts: dict[str, dict[str, Tensor]] = {}
    for path, tensor in whole.items():
        name, _, part = path.rpartition(".")
        parts.setdefault(name, {})[part] = tensor
        problems += _unfit_whole(model, path, tensor)
        if name in pairs:
            problems.append(f"{name} has both an adapter and weights of its own")
    if not pairs and not whole:
        problems.append("no adapter tensor fits this model")
    if problems:
        raise RiyazError(f"the adapter does not fit the base: {'; '.join(dict.fromkeys(problems))}", str(where))
    for name, pair in pairs.items():
        lora = LoRALinear(layers[name], len(pair.a), pair.scale)
        lora.lora_A = nn.Parameter(pair.a, requires_grad=False)
        lora.lora_B = nn.Parameter(pair.b, requires_grad=False)
        swap(model, name, lora)
    for name, tensors in parts.items():
        swap(model, name, Replaced(model.get_submodule(name), tensors))


def _unlike(model: nn.Module, path: str, tensor: Tensor) -> list[str]:
    """One line when an adapter's copy of a tensor is not the base's own, up to rounding."""
    own = model.get_parameter(path)
    if own.shape != tensor.shape or not torch.allclose(own.float(), tensor, rtol=2**-7, atol=1e-6):
        return [f"{path} is another than the base's own"]
    return []


def _unfit(name: str, linear: nn.Linear, pair: Pair) -> list[str]:
    """What is wrong with a pair for its linear, in at most one line."""
    a, b, want = pair.a, pair.b, (linear.out_features, linear.in_features)
    if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1]) != want or a.shape[0] != b.shape[1]:
        return [f"{name} has A {tuple(a.shape)} and B {tuple(b.shape)}, the layer is {want}"]
    return [] if len(a) else [f"{name} has rank 0"]


def _unfit_whole(model: nn.Module, path: str, tensor: Tensor) -> list[str]:
    """What is wrong with a whole tensor, in at most one line."""
    try:
        shape = model.get_parameter(path).shape
    except AttributeError:
        return [f"{path} matches no tensor of the model"]
    if shape != tensor.shape:
        return [f"{path} has the shape {tuple(tensor.shape)}, the model's is {tuple(shape)}"]
    return []


def _usual(values: Mapping[str, Any], default: Any) -> Any:
    """The value that most layers have."""
    listed = list(values.values())
    return max(listed, key=listed.count) if listed else default


def _targets(model: nn.Module, layers: Mapping[str, Any]) -> list[str]:
    """Last names, or whole paths where a name stands for layers without an adapter too."""
    names = {name.rsplit(".", 1)[-1] for name in layers}
    plain = {name for name, _ in linears(model, tuple(names)) if not name.endswith(".base")}
    return sorted(layers) if plain - layers.keys() else sorted(names)
