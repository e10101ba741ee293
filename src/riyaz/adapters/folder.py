"""The files of an adapter folder of PEFT or mlx-lm: a JSON configuration and a safetensors file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from riyaz.adapters.adapter import float32
from riyaz.errors import RiyazError
from riyaz.json_files import read_json, write_json
from riyaz.sources import safetensors
from riyaz.sources.tensor_files import not_finite

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base"  # a folder with the base model, where it goes along with the adapter
PEFT_KINDS: dict[str, Literal["lora", "prompt"]] = {"LORA": "lora", "PROMPT_TUNING": "prompt"}  # peft_type -> kind


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object of an adapter's configuration. Raises RiyazError."""
    config = read_json(path, "the adapter cannot be read without it")
    if not isinstance(config, dict):
        raise RiyazError("the adapter's configuration is not a JSON object", str(path))
    return config


def kind_of(path: Path) -> Literal["lora", "prompt", "mlx"]:
    """The kind of adapter that a configuration file describes: PEFT's LoRA, PEFT's prompt tuning, or mlx-lm's LoRA.
    Raises RiyazError for any other."""
    config = read_config(path)
    if "peft_type" not in config and not config.keys().isdisjoint(("fine_tune_type", "lora_parameters")):
        return "mlx"
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in PEFT_KINDS:
        raise RiyazError(f"peft_type is {kind!r:.60}", str(path), f"riyaz reads {' and '.join(PEFT_KINDS)}")
    return PEFT_KINDS[kind]


def open_weights(folder: Path, weights: str = WEIGHTS) -> safetensors.SafetensorsFile:
    """The adapter's safetensors file. Raises RiyazError if it is missing, with a hint when there is a pickle
    instead."""
    if not (folder / weights).exists():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".npz"))
        hint = f"riyaz does not read {others[0]}; save it as safetensors" if others else "copy or download all files"
        raise RiyazError(f"the adapter's folder holds no {weights}", str(folder), hint)
    return safetensors.read(folder / weights)


def read_float(file: safetensors.SafetensorsFile, key: str) -> np.ndarray:
    """A float32 copy of a tensor whose type is one of FLOATS. Raises RiyazError for NaN or an infinity."""
    return finite(file.path, key, float32(file.tensors[key].dtype, file.array(key)))


def finite(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    """The values of a tensor. Raises RiyazError, which names the first, where one is NaN or infinite."""
    what = not_finite(key, "F32", values)
    if what:
        raise RiyazError(what, str(path), "the adapter is damaged: download or train it again")
    return values


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], weights: str = WEIGHTS) -> None:
    """Write the configuration and the tensors, as float32, into an existing folder."""
    arrays: dict[str, Any] = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
    safetensors.write(folder / weights, arrays, {"format": "pt"})
    write_json(folder / CONFIG, config, ascii=True)
