"""What the C++ model is told of each family: its settings, and which tensor is which part of it.

The C++ model is one transformer with options; a family is a choice of them.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from riyaz.families import ModelConfig
from riyaz.families.rope import divisors

LAYER = re.compile(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.+)")
# Hugging Face name of a tensor, without "model.layers.N.", -> the C++ model's name of it
SLOTS = {
    "input_layernorm.weight": "attention_norm",
    "self_attn.q_proj.weight": "q",
    "self_attn.k_proj.weight": "k",
    "self_attn.v_proj.weight": "v",
    "self_attn.q_proj.bias": "q_bias",
    "self_attn.k_proj.bias": "k_bias",
    "self_attn.v_proj.bias": "v_bias",
    "self_attn.q_norm.weight": "q_norm",
    "self_attn.k_norm.weight": "k_norm",
    "self_attn.attn_sub_norm.weight": "attention_sub_norm",
    "self_attn.o_proj.weight": "o",
    "self_attn.o_proj.bias": "o_bias",
    "post_attention_layernorm.weight": "mlp_norm",
    "mlp.gate_proj.weight": "gate",
    "mlp.up_proj.weight": "up",
    "mlp.ffn_sub_norm.weight": "mlp_sub_norm",
    "mlp.down_proj.weight": "down",
    "mlp.gate_proj.bias": "gate_bias",
    "mlp.up_proj.bias": "up_bias",
    "mlp.down_proj.bias": "down_bias",
}
GEMMA = {  # what gemma3 calls by the same name as the others and means differently, and what it has more
    "post_attention_layernorm.weight": "post_attention_norm",
    "pre_feedforward_layernorm.weight": "mlp_norm",
    "post_feedforward_layernorm.weight": "post_mlp_norm",
}
GPT2 = {
    "ln_1.weight": "attention_norm",
    "ln_1.bias": "attention_norm_bias",
    "attn.c_attn.weight": "q",  # the rows of q, k and v in one matrix
    "attn.c_attn.bias": "q_bias",
    "attn.c_proj.weight": "o",
    "attn.c_proj.bias": "o_bias",
    "ln_2.weight": "mlp_norm",
    "ln_2.bias": "mlp_norm_bias",
    "mlp.c_fc.weight": "up",
    "mlp.c_fc.bias": "up_bias",
    "mlp.c_proj.weight": "down",
    "mlp.c_proj.bias": "down_bias",
}
OUTER = {
    "model.embed_tokens.weight": "embedding",
    "model.norm.weight": "final_norm",
    "lm_head.weight": "head",
    "transformer.wte.weight": "embedding",
    "transformer.wpe.weight": "positions",
    "transformer.ln_f.weight": "final_norm",
    "transformer.ln_f.bias": "final_norm_bias",
}


@dataclass(frozen=True)
class Place:
    """Where a tensor stands in the C++ model; the tensors outside the layers have the number of layers as theirs."""

    layer: int
    slot: str


def place(config: ModelConfig, name: str) -> Place | None:
    """The place of a tensor by its Hugging Face name; None if it is no tensor of the model."""
    if name in OUTER:
        return Place(config.n_layers, OUTER[name])
    match = LAYER.fullmatch(name)
    names = GPT2 if config.model_type == "gpt2" else SLOTS | GEMMA if config.model_type == "gemma3" else SLOTS
    if match is None or match[2] not in names:
        return None
    return Place(int(match[1]), names[match[2]])


def is_scaled_by_one_more(config: ModelConfig, name: str) -> bool:
    """Whether the tensor is the weight of a norm that scales by 1 + weight."""
    return config.model_type == "gemma3" and name.endswith("norm.weight")


def settings(config: Any, fp32: bool, kv: str) -> dict[str, Any]:
    """The settings of the C++ model: `fp32` has it take inputs of products in float32, `kv` is the type of keys and
    values."""
    layers, half = config.n_layers, config.head_dim // 2
    common = {
        "layers": layers,
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
        "eps": getattr(config, "rms_norm_eps", 0.0),
        "embedding_scale": 1.0,
        "query_scale": 1.0,
        "logit_cap": 0.0,
        "activation": getattr(config, "activation", "silu"),
        "windows": [getattr(config, "window", None) or 0] * layers,
        "rotations": [0] * layers,
        "frequencies": [],
        "position_divisors": [1.0],
    }
    if config.model_type == "gpt2":
        gpt2 = {"layer_norm": True, "eps": config.layer_norm_eps, "activation": "gelu_tanh"}
        return common | gpt2 | {"rotations": [-1] * layers, "position_divisors": []}
    exponents = np.arange(half, dtype=np.float32) * 2 / config.head_dim
    if config.model_type == "gemma3":
        local = {
            "embedding_scale": math.sqrt(config.hidden_size),
            "query_scale": math.sqrt(config.head_dim / config.query_scale),
            "logit_cap": config.logit_cap or 0.0,
            "activation": "gelu_tanh",
            "windows": [config.window if near else 0 for near in config.local],
            "rotations": [1 if near else 0 for near in config.local],
            "position_divisors": [config.rope_factor, 1.0],
        }
        bases = (config.rope_theta, config.rope_local)
        return common | local | {"frequencies": [_frequencies(base, exponents) for base in bases]}
    scaling = getattr(config, "rope_scaling", None)
    frequencies: np.ndarray = np.array(_frequencies(config.rope_theta, exponents), np.float32)
    if scaling is not None:
        frequencies = frequencies / np.array(divisors(scaling, config.head_dim, config.rope_theta), np.float32)
    return common | {"frequencies": [frequencies.tolist()]}


def _frequencies(theta: float, exponents: np.ndarray) -> list[float]:
    """Angles per position (D / 2,) of RoPE with the base `theta`."""
    frequencies: list[float] = np.power(np.float32(theta), -exponents, dtype=np.float32).tolist()
    return frequencies
