"""What the adapter folders of PEFT and mlx-lm share: a configuration and a file of tensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from riyaz.errors import RiyazError
from riyaz.sources import safetensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FLOATS = ("F32", "F16", "BF16")


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of an adapter's configuration. Raises RiyazError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RiyazError(f"cannot read the adapter's configuration ({error})", str(path)) from error
    if not isinstance(config, dict):
        raise RiyazError("the adapter's configuration is not a JSON object", str(path))
    return config


def open_weights(folder: Path, weights: str = WEIGHTS) -> safetensors.SafetensorsFile:
    """The adapter's file of tensors. Raises RiyazError when there is none, or only one of pickles."""
    if not (folder / weights).exists():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".npz"))
        hint = f"riyaz does not read {others[0]}; save it as safetensors" if others else "copy or download all of it"
        raise RiyazError(f"the adapter's folder holds no {weights}", str(folder), hint)
    return safetensors.read(folder / weights)


def read_float(file: safetensors.SafetensorsFile, key: str) -> torch.Tensor:
    """A tensor of one of the types FLOATS in float32, a copy of its own."""
    array = file.array(key)
    if file.tensors[key].dtype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return torch.from_numpy(np.array(array.astype(np.float32)))


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], weights: str = WEIGHTS) -> None:
    """Write the folder; float32 tensors."""
    arrays: dict[str, Any] = {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    safetensors.write(folder / weights, arrays, {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
