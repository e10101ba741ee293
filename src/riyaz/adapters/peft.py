"""LoRA folders of PEFT: A is (r, in) and B (out, r); modules trained whole have the layout of the base's checkpoint.

rsLoRA (Kalajdzievski 2023, arXiv 2312.03732) scales by α/√r instead of α/r. Test oracle: the `peft` package.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.adapters import folder as folders
from riyaz.adapters import peft_config
from riyaz.adapters.adapter import FLOATS, Adapter, Pair
from riyaz.adapters.base_shapes import BaseShapes, checked_adapter, differs_from_base, shapes_of
from riyaz.families import Family, ModelConfig, transposed

PREFIX = "base_model.model."
HALVES = ("lora_A", "lora_B")


def read(folder: Path, family: Family[ModelConfig]) -> Adapter:
    """The LoRA of a PEFT folder. Raises RiyazError, which lists every tensor without a matching layer and every module
    without its tensors."""
    config = peft_config.read_config(folder / folders.CONFIG)
    file = folders.open_weights(folder)
    shapes = shapes_of(family)
    halves: dict[str, dict[str, np.ndarray]] = {}
    whole: dict[str, np.ndarray] = {}
    tied = bool(config.get("ensure_weight_tying")) and family.config.tie_word_embeddings
    problems = []
    for key, info in file.tensors.items():
        path = key.removeprefix(PREFIX)
        name, _, part = path.removesuffix(".weight").rpartition(".")
        plain = path.replace(".base_layer.", ".")
        if key.startswith(PREFIX) and info.dtype not in FLOATS:
            problems.append(f"{key} has the type {info.dtype}")
        elif key.startswith(PREFIX) and part in HALVES and name in shapes.linears:
            halves.setdefault(name, {})[part] = folders.read_float(file, key)
        elif key.startswith(PREFIX) and (peft_config.is_saved(path, config) or (tied and path in shapes.ends)):
            whole[path] = _other_layout(family, path, folders.read_float(file, key))
        elif key.startswith(PREFIX) and plain in shapes.ends:  # of the base: PEFT saves it if it is a target
            problems += differs_from_base(family, plain, folders.read_float(file, key))
        else:
            problems.append(shapes.unmatched(path.partition(".lora_")[0], key))
    pairs: dict[str, Pair] = {}
    for name, parts in halves.items():
        if parts.keys() != set(HALVES):
            problems.append(f"{name} has only {', '.join(parts)}")
            continue
        rank = parts["lora_A"].shape[0] if parts["lora_A"].ndim else 0
        pairs[name] = Pair(parts["lora_A"], parts["lora_B"], peft_config.scale(name, rank, config))
        problems += peft_config.wrong_rank(name, rank, config)
    problems += peft_config.missing_tensors(halves, whole, shapes.linears, shapes.parameters, config)
    if tied:
        trained = [whole[path] for path in shapes.ends if path in whole]
        whole |= dict.fromkeys(shapes.ends, trained[0]) if trained else {}
    return checked_adapter(shapes, pairs, whole, problems, folder)


def write(
    adapter: Adapter,
    folder: Path,
    family: Family[ModelConfig],
    *,
    base: str,
    revision: str | None = None,
    alpha: float | None = None,
) -> None:
    """Write a LoRA as a PEFT folder with float32 tensors. Without `alpha`, α is scale · r, by pattern if layers differ:
    plain LoRA, which every tool understands. `revision` is that of the base's repository on the hub."""
    pairs, tensors = adapter.pairs, {}
    for name, pair in pairs.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = pair.a
        tensors[f"{PREFIX}{name}.lora_B.weight"] = pair.b
    for path, tensor in adapter.whole.items():
        tensors[f"{PREFIX}{path}"] = _other_layout(family, path, tensor)
    ranks = {name: pair.rank for name, pair in pairs.items()}
    alphas = {name: alpha or pair.scale * pair.rank for name, pair in pairs.items()}
    rank, usual_alpha = _usual(ranks, peft_config.DEFAULT_RANK), _usual(alphas, peft_config.DEFAULT_ALPHA)
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
        "r": rank, "lora_alpha": usual_alpha, "lora_dropout": 0.0, "bias": "none",
        "target_modules": _targets(shapes_of(family), pairs), "fan_in_fan_out": _is_transposed(family, pairs),
        "inference_mode": True, "modules_to_save": sorted(adapter.whole_modules) or None,
    }  # fmt: skip
    if revision is not None:
        config["revision"] = revision
    # older loaders fail on keys that they do not know, so these are written only if they are needed
    if any(ranks[name] != rank for name in ranks):
        config["rank_pattern"] = {name: r for name, r in ranks.items() if r != rank}
    if any(alphas[name] != usual_alpha for name in alphas):
        config["alpha_pattern"] = {name: value for name, value in alphas.items() if value != usual_alpha}
    folders.write(folder, config, tensors)


def _is_transposed(family: Family[ModelConfig], names: Iterable[str]) -> bool:
    """Whether the base's checkpoint holds one of these linears as (in, out). A and B do not depend on it."""
    return any(transposed(family.model_type, f"{name}.weight") for name in names)


def _other_layout(family: Family[ModelConfig], path: str, tensor: np.ndarray) -> np.ndarray:
    """A parameter changed from the layout of the base's checkpoint to riyaz's (out, in), or back."""
    return np.ascontiguousarray(tensor.T) if transposed(family.model_type, path) else tensor


def _usual(values: Mapping[str, Any], default: Any) -> Any:
    """The most frequent value, or `default` if there is none."""
    listed = list(values.values())
    return max(listed, key=listed.count) if listed else default


def _targets(shapes: BaseShapes, names: Iterable[str]) -> list[str]:
    """`target_modules` for these linears: the last parts of their paths, or whole paths if a last part would also match
    linears without LoRA."""
    paths = set(names)
    last = {name.rsplit(".", 1)[-1] for name in paths}
    named = {name for name in shapes.linears if name.rsplit(".", 1)[-1] in last}
    return sorted(paths) if named - paths else sorted(last)
