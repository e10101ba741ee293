"""The BitNet family (b1.58, 2B4T), a llama with norms before o and down (subln) and ReLU² as its gate: configuration,
tensor names, shapes; torch-free.

Source: Ma et al. 2025 (arXiv 2504.12285). Whether its linears are ternary is not the family's: `families.ternary`
reads that. `activation` is also SiLU in the older models that llama.cpp knows as `bitnet`, and in llamas that riyaz
made ternary. GGUF files have three names for the family and store the rows of q and k in Hugging Face's order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.families import checks, decoder, rope
from riyaz.families.rope import Scaling
from riyaz.sources import TensorInfo

MODEL_TYPE = "bitnet"
GGUF_NAMES = ("bitnet-b1.58", "bitnet-25")  # of bitnet.cpp, with ReLU²; llama.cpp's own `bitnet` has SiLU
ACTIVATIONS = ("relu2", "silu")
HIDDEN_ACTIVATION = "hidden_activation"  # a GGUF key of newer files, where the name does not say it
# transformers' defaults for keys missing in config.json
DEFAULTS = {"rms_norm_eps": 1e-5, "context": 2048, "rope_theta": 500_000.0}
FIXED = {"attention_bias": False, "quantization_config": None}
# Hugging Face name without "model.layers.N." -> GGUF name without "blk.N."
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "mlp.down_proj": "ffn_down",
}
# linear -> the norm of its input
SUB_NORMS = {"self_attn.o_proj": "self_attn.attn_sub_norm", "mlp.down_proj": "mlp.ffn_sub_norm"}
RESIDUAL = decoder.RESIDUAL


@dataclass(frozen=True)
class BitNetConfig:
    """The sizes and settings of a BitNet."""

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
    activation: str = ACTIVATIONS[0]
    rope_scaling: Scaling | None = None


def fresh_config(vocab: int, context: int, layers: int, heads: int, width: int) -> BitNetConfig:
    """The configuration of a new model."""
    return BitNetConfig(**decoder.fresh_values(vocab, context, layers, heads, width))


def native_settings(config: BitNetConfig) -> dict[str, Any]:
    """The C++ model's settings besides its sizes."""
    return decoder.native_settings(config) | {"activation": config.activation}


def from_hf(metadata: Mapping[str, Any]) -> BitNetConfig:
    """The configuration from a config.json. Raises RiyazError listing every missing, wrong or unsupported key."""
    problems: list[str] = []
    settings = {"rope_theta": DEFAULTS["rope_theta"], **metadata}
    values = decoder.hf_values(settings, DEFAULTS, problems)
    values["activation"] = metadata.get("hidden_act") or ACTIVATIONS[0]
    if values["activation"] not in ACTIVATIONS:
        problems.append(f"hidden_act is {values['activation']!r:.60}, riyaz supports only {' and '.join(ACTIVATIONS)}")
    checks.check_fixed(metadata, FIXED, problems)
    if rotation := next((key for key in metadata if "rotat" in key or "hadamard" in key), None):
        problems.append(f"{rotation}: riyaz has no rotation of activations")
    values |= checks.booleans(metadata, {"tie_word_embeddings": False}, problems)
    return BitNetConfig(**decoder.checked_hf(values, problems))


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> BitNetConfig:
    """The configuration from GGUF metadata; head tying and vocabulary size are derived from the tensors. Raises
    RiyazError listing all problems."""
    name = str(metadata.get("general.architecture"))
    problems: list[str] = []
    values = decoder.gguf_values(metadata, name, tensors, problems)
    values["activation"] = metadata.get(f"{name}.{HIDDEN_ACTIVATION}") or ACTIVATIONS[name == MODEL_TYPE]
    if values["activation"] not in ACTIVATIONS:
        problems.append(f"{name}.{HIDDEN_ACTIVATION} is {values['activation']!r:.60}, not {' or '.join(ACTIVATIONS)}")
    return BitNetConfig(**decoder.checked_gguf(values, name, problems))


def to_hf(config: BitNetConfig) -> dict[str, Any]:
    """The config.json that transformers' BitNetForCausalLM reads."""
    return {
        "architectures": ["BitNetForCausalLM"],
        "model_type": MODEL_TYPE,
        **decoder.hf_settings(config),
        "attention_bias": False,
        "hidden_act": config.activation,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def layer_plan(config: BitNetConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape, for every tensor of the model; a tied head is left out."""
    shapes = decoder.linear_shapes(config)
    norms = {"self_attn.attn_sub_norm": shapes["self_attn.o_proj"][1:], "mlp.ffn_sub_norm": (config.intermediate_size,)}
    return decoder.layer_plan(config, LAYER_NAMES, shapes | norms)


def names(config: BitNetConfig) -> dict[str, str]:
    """Hugging Face name -> GGUF name, for every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), LAYER_NAMES)


def from_gguf_layout(config: BitNetConfig, name: str, array: np.ndarray) -> np.ndarray:
    """The GGUF tensor unchanged: the rows of q and k are already in Hugging Face's order."""
    return array


def to_gguf_layout(config: BitNetConfig, name: str, array: np.ndarray) -> np.ndarray:
    """The tensor unchanged, as in `from_gguf_layout`."""
    return array


def gguf_metadata(config: BitNetConfig) -> dict[str, Any]:
    """The model's GGUF metadata, as `from_gguf` reads it: with SiLU also llama.cpp, with ReLU² bitnet.cpp. Raises
    RiyazError for RoPE scaling that GGUF cannot express."""
    name = MODEL_TYPE if config.activation == "silu" else GGUF_NAMES[0]
    described = decoder.gguf_metadata(config)
    values = {key.replace(f"{MODEL_TYPE}.", f"{name}.", 1): value for key, value in described.items()}
    return {**values, "general.architecture": name}


def ignored(name: str) -> bool:
    """Whether an extra tensor may be ignored: RoPE tables of old checkpoints, and GGUF's RoPE frequency divisors."""
    return name == rope.FREQUENCIES or name.endswith(".rotary_emb.inv_freq")
