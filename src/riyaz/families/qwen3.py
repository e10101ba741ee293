"""The Qwen3 family, a llama with norms on queries and keys: configuration, tensor names, shapes; torch-free.

The head size is a separate setting, often not hidden size / heads. Sliding-window attention is not supported, nor are
mixtures of experts, which have another model_type.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.errors import RiyazError
from riyaz.families import checks, decoder, rope
from riyaz.families.rope import Scaling
from riyaz.sources import TensorInfo

MODEL_TYPE = "qwen3"
DEFAULTS = {"rms_norm_eps": 1e-6, "context": 32768}  # transformers' defaults for keys missing in config.json
# keys with the only supported value; a missing key counts as that value
FIXED = {"hidden_act": "silu", "use_sliding_window": False, "quantization_config": None}
# Hugging Face name without "model.layers.N." -> GGUF name without "blk.N."
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
native_settings = decoder.native_settings


@dataclass(frozen=True)
class Qwen3Config:
    """The sizes and settings of a Qwen3 model."""

    model_type: ClassVar[str] = MODEL_TYPE
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    context: int
    tie_word_embeddings: bool
    attention_bias: bool = False
    rope_scaling: Scaling | None = None


def from_hf(metadata: Mapping[str, Any]) -> Qwen3Config:
    """The configuration from a config.json. Raises RiyazError listing every missing, wrong or unsupported key."""
    problems: list[str] = []
    values = decoder.hf_values(metadata, DEFAULTS, problems)
    if values["head_dim"] is None:
        values["head_dim"] = 128  # transformers' default, not hidden size / heads
    checks.check_fixed(metadata, FIXED, problems)
    values |= checks.booleans(metadata, {"tie_word_embeddings": False, "attention_bias": False}, problems)
    return Qwen3Config(**decoder.checked_hf(values, problems))


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Qwen3Config:
    """The configuration from GGUF metadata; head tying, biases and vocabulary size are derived from the tensors.
    Raises RiyazError listing all problems."""
    problems: list[str] = []
    values = decoder.gguf_values(metadata, MODEL_TYPE, tensors, problems)
    values["attention_bias"] = "blk.0.attn_q.bias" in tensors
    return Qwen3Config(**decoder.checked_gguf(values, MODEL_TYPE, problems))


def to_hf(config: Qwen3Config) -> dict[str, Any]:
    """The config.json that transformers' Qwen3ForCausalLM reads."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": MODEL_TYPE,
        **decoder.hf_settings(config),
        "attention_bias": config.attention_bias,
        "hidden_act": "silu",
        "use_sliding_window": False,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def layer_plan(config: Qwen3Config) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape, for every tensor of the model; a tied head is left out."""
    shapes = decoder.linear_shapes(config)
    biased = [part for part in shapes if config.attention_bias and part.startswith("self_attn.")]
    return decoder.layer_plan(config, LAYER_NAMES, shapes | dict.fromkeys(HEAD_NORMS, (config.head_dim,)), biased)


def names(config: Qwen3Config) -> dict[str, str]:
    """Hugging Face name -> GGUF name, for every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), LAYER_NAMES)


def from_gguf_layout(config: Qwen3Config, name: str, array: np.ndarray) -> np.ndarray:
    """The GGUF tensor unchanged: the rows of q and k are already in Hugging Face's order."""
    return array


def to_gguf_layout(config: Qwen3Config, name: str, array: np.ndarray) -> np.ndarray:
    """The tensor unchanged, as in `from_gguf_layout`."""
    return array


def gguf_metadata(config: Qwen3Config) -> dict[str, Any]:
    """The model's GGUF metadata, as `from_gguf` and llama.cpp read it.

    Raises RiyazError for attention biases, since llama.cpp does not load the one of the output projection.
    """
    if config.attention_bias:
        what = "llama.cpp does not support attention biases in qwen3"
        raise RiyazError(what, hint="export it with --format hf")
    return decoder.gguf_metadata(config)


def ignored(name: str) -> bool:
    """Whether an extra tensor may be ignored: RoPE tables of old checkpoints, and GGUF's RoPE frequency divisors."""
    return name == rope.FREQUENCIES or name.endswith(".rotary_emb.inv_freq")
