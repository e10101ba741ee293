"""The llama family (Llama 1 to 3, SmolLM2, TinyLlama): configuration, tensor names, shapes; torch-free.

Riyaz uses Hugging Face's tensor names everywhere; GGUF names are translated here. llama.cpp stores the rows of q and k
with the two halves of each head interleaved (its RoPE rotates adjacent pairs, Hugging Face's rotates halves), so
`from_gguf_layout` restores Hugging Face's order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from riyaz.families import checks, decoder, rope
from riyaz.families.bitnet import BitNetConfig
from riyaz.families.rope import Scaling
from riyaz.sources import TensorInfo

MODEL_TYPE = "llama"
DEFAULTS = {"rms_norm_eps": 1e-6, "context": 2048}  # transformers' defaults for keys missing in config.json
RESIDUAL = decoder.RESIDUAL
native_settings = decoder.native_settings


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes and settings of a llama model."""

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


def fresh_config(vocab: int, context: int, layers: int, heads: int, width: int) -> LlamaConfig:
    """The configuration of a new model."""
    return LlamaConfig(**decoder.fresh_values(vocab, context, layers, heads, width))


def with_sub_norms(config: LlamaConfig) -> BitNetConfig | None:
    """The configuration with norms before the output linears, which is a BitNet's with SiLU; None for a llama with
    biases, which a BitNet has not."""
    if config.attention_bias or config.mlp_bias:
        return None
    same = {field.name: getattr(config, field.name) for field in fields(BitNetConfig) if field.name != "activation"}
    return BitNetConfig(**same, activation="silu")


def from_hf(metadata: Mapping[str, Any]) -> LlamaConfig:
    """The configuration from a config.json. Raises RiyazError listing every missing, wrong or unsupported key."""
    problems: list[str] = []
    values = decoder.hf_values(metadata, DEFAULTS, problems)
    checks.check_fixed(metadata, {"hidden_act": "silu", "quantization_config": None}, problems)
    defaults = {"tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False}
    values |= checks.booleans(metadata, defaults, problems)
    return LlamaConfig(**decoder.checked_hf(values, problems))


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> LlamaConfig:
    """The configuration from GGUF metadata; head tying, biases and vocabulary size are derived from the tensors.
    Raises RiyazError listing all problems."""
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
    """Hugging Face name -> shape, for every tensor of the model; a tied head is left out."""
    shapes = decoder.linear_shapes(config)
    biased = [part for part in shapes if (config.mlp_bias if part.startswith("mlp.") else config.attention_bias)]
    return decoder.layer_plan(config, decoder.LAYER_NAMES, shapes, biased)


def names(config: LlamaConfig) -> dict[str, str]:
    """Hugging Face name -> GGUF name, for every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), decoder.LAYER_NAMES)


def from_gguf_layout(config: LlamaConfig, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF tensor in Hugging Face's layout: the rows of q and k (weights, biases) are de-interleaved in each head."""
    part = name.rsplit(".", 2)[-2]
    if part not in ("q_proj", "k_proj"):
        return array
    heads = config.n_heads if part == "q_proj" else config.n_kv_heads
    pairs = array.reshape(heads, config.head_dim // 2, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)


def to_gguf_layout(config: LlamaConfig, name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `from_gguf_layout`; also used for the rows of a LoRA's B."""
    part = name.rsplit(".", 2)[-2]
    if part not in ("q_proj", "k_proj"):
        return array
    heads = config.n_heads if part == "q_proj" else config.n_kv_heads
    halves = array.reshape(heads, 2, config.head_dim // 2, *array.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)


def gguf_metadata(config: LlamaConfig) -> dict[str, Any]:
    """The model's GGUF metadata, as `from_gguf` and llama.cpp read it."""
    return decoder.gguf_metadata(config)


def ignored(name: str) -> bool:
    """Whether an extra tensor may be ignored: RoPE tables of old checkpoints, and GGUF's RoPE frequency divisors."""
    return name == rope.FREQUENCIES or name.endswith(".rotary_emb.inv_freq")
