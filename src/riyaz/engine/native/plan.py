"""What the C++ model is told of a model: its settings, and which tensor is which part of it.

The C++ model is one transformer with options; a family is a choice of them, which its module in `families` makes.
"""

import re
from typing import Any

import numpy as np

from riyaz.families import FAMILIES, ModelConfig

LAYER = re.compile(r"blk\.(\d+)\.(.+)")
HEAD = "lm_head.weight"
# GGUF name of a tensor without "blk.N." and ".weight" -> the C++ model's name of it; for a bias both have an ending
SLOTS = {
    "attn_norm": "attention_norm",
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_qkv": "q",  # the rows of q, k and v in one matrix
    "attn_q_norm": "q_norm",
    "attn_k_norm": "k_norm",
    "attn_sub_norm": "attention_sub_norm",
    "attn_output": "o",
    "post_attention_norm": "post_attention_norm",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_sub_norm": "mlp_sub_norm",
    "ffn_down": "down",
    "post_ffw_norm": "post_mlp_norm",
    "token_embd": "embedding",
    "position_embd": "positions",
    "output_norm": "final_norm",
    "output": "head",
}


def places(config: ModelConfig) -> dict[str, tuple[int, str]]:
    """(layer, slot) in the C++ model of every tensor, by Hugging Face name; the tensors outside the layers have the
    number of layers as theirs."""
    names = FAMILIES[config.model_type].names(config) | {HEAD: "output.weight"}  # which a tied model has not
    return {name: _place(config.n_layers, gguf_name) for name, gguf_name in names.items()}


def _place(n_layers: int, gguf_name: str) -> tuple[int, str]:
    match = LAYER.fullmatch(gguf_name)
    layer, name = (int(match[1]), match[2]) if match else (n_layers, gguf_name)
    stem, kind = name.rsplit(".", 1)
    return layer, SLOTS[stem] + ("_bias" if kind == "bias" else "")


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
