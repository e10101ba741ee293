"""Soft prompt folders of PEFT: prompt tuning (Lester et al. 2021, arXiv 2104.08691)."""

from pathlib import Path
from typing import Any

import numpy as np

from riyaz.adapters import folder as folders
from riyaz.adapters.adapter import FLOATS, Adapter
from riyaz.errors import RiyazError, few
from riyaz.families import Family, ModelConfig

KEY = "prompt_embeddings"


def read(folder: Path, family: Family[ModelConfig]) -> Adapter:
    """The soft prompt of a PEFT folder. Raises RiyazError if it does not fit the base."""
    config = read_config(folder / folders.CONFIG)
    file = folders.open_weights(folder)
    count, size = config.get("num_virtual_tokens"), config.get("token_dim")
    width, context = family.config.hidden_size, family.config.context
    if set(file.tensors) != {KEY} or file.tensors[KEY].dtype not in FLOATS:
        problem = f"its tensors are {few(sorted(file.tensors)) or 'none'}, not only {KEY}, in floats"
    elif file.tensors[KEY].shape != (count, size):
        problem = f"{KEY} is {file.tensors[KEY].shape}, the configuration says {count!r:.20} × {size!r:.20}"
    elif size != width or not 0 < file.tensors[KEY].shape[0] < context:
        problem = f"it has {count} vectors of size {size}, the model takes size {width} and {context} tokens of context"
    else:
        return Adapter(soft_prompt=folders.read_float(file, KEY))
    raise RiyazError(f"the soft prompt does not fit the base: {problem}", str(folder))


def write(
    prompt: np.ndarray, folder: Path, family: Family[ModelConfig], *, base: str, revision: str | None = None
) -> None:
    """Write a soft prompt (P, C) as a PEFT folder with a float32 tensor. `revision` is that of the base's repository on
    the hub."""
    config: dict[str, Any] = {
        "peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "base_model_name_or_path": base,
        "num_virtual_tokens": len(prompt), "token_dim": prompt.shape[1], "num_transformer_submodules": 1,
        "num_attention_heads": family.config.n_heads, "num_layers": family.config.n_layers,
        # with "TEXT" PEFT would load a tokenizer, although the file's vectors replace the initial ones
        "prompt_tuning_init": "RANDOM", "prompt_tuning_init_text": None, "tokenizer_name_or_path": None,
        "inference_mode": True,
    }  # fmt: skip
    if revision is not None:
        config["revision"] = revision
    folders.write(folder, config, {KEY: prompt})


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of PEFT prompt tuning. Raises RiyazError for any other kind of adapter."""
    config = folders.read_config(path)
    if config.get("peft_type") != "PROMPT_TUNING":
        what = f"peft_type is {config.get('peft_type')!r:.60}, not 'PROMPT_TUNING'"
    elif config.get("num_transformer_submodules") not in (1, None):
        what = f"num_transformer_submodules is {config['num_transformer_submodules']!r:.60}, not 1"
    elif config.get("modules_to_save"):
        what = "the soft prompt uses modules_to_save"
    else:
        return config
    raise RiyazError(what, str(path), "riyaz reads prompt tuning of decoders without other trained modules")
