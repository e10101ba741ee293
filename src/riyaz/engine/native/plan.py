"""The settings and tensor slots that describe a model to the C++ engine.

The C++ model is one transformer with options; a family is a choice of them, which its module in `families` makes.
"""

import re
from typing import Any

import numpy as np

from riyaz.families import FAMILIES, ModelConfig

HEAD = {"lm_head.weight": "output.weight"}  # an adapter may bring one to a model whose own is tied
LAYER = re.compile(r"blk\.(\d+)\.(.+)")


def places(config: ModelConfig) -> dict[str, tuple[int, str]]:
    """(layer, slot) in the C++ model of every tensor, by Hugging Face name. A slot has the tensor's name in GGUF; those
    outside the layers have the number of layers as theirs."""
    names = FAMILIES[config.model_type].names(config) | HEAD
    return {name: _place(config.n_layers, gguf_name) for name, gguf_name in names.items()}


def _place(n_layers: int, gguf_name: str) -> tuple[int, str]:
    if match := LAYER.fullmatch(gguf_name):
        return int(match[1]), match[2].replace("attn_qkv", "attn_q")  # one matrix holds the rows of q, k and v
    return n_layers, gguf_name


def to_native_layout(config: ModelConfig, name: str, vector: np.ndarray) -> np.ndarray:
    """A norm's weight or a bias as the C++ model takes it."""
    module = FAMILIES[config.model_type]
    array: np.ndarray = module.to_native_layout(config, name, vector) if hasattr(module, "to_native_layout") else vector
    return array


def settings(config: ModelConfig, fp32: bool, kv: str) -> dict[str, Any]:
    """The settings of the C++ model: `fp32` has it take inputs of products in float32, `kv` is the type of keys and
    values."""
    defaults = {
        "layers": config.n_layers,
        "hidden": config.hidden_size,
        "heads": config.n_heads,
        "kv_heads": config.n_kv_heads,
        "head": config.head_dim,
        "inner": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "context": config.context,
        "fp32": fp32,
        "kv": kv,
        "layer_norm": False,
        "embedding_scale": 1.0,
        "query_scale": 1.0,
        "logit_cap": 0.0,
        "activation": "silu",
        "windows": [0] * config.n_layers,
        "rotations": [-1] * config.n_layers,
        "frequencies": [],
        "position_divisors": [],
    }
    return defaults | FAMILIES[config.model_type].native_settings(config)
