"""The Qwen2 family (Qwen2, Qwen2.5), a llama with biases on q, k and v: configuration, tensor names; torch-free.

A window over the last tokens, which the largest models can be told to use in their later layers, is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.families import checks, decoder, rope
from riyaz.families.rope import Scaling
from riyaz.sources import TensorInfo

MODEL_TYPE = "qwen2"
DEFAULTS = {"rms_norm_eps": 1e-6, "context": 32768}  # what transformers takes where config.json says nothing
# what a configuration may leave out or say, and nothing else: no layer has a window over its last tokens
ONLY = {"hidden_act": "silu", "use_sliding_window": False, "quantization_config": None}
BIASED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass(frozen=True)
class Qwen2Config:
    """What the shape and the arithmetic of a Qwen2 depend on."""

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
    """The configuration of a config.json; RiyazError lists every missing, wrong or unsupported key."""
    problems: list[str] = []
    values = decoder.hf_values(metadata, DEFAULTS, problems)
    checks.only(metadata, ONLY, problems)
    values |= checks.flags(metadata, {"tie_word_embeddings": False}, problems)
    return Qwen2Config(**decoder.checked_hf(values, problems))


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Qwen2Config:
    """The configuration of GGUF metadata; head tying and vocabulary are seen from the tensors."""
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
    """Hugging Face name -> shape of every tensor of the model; a tied head has none."""
    return decoder.layer_plan(config, decoder.LAYER_NAMES, decoder.linears(config), BIASED)


def names(config: Qwen2Config) -> dict[str, str]:
    """Hugging Face name -> GGUF name of every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), decoder.LAYER_NAMES)


def from_gguf_layout(config: Qwen2Config, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF array as it is: rows of q and k are in Hugging Face's order."""
    return array


def to_gguf_layout(config: Qwen2Config, name: str, array: np.ndarray) -> np.ndarray:
    """The array as it is, as in `from_gguf_layout`."""
    return array


def gguf_metadata(config: Qwen2Config) -> dict[str, Any]:
    """What llama.cpp must know of the model beside its tensors; `from_gguf` reads it."""
    return decoder.gguf_metadata(config)


def ignored(name: str) -> bool:
    """Whether an extra tensor is no weight: rotary tables that old checkpoints saved, and GGUF's scaling of them."""
    return name == rope.FREQUENCIES or name.endswith(".rotary_emb.inv_freq")
