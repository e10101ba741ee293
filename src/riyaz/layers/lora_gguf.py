"""LoRA in the adapter files of llama.cpp: GGUF tensors `NAME.lora_a` (r, in) and `NAME.lora_b` (out, r).

llama.cpp multiplies by alpha / rank, where the rank is each tensor's own and alpha one number of the file; an alpha of
0 counts as no factor at all. The rows of `lora_b` lie as those of the model's own tensor.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from riyaz.errors import RiyazError
from riyaz.layers import peft
from riyaz.layers.lora import Pair, put
from riyaz.sources import gguf
from riyaz.sources.gguf_write import Planned, write

FILE = "adapter.gguf"
ALPHA = "adapter.lora.alpha"
HALVES = ("lora_a", "lora_b")
Names = Mapping[str, str]  # Hugging Face name -> GGUF name of the model's tensors
Layout = Callable[[str, np.ndarray], np.ndarray]  # (Hugging Face name, rows) -> rows in the other order


def save(pairs: Mapping[str, Pair], path: Path, architecture: str, name: str, names: Names, to_gguf: Layout) -> None:
    """Write pairs (by module path) as one file. Where layers need different alphas, the one of the first is written
    and the others' difference goes into their `lora_b`. RiyazError for a layer that has no name in GGUF."""
    lost = [module for module in pairs if f"{module}.weight" not in names]
    if lost:
        what = f"the adapter changes {', '.join(lost)}, which llama.cpp's file of this model does not have on its own"
        raise RiyazError(what, path.name, "export it with --format gguf, which merges it")
    alpha = next((pair.scale * len(pair.a) for pair in pairs.values() if pair.scale), 1.0)
    planned = []
    for module, pair in pairs.items():
        stored, factor = names[f"{module}.weight"], pair.scale * len(pair.a) / alpha
        b = to_gguf(f"{module}.weight", (pair.b.detach().float() * factor).numpy())
        for half, array in zip(HALVES, (pair.a.detach().float().numpy(), b)):
            planned.append(Planned(f"{stored}.{half}", array.shape, "F32", partial(np.asarray, array)))
    metadata = {
        "general.architecture": architecture, "general.type": "adapter", "general.name": name,
        "general.file_type": 0, "adapter.type": "lora", ALPHA: float(alpha),
    }  # fmt: skip
    write(path, metadata, planned)


def load(model: nn.Module, path: Path, architecture: str, names: Names, from_gguf: Layout) -> None:
    """Put an adapter file on the model; every tensor must find its layer, and every mismatch is named."""
    file = gguf.read(path)
    said = {key: file.metadata.get(key) for key in ("general.type", "adapter.type", "general.architecture")}
    if said != {"general.type": "adapter", "adapter.type": "lora", "general.architecture": architecture}:
        what = ", ".join(f"{key} is {value!r:.40}" for key, value in said.items())
        raise RiyazError(what, str(path), f"give a LoRA for a {architecture}")
    alpha = file.metadata.get(ALPHA)
    if not isinstance(alpha, int | float) or not abs(alpha) < 1e9:
        raise RiyazError(f"{ALPHA} is {alpha!r:.60}, not a number", str(path))
    modules = {stored: name.removesuffix(".weight") for name, stored in names.items()}
    problems: list[str] = []
    halves: dict[str, dict[str, Tensor]] = {}
    for key, info in file.tensors.items():
        stored, _, half = key.rpartition(".")
        if half not in HALVES or stored not in modules or len(info.shape) != 2:
            problems.append(f"{key} matches no layer")
        elif info.dtype not in peft.FLOATS:
            problems.append(f"{key} has the type {info.dtype}")
        else:
            halves.setdefault(modules[stored], {})[half] = _floats(file, key)
    pairs = {}
    for module, found in halves.items():
        if found.keys() != set(HALVES):
            problems.append(f"{module} has only {', '.join(found)}")
            continue
        b = found["lora_b"]
        if list(model.get_parameter(f"{module}.weight").shape[:1]) == list(b.shape[:1]):
            b = torch.from_numpy(np.array(from_gguf(f"{module}.weight", b.numpy())))
        pairs[module] = Pair(found["lora_a"], b, alpha / b.shape[1] if alpha else 1.0)
    put(model, pairs, {}, problems, path)


def _floats(file: gguf.GGUFFile, key: str) -> Tensor:
    array = file.array(key)
    if file.tensors[key].dtype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return torch.from_numpy(np.array(array, np.float32))
