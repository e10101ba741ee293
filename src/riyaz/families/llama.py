"""The llama family (Llama 1 to 3, SmolLM2, TinyLlama): configuration, tensor names, shapes; torch-free.

Hugging Face names are the names everywhere in Riyaz; GGUF names are translated here. llama.cpp stores the
rows of q and k with the two halves of each head interleaved (its rotary embedding turns neighbours, Hugging
Face's turns halves), so `from_gguf_layout` puts them back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.families import checks, decoder, rope
from riyaz.families.rope import Scaling
from riyaz.sources import TensorInfo

MODEL_TYPE = "llama"
DEFAULTS = {"rms_norm_eps": 1e-6, "context": 2048}  # what transformers takes where config.json says nothing


@dataclass(frozen=True)
class LlamaConfig:
    """What the shape and the arithmetic of a llama depend on."""

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
    mlp_bias: bool = False
    rope_scaling: Scaling | None = None


def from_hf(metadata: Mapping[str, Any]) -> LlamaConfig:
    """The configuration of a config.json; RiyazError lists every missing, wrong or unsupported key."""
    problems: list[str] = []
    values = decoder.hf_values(metadata, DEFAULTS, problems)
    checks.only(metadata, {"hidden_act": "silu", "quantization_config": None}, problems)
    defaults = {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False}
    values |= checks.flags(metadata, defaults, problems)
    return LlamaConfig(**decoder.checked_hf(values, problems))


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> LlamaConfig:
    """The configuration of GGUF metadata; head tying, biases and vocabulary are seen from the tensors."""
    problems = ["mixtures of experts are not supported"] if metadata.get("llama.expert_count") else []
    values = decoder.gguf_values(metadata, MODEL_TYPE, tensors, problems)
    values["attention_bias"] = "blk.0.attn_q.bias" in tensors
    values["mlp_bias"] = "blk.0.ffn_up.bias" in tensors
    return LlamaConfig(**decoder.checked_gguf(values, MODEL_TYPE, problems))


def to_hf(config: LlamaConfig) -> dict[str, Any]:
    """The config.json that transformers' LlamaForCausalLM reads."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": MODEL_TYPE,
        **decoder.hf_settings(config),
        "attention_bias": config.attention_bias,
        "hidden_act": "silu",
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def layer_plan(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every tensor of the model; a tied head has none."""
    shapes = decoder.linears(config)
    biased = [part for part in shapes if (config.mlp_bias if part.startswith("mlp.") else config.attention_bias)]
    return decoder.layer_plan(config, decoder.LAYER_NAMES, shapes, biased)


def names(config: LlamaConfig) -> dict[str, str]:
    """Hugging Face name -> GGUF name of every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), decoder.LAYER_NAMES)


def from_gguf_layout(config: LlamaConfig, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF array in Hugging Face's layout: in q and k, weights and biases, each head's halves apart."""
    part = name.rsplit(".", 2)[-2]
    if part not in ("q_proj", "k_proj"):
        return array
    heads = config.n_heads if part == "q_proj" else config.n_kv_heads
    pairs = array.reshape(heads, config.head_dim // 2, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)


def to_gguf_layout(config: LlamaConfig, name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `from_gguf_layout`; also of the rows of a LoRA's B."""
    part = name.rsplit(".", 2)[-2]
    if part not in ("q_proj", "k_proj"):
        return array
    heads = config.n_heads if part == "q_proj" else config.n_kv_heads
    halves = array.reshape(heads, 2, config.head_dim // 2, *array.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)


def gguf_metadata(config: LlamaConfig) -> dict[str, Any]:
    """What llama.cpp must know of the model beside its tensors; `from_gguf` reads it."""
    return decoder.gguf_metadata(config)


def ignored(name: str) -> bool:
    """Whether an extra tensor is no weight: rotary tables that old checkpoints saved, and GGUF's scaling of them."""
    return name == rope.FREQUENCIES or name.endswith(".rotary_emb.inv_freq")
