"""The gemma3 family (the text models of Gemma 3): configuration, tensor names, shapes; torch-free.

GGUF stores norm weights as 1 + w, Hugging Face as w; `from_gguf_layout` subtracts the 1. GGUF files may lack the
local-attention pattern and some settings; Gemma 3's values are then used, as llama.cpp does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.errors import RiyazError
from riyaz.families import checks, decoder, rope
from riyaz.sources import TensorInfo

MODEL_TYPE = "gemma3"
TEXT = "gemma3_text"  # Hugging Face's model_type; its "gemma3" is the vision-language model
LOCAL, GLOBAL = "sliding_attention", "full_attention"
LIMITS = {**checks.LIMITS, "window": 2**30}
NUMBERS = ("rms_norm_eps", "rope_theta", "rope_local", "rope_factor", "query_scale")
# field -> (key in config.json, key in GGUF without "gemma3.", default)
KEYS: dict[str, tuple[str, str, Any]] = {
    "vocab_size": ("vocab_size", "vocab_size", None),
    "hidden_size": ("hidden_size", "embedding_length", None),
    "intermediate_size": ("intermediate_size", "feed_forward_length", None),
    "n_layers": ("num_hidden_layers", "block_count", None),
    "n_heads": ("num_attention_heads", "attention.head_count", None),
    "n_kv_heads": ("num_key_value_heads", "attention.head_count_kv", None),
    "head_dim": ("head_dim", "attention.key_length", 256),
    "context": ("max_position_embeddings", "context_length", 2**17),
    "window": ("sliding_window", "attention.sliding_window", 4096),
    "rms_norm_eps": ("rms_norm_eps", "attention.layer_norm_rms_epsilon", 1e-6),
    "rope_theta": ("rope_theta", "rope.freq_base", 1_000_000.0),
    "rope_local": ("rope_local_base_freq", "rope.freq_base_swa", 10_000.0),
    "logit_cap": ("final_logit_softcapping", "final_logit_softcapping", None),
}
# keys with the only supported value; a missing key counts as that value
FIXED = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "quantization_config": None,
}
PATTERN = 6  # every sixth layer has global attention, the others local
# Hugging Face name without "model.layers.N." -> GGUF name without "blk.N."
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_feedforward_layernorm": "post_ffw_norm",
}
HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")


@dataclass(frozen=True)
class Gemma3Config:
    """The sizes and settings of a Gemma 3 model."""

    model_type: ClassVar[str] = MODEL_TYPE
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    context: int
    window: int  # tokens that a local layer attends to, including the current one
    local: tuple[bool, ...]  # for each layer: whether its attention is local (the window only)
    rms_norm_eps: float
    rope_theta: float  # RoPE base of the global layers
    rope_local: float  # RoPE base of the local layers
    rope_factor: float  # linear RoPE scaling of the global layers: positions are divided by it
    query_scale: float  # attention scores are divided by its square root
    logit_cap: float | None  # soft cap of the final logits; None: no cap
    tie_word_embeddings: bool


def from_hf(metadata: Mapping[str, Any]) -> Gemma3Config:
    """The configuration from a config.json. Raises RiyazError listing every missing, wrong or unsupported key."""
    problems = []
    if metadata.get("model_type") != TEXT:
        problems.append(f"model_type is {metadata.get('model_type')!r:.60}, riyaz supports only {TEXT}")
    checks.check_fixed(metadata, FIXED, problems)
    values = {field: default if (v := metadata.get(key)) is None else v for field, (key, _, default) in KEYS.items()}
    ropes = checks.table(metadata, "rope_parameters")
    local_rope = checks.table(ropes, LOCAL)
    global_rope = {**checks.table(ropes, GLOBAL), **checks.table(metadata, "rope_scaling")}
    values["rope_theta"] = global_rope.get("rope_theta", values["rope_theta"])
    values["rope_local"] = local_rope.get("rope_theta", values["rope_local"])
    values["rope_factor"], kind = 1.0, global_rope.get("rope_type", global_rope.get("type"))
    if kind == "linear":
        values["rope_factor"] = global_rope.get("factor")
    elif kind not in (None, "default") or local_rope.get("rope_type") not in (None, "default"):
        problems.append(f"RoPE scaling {kind or local_rope['rope_type']!r:.60} is not supported")
    values["query_scale"] = metadata.get("query_pre_attn_scalar", 256)
    values["tie_word_embeddings"] = metadata.get("tie_word_embeddings", True)
    if not isinstance(values["tie_word_embeddings"], bool):
        problems.append(f"tie_word_embeddings is {values['tie_word_embeddings']!r:.60}, not true or false")
    kinds = metadata.get("layer_types")
    if kinds is None:
        pattern = metadata.get("sliding_window_pattern", metadata.get("_sliding_window_pattern", PATTERN))
        values["local"] = _pattern(values["n_layers"], pattern, "sliding_window_pattern", problems)
    else:
        values["local"] = tuple(kind == LOCAL for kind in kinds) if isinstance(kinds, list) else ()
        if not isinstance(kinds, list) or any(kind not in (LOCAL, GLOBAL) for kind in kinds):
            problems.append(f"layer_types is {kinds!r:.60}, not a list of {LOCAL} and {GLOBAL}")
        elif len(kinds) != values["n_layers"]:
            problems.append(f"layer_types names {len(kinds)} layers of {values['n_layers']!r:.60}")
    return _checked(values, {field: key for field, (key, _, _) in KEYS.items()}, problems, "config.json")


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Gemma3Config:
    """The configuration from GGUF metadata; head tying and vocabulary size are derived from the tensors. Raises
    RiyazError listing all problems."""
    values = {
        f: checks.shortest_decimal(metadata.get(f"gemma3.{key}", default)) for f, (_, key, default) in KEYS.items()
    }
    embedding = tensors.get("token_embd.weight")
    if embedding:
        values["vocab_size"] = embedding.shape[0]
    problems = []
    kind = metadata.get("gemma3.rope.scaling.type", "none")
    values["rope_factor"] = metadata.get("gemma3.rope.scaling.factor", 1.0) if kind == "linear" else 1.0
    if kind not in ("none", "linear"):
        problems.append(f"RoPE scaling (gemma3.rope.scaling.type {kind!r:.60}) is not supported")
    if metadata.get("gemma3.attn_logit_softcapping"):
        problems.append("attention logit soft-capping (gemma3.attn_logit_softcapping) is not supported")
    if metadata.get("gemma3.attention.value_length", values["head_dim"]) != values["head_dim"]:
        problems.append("gemma3.attention.value_length is not the head size")
    hidden, heads = values["hidden_size"], values["n_heads"]
    values["query_scale"] = values["head_dim"]
    if values["n_layers"] == 62 and type(hidden) is type(heads) is int and heads:  # only Gemma 3 27B
        values["query_scale"] = hidden / heads
    pattern = metadata.get("gemma3.attention.sliding_window_pattern", PATTERN)
    values["local"] = _pattern(values["n_layers"], pattern, "gemma3.attention.sliding_window_pattern", problems)
    values["tie_word_embeddings"] = "output.weight" not in tensors
    not_f32 = [name for name, info in tensors.items() if name.endswith("norm.weight") and info.dtype != "F32"]
    if not_f32:
        problems.append(f"{not_f32[0]} is {tensors[not_f32[0]].dtype}, not F32")
    names = {field: f"gemma3.{key}" for field, (_, key, _) in KEYS.items()}
    return _checked(values, names, problems, "GGUF metadata")


def to_hf(config: Gemma3Config) -> dict[str, Any]:
    """The config.json that transformers' Gemma3ForCausalLM reads."""
    global_rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_factor != 1:
        global_rope |= {"rope_type": "linear", "factor": config.rope_factor}
    in_rope_parameters = ("rope_theta", "rope_local")
    settings = {key: getattr(config, field) for field, (key, _, _) in KEYS.items() if field not in in_rope_parameters}
    scale = config.query_scale
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": TEXT,
        **settings,
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": [LOCAL if local else GLOBAL for local in config.local],
        "query_pre_attn_scalar": int(scale) if scale == int(scale) else scale,
        "rope_parameters": {GLOBAL: global_rope, LOCAL: {"rope_type": "default", "rope_theta": config.rope_local}},
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_bidirectional_attention": False,
    }


