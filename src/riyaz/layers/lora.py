"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen linear plus a trainable low-rank product.

Files are PEFT's: `adapter_config.json` and `adapter_model.safetensors`. rsLoRA (Kalajdzievski 2023,
arXiv 2312.03732) scales by α/√r instead of α/r.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from riyaz.errors import RiyazError
from riyaz.families import transposed
from riyaz.layers import peft
from riyaz.layers.swap import linears, swap
from riyaz.sources import safetensors

HEAD = "lm_head"
PREFIX = "base_model.model."
# Options of PEFT that change what an adapter computes; ignoring one would answer wrongly and say nothing.
NOT_PLAIN = (
    "use_dora", "use_qalora", "use_bdlora", "rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters",
    "trainable_token_indices", "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config",
)  # fmt: skip
CHANGE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that take A·B off the base's weights


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


@contextmanager
def enabled(model: nn.Module, on: bool) -> Iterator[None]:
    """Inside, the adapter is on or truly off."""
    layers = [layer for _, layer in adapters(model)]
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.enabled = on
    try:
        yield
    finally:
        for layer, state in zip(layers, before):
            layer.enabled = state


def merge(model: nn.Module) -> None:
    """Replace every adapter by a plain linear that contains it."""
    for name, layer in list(adapters(model)):
        swap(model, name, layer.fuse())


def save_peft(model: nn.Module, folder: Path, *, base: str, alpha: float, rslora: bool = False) -> None:
    """Write the adapter as PEFT reads it; float32 tensors."""
    layers = dict(adapters(model))
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_A
        tensors[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_B
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
        "r": next(iter(layers.values())).lora_A.shape[0], "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name in layers}),
        "fan_in_fan_out": _is_transposed(model, layers), "inference_mode": True, "modules_to_save": None,
    }  # fmt: skip
    if rslora:  # older loaders fail on keys they do not know, so it stands only where it is used
        config["use_rslora"] = True
    peft.write(folder, config, tensors)


def _is_transposed(model: Any, layers: Iterable[str]) -> bool:
    """Whether the base's own file holds these linears as (in, out); A and B are (r, in) and (out, r) either way."""
    return any(transposed(model.config.model_type, f"{name}.weight") for name in layers)


def load_peft(model: nn.Module, folder: Path) -> None:
    """Put a PEFT LoRA folder on the model; every tensor must find its layer, and every mismatch is named."""
    config = read_config(folder / peft.CONFIG)
    file = safetensors.read(folder / peft.WEIGHTS)
    layers = dict(linears(model, None))
    pairs: dict[str, dict[str, Tensor]] = {}
    problems = []
    for key in file.tensors:
        name, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if not key.startswith(PREFIX) or part not in ("lora_A", "lora_B") or name not in layers:
            problems.append(f"{key} matches no layer")
            continue
        if file.tensors[key].dtype not in peft.FLOATS:
            problems.append(f"{key} has the type {file.tensors[key].dtype}")
            continue
        pairs.setdefault(name, {})[part] = peft.read_float(file, key)
    for name, pair in pairs.items():
        problems += _mismatches(name, layers[name], pair, config.get("r", 8))  # PEFT's default
    if not pairs:
        problems.append("no adapter tensor fits this model")
    if problems:
        raise RiyazError(f"the adapter does not fit the base: {'; '.join(problems)}", str(folder))
    for name, pair in pairs.items():
        r = pair["lora_A"].shape[0]
        alpha = config["lora_alpha"]
        lora = LoRALinear(layers[name], r, alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r)
        lora.lora_A = nn.Parameter(pair["lora_A"], requires_grad=False)
        lora.lora_B = nn.Parameter(pair["lora_B"], requires_grad=False)
        swap(model, name, lora)


def _mismatches(name: str, linear: nn.Linear, pair: dict[str, Tensor], rank: Any) -> list[str]:
    if set(pair) != {"lora_A", "lora_B"}:
        return [f"{name} has only {', '.join(pair)}"]
    a, b = pair["lora_A"], pair["lora_B"]
    want = (linear.out_features, linear.in_features)
    if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1]) != want or a.shape[0] != b.shape[1]:
        return [f"{name} has A {tuple(a.shape)} and B {tuple(b.shape)}, the layer is {want}"]
    if not a.shape[0] == rank > 0:
        return [f"{name} has rank {a.shape[0]}, the configuration says {rank!r:.60}"]
    return []


def read_config(path: Path) -> dict[str, Any]:
    """A PEFT configuration of a plain LoRA or rsLoRA. Raises RiyazError for any other."""
    config = peft.read_config(path)
    refused = [key for key in NOT_PLAIN if config.get(key)]
    if config.get("bias", "none") != "none":
        refused.append("bias")
    start, alpha = str(config.get("init_lora_weights")), config.get("lora_alpha")
    if start.startswith(CHANGE_BASE):
        refused.append(f"init_lora_weights {start:.60}")
    if config.get("peft_type") != "LORA":
        what = f"peft_type is {config.get('peft_type')!r:.60}, not 'LORA'"
    elif refused:
        what = f"this adapter uses {', '.join(refused)}"
    elif not (isinstance(alpha, int | float) and abs(alpha) < 1e9):
        what = f"lora_alpha is {alpha!r:.60}, not a number"
    else:
        return config
    raise RiyazError(what, str(path), "riyaz reads plain LoRA and rsLoRA")
