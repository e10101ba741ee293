"""The Qwen2 family (Qwen2, Qwen2.5), a llama with biases on q, k and v: configuration, tensor names; torch-free.

A window over the last tokens, which the largest models can be told to use in their later layers, is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.families import checks, rope
from riyaz.families.rope import Scaling
from riyaz.sources import TensorInfo

MODEL_TYPE = "qwen2"
# field -> (key in config.json, key in GGUF after "qwen2.")
KEYS = {
    "vocab_size": ("vocab_size", "vocab_size"),
    "hidden_size": ("hidden_size", "embedding_length"),
    "intermediate_size": ("intermediate_size", "feed_forward_length"),
    "n_layers": ("num_hidden_layers", "block_count"),
    "n_heads": ("num_attention_heads", "attention.head_count"),
    "n_kv_heads": ("num_key_value_heads", "attention.head_count_kv"),
    "head_dim": ("head_dim", "attention.key_length"),
    "context": ("max_position_embeddings", "context_length"),
    "rms_norm_eps": ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    "rope_theta": ("rope_theta", "rope.freq_base"),
}
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
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
BIASED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
OUTER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


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
    values = {field: metadata.get(key, DEFAULTS.get(field)) for field, (key, _) in KEYS.items()}
    theta, values["rope_scaling"] = rope.from_hf(metadata, problems)
    values["rope_theta"] = 10_000.0 if theta is None else theta
    checks.only(metadata, ONLY, problems)
    values |= checks.flags(metadata, {"tie_word_embeddings": False}, problems)
    names = {field: key for field, (key, _) in KEYS.items()}
    return _checked(values, names, problems, "config.json")


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Qwen2Config:
    """The configuration of GGUF metadata; head tying and vocabulary are seen from the tensors."""
    problems: list[str] = []
    values = {field: checks.shortest(metadata.get(f"{MODEL_TYPE}.{key}")) for field, (_, key) in KEYS.items()}
    embedding = tensors.get("token_embd.weight")
    if embedding:
        values["vocab_size"] = embedding.shape[0]
    if values["rope_theta"] is None:
        values["rope_theta"] = 10_000.0
    checks.fill(values)
    for key in (f"{MODEL_TYPE}.rope.dimension_count", f"{MODEL_TYPE}.attention.value_length"):
        if metadata.get(key, values["head_dim"]) != values["head_dim"]:
            problems.append(f"{key} is {metadata[key]!r:.60}, the head size is {values['head_dim']!r:.60}")
    values["rope_scaling"] = rope.from_gguf(metadata, MODEL_TYPE, values, problems)
    values["tie_word_embeddings"] = "output.weight" not in tensors
    names = {field: f"{MODEL_TYPE}.{key}" for field, (_, key) in KEYS.items()}
    return _checked(values, names, problems, "GGUF metadata")


def to_hf(config: Qwen2Config) -> dict[str, Any]:
    """The config.json that transformers' Qwen2ForCausalLM reads."""
    settings = {key: getattr(config, field) for field, (key, _) in KEYS.items()}
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": MODEL_TYPE,
        **settings,
        **rope.to_hf(config.rope_theta, config.rope_scaling),
        "hidden_act": "silu",
        "use_sliding_window": False,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def layer_plan(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every tensor of the model; a tied head has none."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    linears = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    plan: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for layer in range(config.n_layers):
        for part in LAYER_NAMES:
            name = f"model.layers.{layer}.{part}"
            plan[f"{name}.weight"] = linears.get(part, (hidden,))
            if part in BIASED:
                plan[f"{name}.bias"] = linears[part][:1]
    plan["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        plan["lm_head.weight"] = (config.vocab_size, hidden)
    return plan


def names(config: Qwen2Config) -> dict[str, str]:
    """Hugging Face name -> GGUF name of every tensor of the model."""
    return {name: _gguf_name(name) for name in layer_plan(config)}


def from_gguf_layout(config: Qwen2Config, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF array as it is: rows of q and k are in Hugging Face's order."""
    return array


def to_gguf_layout(config: Qwen2Config, name: str, array: np.ndarray) -> np.ndarray:
    """The array as it is, as in `from_gguf_layout`."""
    return array


def gguf_metadata(config: Qwen2Config) -> dict[str, Any]:
    """What llama.cpp must know of the model beside its tensors; `from_gguf` reads it."""
    size, theta = config.head_dim, config.rope_theta
    values = {f"{MODEL_TYPE}.{key}": getattr(config, field) for field, (_, key) in KEYS.items()}
    sizes = {f"{MODEL_TYPE}.{key}": size for key in ("attention.value_length", "rope.dimension_count")}
    scaling = rope.to_gguf(MODEL_TYPE, config.rope_scaling, size, theta)
    return {"general.architecture": MODEL_TYPE, **values, **sizes, **scaling}


def ignored(name: str) -> bool:
    """Whether an extra tensor is no weight: rotary tables that old checkpoints saved, and GGUF's scaling of them."""
    return name == rope.FREQUENCIES or name.endswith(".rotary_emb.inv_freq")


def _gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in OUTER_NAMES:
        return f"{OUTER_NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.{kind}"


def _checked(values: dict[str, Any], keys: dict[str, str], problems: list[str], where: str) -> Qwen2Config:
    """The configuration, once every value is a number in its range; RiyazError listing all that are not."""
    checks.fill(values)
    checks.sizes(values, keys, problems)
    checks.positive(values, ("rms_norm_eps", "rope_theta"), keys, problems)
    checks.finish(values, problems, where)
    return Qwen2Config(**values)
