"""The Qwen2 family (Qwen2, Qwen2.5), a llama with biases on q, k and v: configuration, tensor names; torch-free.

Sliding-window attention, an option of the largest models for their later layers, is not supported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.families import checks, decoder, rope
from riyaz.families.rope import Scaling
from riyaz.sources import TensorInfo

MODEL_TYPE = "qwen2"
DEFAULTS = {"rms_norm_eps": 1e-6, "context": 32768}  # transformers' defaults for keys missing in config.json
# keys with the only supported value; a missing key counts as that value
FIXED = {"hidden_act": "silu", "use_sliding_window": False, "quantization_config": None}
BIASED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
native_settings = decoder.native_settings


@dataclass(frozen=True)
class Qwen2Config:
    """The sizes and settings of a Qwen2 model."""

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
    rope_scaling: Scaling | None = None


def from_hf(metadata: Mapping[str, Any]) -> Qwen2Config:
    """The configuration from a config.json. Raises RiyazError listing every missing, wrong or unsupported key."""
    problems: list[str] = []
    values = decoder.hf_values(metadata, DEFAULTS, problems)
    checks.check_fixed(metadata, FIXED, problems)
    values |= checks.booleans(metadata, {"tie_word_embeddings": False}, problems)
    return Qwen2Config(**decoder.checked_hf(values, problems))


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Qwen2Config:
    """The configuration from GGUF metadata; head tying and vocabulary size are derived from the tensors. Raises
    RiyazError listing all problems."""
    problems: list[str] = []
    values = decoder.gguf_values(metadata, MODEL_TYPE, tensors, problems)
    return Qwen2Config(**decoder.checked_gguf(values, MODEL_TYPE, problems))


def to_hf(config: Qwen2Config) -> dict[str, Any]:
    """The config.json that transformers' Qwen2ForCausalLM reads."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": MODEL_TYPE,
        **decoder.hf_settings(config),
        "hidden_act": "silu",
        "use_sliding_window": False,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def layer_plan(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape, for every tensor of the model; a tied head is left out."""
    return decoder.layer_plan(config, decoder.LAYER_NAMES, decoder.linear_shapes(config), BIASED)


def names(config: Qwen2Config) -> dict[str, str]:
    """Hugging Face name -> GGUF name, for every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), decoder.LAYER_NAMES)


def from_gguf_layout(config: Qwen2Config, name: str, array: np.ndarray) -> np.ndarray:
    """The GGUF tensor unchanged: the rows of q and k are already in Hugging Face's order."""
    return array


def to_gguf_layout(config: Qwen2Config, name: str, array: np.ndarray) -> np.ndarray:
    """The tensor unchanged, as in `from_gguf_layout`."""
    return array


def gguf_metadata(config: Qwen2Config) -> dict[str, Any]:
    """The model's GGUF metadata, as `from_gguf` and llama.cpp read it."""
    return decoder.gguf_metadata(config)


def ignored(name: str) -> bool:
    """Whether an extra tensor may be ignored: RoPE tables of old checkpoints, and GGUF's RoPE frequency divisors."""
    return name == rope.FREQUENCIES or name.endswith(".rotary_emb.inv_freq")
