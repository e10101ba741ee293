"""LoRA adapter files of llama.cpp: GGUF tensors `NAME.lora_a` (r, in) and `NAME.lora_b` (out, r).

llama.cpp scales a product by alpha / rank, with one alpha for the whole file and each tensor's own rank; an alpha of 0
means a scale of 1. The rows of `lora_b` are in the order of the rows of the model's tensor.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from riyaz.adapters.adapter import FLOATS, Adapter, Pair, float32
from riyaz.adapters.base_shapes import checked_adapter, shapes_of
from riyaz.adapters.folder import finite
from riyaz.errors import RiyazError
from riyaz.families import FAMILIES, Family, ModelConfig
from riyaz.sources import gguf
from riyaz.sources.gguf_write import PlannedTensor
from riyaz.sources.gguf_write import write as write_gguf

FILE = "adapter.gguf"
ALPHA = "adapter.lora.alpha"
HALVES = ("lora_a", "lora_b")


def write(pairs: Mapping[str, Pair], path: Path, family: Family[ModelConfig], *, name: str) -> None:
    """Write pairs (by module path) to a file whose metadata holds `name`. If layers need different alphas, the first
    pair's is written and every other `lora_b` is multiplied by the ratio of its alpha to the first. Raises RiyazError
    for a linear that has no GGUF name."""
    module = FAMILIES[family.model_type]
    gguf_names = module.names(family.config)
    unnamed = [linear for linear in pairs if f"{linear}.weight" not in gguf_names]
    if unnamed:
        what = f"the adapter changes {', '.join(unnamed)}, which a GGUF file of this model does not hold separately"
        raise RiyazError(what, path.name, "export it with --format gguf, which merges the adapter")
    alpha = next((pair.scale * pair.rank for pair in pairs.values() if pair.scale), 1.0)
    planned = []
    for linear, pair in pairs.items():
        stored, factor = gguf_names[f"{linear}.weight"], pair.scale * pair.rank / alpha
        b = module.to_gguf_layout(family.config, f"{linear}.weight", pair.b * factor)
        for half, array in zip(HALVES, (pair.a, b)):
            planned.append(PlannedTensor(f"{stored}.{half}", array.shape, "F32", partial(np.asarray, array)))
    metadata = {
        "general.architecture": _architecture(family), "general.type": "adapter", "general.name": name,
        "general.file_type": 0, "adapter.type": "lora", ALPHA: float(alpha),
    }  # fmt: skip
    write_gguf(path, metadata, planned)


def read(path: Path, family: Family[ModelConfig]) -> Adapter:
    """The LoRA of a file. Raises RiyazError, which lists every tensor without a matching layer."""
    file = gguf.read(path)
    module, architecture = FAMILIES[family.model_type], _architecture(family)
    header = {key: file.metadata.get(key) for key in ("general.type", "adapter.type", "general.architecture")}
    if header != {"general.type": "adapter", "adapter.type": "lora", "general.architecture": architecture}:
        what = ", ".join(f"{key} is {value!r:.40}" for key, value in header.items())
        raise RiyazError(what, str(path), f"give a LoRA for a model of the architecture {architecture}")
    alpha = file.metadata.get(ALPHA)
    if not isinstance(alpha, int | float) or not abs(alpha) < 1e9:
        raise RiyazError(f"{ALPHA} is {alpha!r:.60}, not a number", str(path))
    shapes = shapes_of(family)
    linears = {stored: name.removesuffix(".weight") for name, stored in module.names(family.config).items()}
    problems: list[str] = []
    halves: dict[str, dict[str, np.ndarray]] = {}
    for key, info in file.tensors.items():
        stored, _, half = key.rpartition(".")
        if half not in HALVES or stored not in linears or len(info.shape) != 2:
            problems.append(f"{key} matches no layer")
        elif info.dtype not in FLOATS:
            problems.append(f"{key} has the type {info.dtype}")
        else:
            halves.setdefault(linears[stored], {})[half] = finite(path, key, float32(info.dtype, file.array(key)))
    pairs = {}
    for linear, parts in halves.items():
        if parts.keys() != set(HALVES):
            problems.append(f"{linear} has only {', '.join(parts)}")
            continue
        b = parts["lora_b"]
        if shapes.linears.get(linear, ())[:1] == b.shape[:1]:
            b = np.array(module.from_gguf_layout(family.config, f"{linear}.weight", b))
        pairs[linear] = Pair(parts["lora_a"], b, alpha / b.shape[1] if alpha else 1.0)
    return checked_adapter(shapes, pairs, {}, problems, path)


def _architecture(family: Family[ModelConfig]) -> str:
    """The value of `general.architecture` in a GGUF file of the family."""
    return str(FAMILIES[family.model_type].gguf_metadata(family.config)["general.architecture"])
