"""LoRA in the folders of mlx-lm: `adapter_config.json` and `adapters.safetensors`.

A linear has `lora_a` (in, r) and `lora_b` (r, out), the transposes of PEFT's, and one `scale` for all of them is the
final factor. Modules are named inside a layer (`self_attn.q_proj`) or from the top (`lm_head`).
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riyaz.errors import RiyazError
from riyaz.layers import peft
from riyaz.layers.lora import Pair, put, unmatched
from riyaz.layers.swap import linears

WEIGHTS = "adapters.safetensors"
HALVES = ("lora_a", "lora_b")
LAYER = re.compile(r"(.*?\.)(\d+)\.(.*)")  # a module inside a layer: what stands before its number, number, key


def is_mlx(config: Mapping[str, Any]) -> bool:
    """Whether an adapter's configuration is one of mlx-lm, and not of PEFT."""
    return "peft_type" not in config and not config.keys().isdisjoint(("fine_tune_type", "lora_parameters"))


def read_config(path: Path) -> dict[str, Any]:
    """A configuration of a plain LoRA of mlx-lm. Raises RiyazError for any other."""
    config = peft.read_config(path)
    kind, parameters = config.get("fine_tune_type", "lora"), config.get("lora_parameters")
    if kind != "lora":
        raise RiyazError(f"fine_tune_type is {kind!r:.60}", str(path), "riyaz reads lora; fuse others with mlx-lm")
    if not isinstance(parameters, dict) or not isinstance(parameters.get("scale"), int | float):
        what = "lora_parameters has no number called scale"
    elif "alpha" in parameters:
        what = "lora_parameters has alpha, which some versions of mlx-lm multiply into the scale and others do not"
    elif not abs(parameters["scale"]) < 1e9:
        what = f"lora_parameters has the scale {parameters['scale']!r:.60}, not a number below 1e9"
    else:
        return config
    raise RiyazError(what, str(path), "write the final factor as scale and leave alpha out")


def load(model: nn.Module, folder: Path) -> None:
    """Put a folder of mlx-lm on the model; every tensor must find its layer, and every mismatch is named."""
    config = read_config(folder / peft.CONFIG)
    parameters = config["lora_parameters"]
    file = peft.open_weights(folder, WEIGHTS)
    layers, problems = dict(linears(model, None)), []
    halves: dict[str, dict[str, Tensor]] = {}
    for key, info in file.tensors.items():
        name, _, part = key.rpartition(".")
        if part not in HALVES or name not in layers:
            problems.append(unmatched(model, key))
        elif info.dtype not in peft.FLOATS or len(info.shape) != 2:
            problems.append(f"{key} is {info.dtype} {info.shape}, not a matrix of floats")
        else:
            halves.setdefault(name, {})[part] = peft.read_float(file, key).T.contiguous()
    pairs = {}
    for name, found in halves.items():
        if found.keys() != set(HALVES):
            problems.append(f"{name} has only {', '.join(found)}")
            continue
        pairs[name] = Pair(found["lora_a"], found["lora_b"], float(parameters["scale"]))
        if parameters.get("rank", len(found["lora_a"])) != len(found["lora_a"]):
            problems.append(
                f"{name} has rank {len(found['lora_a'])}, the configuration says {parameters['rank']!r:.60}"
            )
    if halves:  # else one line says that there are none
        problems += [f"{name} has no adapter tensor" for name in _bare(halves, layers, config)]
    put(model, pairs, {}, problems, folder)


def _bare(found: Collection[str], layers: Collection[str], config: Mapping[str, Any]) -> list[str]:
    """The linears that the configuration names and the file has nothing for: `keys` in the last `num_layers` layers,
    or by their whole path. What a configuration leaves out is taken from the file."""
    inside = {name: (int(match[2]), match[3]) for name in layers if (match := LAYER.fullmatch(name))}
    own = [inside[name] for name in found if name in inside]
    keys, count = config["lora_parameters"].get("keys"), config.get("num_layers")
    if not isinstance(keys, list):
        keys = [key for _, key in own]
    if isinstance(count, int):  # 0 and less are all layers
        first = 1 + max(layer for layer, _ in inside.values()) - count if count > 0 else 0
    else:
        first = min((layer for layer, _ in own), default=0)
    wanted = {name for name, (layer, key) in inside.items() if layer >= first and key in keys}
    return [name for name in layers if (name in wanted or name in keys) and name not in found]


def save(pairs: Mapping[str, Pair], folder: Path, *, base: str, n_layers: int) -> None:
    """Write pairs (by module path) as mlx-lm reads them. It knows one rank and one scale: smaller ranks are filled up
    with zeros, and what a layer's scale differs by goes into its `lora_b`. It knows the same linears in the last
    layers: those without an adapter among them have one of zeros."""
    rank = max(len(pair.a) for pair in pairs.values())
    scale = next((pair.scale for pair in pairs.values() if pair.scale), 1.0)
    tensors: dict[str, Tensor] = {}
    filled, count = _filled(pairs, n_layers)
    for name, pair in filled.items():
        more = rank - len(pair.a)
        factor = pair.scale / scale
        a, b = pair.a.detach().float(), pair.b.detach().float() * factor
        tensors[f"{name}.lora_a"] = torch.nn.functional.pad(a, (0, 0, 0, more)).T.contiguous()
        tensors[f"{name}.lora_b"] = torch.nn.functional.pad(b, (0, more)).T.contiguous()
    keys = sorted({match[3] if (match := LAYER.fullmatch(name)) else name for name in pairs})
    config: dict[str, Any] = {
        "model": base, "fine_tune_type": "lora", "num_layers": count,
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys},
    }  # fmt: skip
    peft.write(folder, config, tensors, WEIGHTS)


def _filled(pairs: Mapping[str, Pair], n_layers: int) -> tuple[dict[str, Pair], int]:
    """The pairs with zeros where only other layers have one, and how many last layers hold them all."""
    inside = {name: match for name in pairs if (match := LAYER.fullmatch(name))}
    first = min((int(match[2]) for match in inside.values()), default=n_layers - 1)
    filled = dict(pairs)
    for name, match in inside.items():
        zeros = Pair(torch.zeros_like(pairs[name].a), torch.zeros_like(pairs[name].b), pairs[name].scale)
        for layer in range(first, n_layers):
            filled.setdefault(f"{match[1]}{layer}.{match[3]}", zeros)
    return filled, n_layers - first
