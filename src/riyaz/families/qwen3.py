"""The Qwen3 family, a llama with norms on queries and keys: configuration, tensor names, shapes; torch-free.

The head size is a setting of its own, often not the width over the number of heads. A window over the last tokens,
which a model can be told to use in its later layers, is refused; so are mixtures of experts, another model_type.
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
DEFAULTS = {"rms_norm_eps": 1e-6, "context": 32768}  # what transformers takes where config.json says nothing
# what a configuration may leave out or say, and nothing else: no layer has a window over its last tokens
ONLY = {"hidden_act": "silu", "use_sliding_window": False, "quantization_config": None}
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


@dataclass(frozen=True)
class Qwen3Config:
    """What the shape and the arithmetic of a Qwen3 depend on."""

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
    """The configuration of a config.json; RiyazError lists every missing, wrong or unsupported key."""
    problems: list[str] = []
    values = decoder.hf_values(metadata, DEFAULTS, problems)
    if values["head_dim"] is None:
        values["head_dim"] = 128  # not the width of a head's share
    checks.only(metadata, ONLY, problems)
    values |= checks.flags(metadata, {"tie_word_embeddings": False, "attention_bias": False}, problems)
    return Qwen3Config(**decoder.checked_hf(values, problems))


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Qwen3Config:
    """The configuration of GGUF metadata; head tying, biases and vocabulary are seen from the tensors."""
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
    """Hugging Face name -> shape of every tensor of the model; a tied head has none."""
    shapes = decoder.linears(config)
    biased = [part for part in shapes if config.attention_bias and part.startswith("self_attn.")]
    return decoder.layer_plan(config, LAYER_NAMES, shapes | dict.fromkeys(HEAD_NORMS, (config.head_dim,)), biased)


def names(config: Qwen3Config) -> dict[str, str]:
    """Hugging Face name -> GGUF name of every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), LAYER_NAMES)


def from_gguf_layout(config: Qwen3Config, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF array as it is: rows of q and k are in Hugging Face's order."""
    return array


def to_gguf_layout(config: Qwen3Config, name: str, array: np.ndarray) -> np.ndarray:
    """The array as it is, as in `from_gguf_layout`."""
    return array


def gguf_metadata(config: Qwen3Config) -> dict[str, Any]:
    """What llama.cpp must know of the model beside its tensors; `from_gguf` reads it. RiyazError for biases, of which
    llama.cpp loads none behind attention."""
    if config.attention_bias:
        raise RiyazError("llama.cpp runs no qwen3 with biases in attention", hint="export it with --format hf")
    return decoder.gguf_metadata(config)


def ignored(name: str) -> bool:
    """Whether an extra tensor is no weight: rotary tables that old checkpoints saved, and GGUF's scaling of them."""
    return name == rope.FREQUENCIES or name.endswith(".rotary_emb.inv_freq")
