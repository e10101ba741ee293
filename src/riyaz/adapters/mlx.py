"""LoRA folders of mlx-lm: `adapter_config.json` and `adapters.safetensors`.

A linear has `lora_a` (in, r) and `lora_b` (r, out), the transposes of PEFT's; all products are multiplied by one
`scale`. The configuration names modules by their path inside a layer (`self_attn.q_proj`) or in the model (`lm_head`).
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.adapters import folder as folders
from riyaz.adapters.adapter import FLOATS, Adapter, Pair
from riyaz.adapters.base_shapes import checked_adapter, shapes_of
from riyaz.errors import RiyazError
from riyaz.families import Family, ModelConfig

WEIGHTS = "adapters.safetensors"
HALVES = ("lora_a", "lora_b")
LAYER = re.compile(r"(.*?\.)(\d+)\.(.*)")  # path of a module in a layer: (prefix, layer number, path inside the layer)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of an mlx-lm LoRA. Raises RiyazError for any other kind of adapter."""
    config = folders.read_config(path)
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


def read(folder: Path, family: Family[ModelConfig]) -> Adapter:
    """The LoRA of an mlx-lm folder. Raises RiyazError, which lists every tensor without a matching layer and every
    linear without its tensors."""
    config = read_config(folder / folders.CONFIG)
    parameters = config["lora_parameters"]
    file = folders.open_weights(folder, WEIGHTS)
    shapes = shapes_of(family)
    problems: list[str] = []
    halves: dict[str, dict[str, np.ndarray]] = {}
    for key, info in file.tensors.items():
        name, _, part = key.rpartition(".")
        if part not in HALVES or name not in shapes.linears:
            problems.append(shapes.unmatched(key.partition(".lora_")[0], key))
        elif info.dtype not in FLOATS or len(info.shape) != 2:
            problems.append(f"{key} is {info.dtype} {info.shape}, not a matrix of floats")
        else:
            halves.setdefault(name, {})[part] = np.ascontiguousarray(folders.read_float(file, key).T)
    pairs = {}
    for name, parts in halves.items():
        if parts.keys() != set(HALVES):
            problems.append(f"{name} has only {', '.join(parts)}")
            continue
        pair = pairs[name] = Pair(parts["lora_a"], parts["lora_b"], float(parameters["scale"]))
        if parameters.get("rank", pair.rank) != pair.rank:
            problems.append(f"{name} has rank {pair.rank}, the configuration says {parameters['rank']!r:.60}")
    if halves:  # without any, `checked_adapter` reports one problem for the whole file
        problems += [f"{name} has no adapter tensor" for name in _missing(halves, shapes.linears, config)]
    return checked_adapter(shapes, pairs, {}, problems, folder)


def _missing(present: Collection[str], linears: Collection[str], config: Mapping[str, Any]) -> list[str]:
    """The linears that the configuration names (`keys` in the last `num_layers` layers, or whole paths) and the file
    has no tensors for. Without `keys` or `num_layers` in the configuration, the values are inferred from `present`."""
    inside = {name: (int(match[2]), match[3]) for name in linears if (match := LAYER.fullmatch(name))}
    present_inside = [inside[name] for name in present if name in inside]
    keys, count = config["lora_parameters"].get("keys"), config.get("num_layers")
    if not isinstance(keys, list):
        keys = [key for _, key in present_inside]
    if isinstance(count, int):  # 0 or less means all layers
        first = 1 + max(layer for layer, _ in inside.values()) - count if count > 0 else 0
    else:
        first = min((layer for layer, _ in present_inside), default=0)
    wanted = {name for name, (layer, key) in inside.items() if layer >= first and key in keys}
    return [name for name in linears if (name in wanted or name in keys) and name not in present]


def write(pairs: Mapping[str, Pair], folder: Path, family: Family[ModelConfig], *, base: str) -> None:
    """Write pairs (by module path) as an mlx-lm folder. The format has one rank and one scale, so smaller ranks are
    padded with zeros, and `lora_b` is multiplied by the ratio of the pair's scale to the written one. It adapts the
    same linears in each of the last layers, so linears without a pair among them get a pair of zeros."""
    rank = max(pair.rank for pair in pairs.values())
    scale = next((pair.scale for pair in pairs.values() if pair.scale), 1.0)
    tensors: dict[str, np.ndarray] = {}
    filled, count = _filled(pairs, family.config.n_layers)
    for name, pair in filled.items():
        padding = rank - pair.rank
        b = pair.b * (pair.scale / scale)
        tensors[f"{name}.lora_a"] = np.pad(pair.a, ((0, padding), (0, 0))).T
        tensors[f"{name}.lora_b"] = np.pad(b, ((0, 0), (0, padding))).T
    keys = sorted({match[3] if (match := LAYER.fullmatch(name)) else name for name in pairs})
    config: dict[str, Any] = {
        "model": base, "fine_tune_type": "lora", "num_layers": count,
        "lora_parameters": {"rank": rank, "scale": scale, "dropout": 0.0, "keys": keys},
    }  # fmt: skip
    folders.write(folder, config, tensors, WEIGHTS)


def _filled(pairs: Mapping[str, Pair], n_layers: int) -> tuple[dict[str, Pair], int]:
    """The pairs, with a pair of zeros added wherever only other layers have one, and the number of last layers that
    hold them all."""
    inside = {name: match for name in pairs if (match := LAYER.fullmatch(name))}
    first = min((int(match[2]) for match in inside.values()), default=n_layers - 1)
    filled = dict(pairs)
    for name, match in inside.items():
        zeros = Pair(np.zeros_like(pairs[name].a), np.zeros_like(pairs[name].b), pairs[name].scale)
        for layer in range(first, n_layers):
            filled.setdefault(f"{match[1]}{layer}.{match[3]}", zeros)
    return filled, n_layers - first