def layer_plan(config: Gemma3Config) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape, for every tensor of the model; a tied head is left out."""
    shapes = decoder.linear_shapes(config) | dict.fromkeys(HEAD_NORMS, (config.head_dim,))
    return decoder.layer_plan(config, LAYER_NAMES, shapes)


def names(config: Gemma3Config) -> dict[str, str]:
    """Hugging Face name -> GGUF name, for every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), LAYER_NAMES)


def from_gguf_layout(config: Gemma3Config, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF tensor in Hugging Face's layout: 1 is subtracted from norm weights, others are unchanged."""
    return array - np.float32(1) if name.endswith("norm.weight") else array


def to_gguf_layout(config: Gemma3Config, name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `from_gguf_layout`, up to the rounding of 1 + w."""
    return array + np.float32(1) if name.endswith("norm.weight") else array


to_native_layout = to_gguf_layout  # the C++ model multiplies by a norm's weight, as llama.cpp does


def native_settings(config: Gemma3Config) -> dict[str, Any]:
    """The C++ model's settings besides its sizes. The first frequencies are the global layers', the second the local
    layers'."""
    return {
        "eps": config.rms_norm_eps,
        "embedding_scale": math.sqrt(config.hidden_size),
        "query_scale": math.sqrt(config.head_dim / config.query_scale),
        "logit_cap": config.logit_cap or 0.0,
        "activation": "gelu_tanh",
        "windows": [config.window if local else 0 for local in config.local],
        "rotations": [1 if local else 0 for local in config.local],
        "frequencies": [rope.frequencies(base, config.head_dim) for base in (config.rope_theta, config.rope_local)],
        "position_divisors": [config.rope_factor, 1.0],
    }


def gguf_metadata(config: Gemma3Config) -> dict[str, Any]:
    """The model's GGUF metadata, as `from_gguf` and llama.cpp read it.

    Raises RiyazError for what GGUF cannot express: a query scale that is not Gemma's, or irregular local layers.
    """
    values = {f"gemma3.{key}": v for field, (_, key, _) in KEYS.items() if (v := getattr(config, field)) is not None}
    values["gemma3.attention.value_length"] = config.head_dim
    if config.rope_factor != 1:
        values |= {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": config.rope_factor}
    # the first global layer ends the pattern; without one the pattern is longer than the model
    values["gemma3.attention.sliding_window_pattern"] = (*config.local, False).index(False) + 1
    again, hint = from_gguf(values, {}), "export it with --format hf"
    if again.local != config.local:
        kinds = ", ".join("local" if local else "global" for local in config.local)
        raise RiyazError(f"GGUF cannot express this pattern of layers: {kinds:.120}", hint=hint)
    if again.query_scale != config.query_scale:
        what = f"GGUF cannot express query_pre_attn_scalar {config.query_scale:g}, only {again.query_scale:g}"
        raise RiyazError(what, hint=hint)
    return {"general.architecture": MODEL_TYPE, **values}


def ignored(name: str) -> bool:
    """Whether an extra tensor of a checkpoint may be ignored: the RoPE tables that old checkpoints saved."""
    return name.endswith(".rotary_emb.inv_freq")


def _pattern(layers: Any, every: Any, key: str, problems: list[str]) -> tuple[bool, ...]:
    """For each layer, whether it is local: all but every `every`-th. Adds a problem for an invalid `every`."""
    if type(every) is not int or not 1 <= every <= LIMITS["n_layers"]:
        problems.append(f"{key} is {every!r:.60}, not a whole number from 1 to {LIMITS['n_layers']}")
    elif type(layers) is int and 1 <= layers <= LIMITS["n_layers"]:
        return tuple((layer + 1) % every != 0 for layer in range(layers))
    return ()


def _checked(values: dict[str, Any], keys: dict[str, str], problems: list[str], where: str) -> Gemma3Config:
    """The configuration, checked. Raises RiyazError listing every value that is not a number in range."""
    keys = {**keys, "rope_factor": "RoPE's factor", "query_scale": "query_pre_attn_scalar"}
    checks.check_sizes(values, keys, problems, LIMITS)
    checks.check_positive(values, NUMBERS if values["logit_cap"] is None else (*NUMBERS, "logit_cap"), keys, problems)
    checks.raise_problems(values, problems, where)
    return Gemma3Config(**values)
