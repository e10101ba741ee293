"""The gemma3 family (the text models of Gemma 3): configuration, tensor names, shapes; torch-free.

GGUF's norms hold 1 + w, which Hugging Face adds when it computes; `from_gguf_layout` takes the 1 off. GGUF says
neither which layers see everything nor what some numbers are: they are then Gemma 3's own, as llama.cpp takes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.errors import RiyazError
from riyaz.families import checks, decoder
from riyaz.sources import TensorInfo

MODEL_TYPE = "gemma3"
TEXT = "gemma3_text"  # Hugging Face's model_type; there "gemma3" is a model with eyes
LOCAL, GLOBAL = "sliding_attention", "full_attention"
LIMITS = {**checks.LIMITS, "window": 2**30}
NUMBERS = ("rms_norm_eps", "rope_theta", "rope_local", "rope_factor", "query_scale")
# field -> (key in config.json, key in GGUF after "gemma3.", what stands where neither says it)
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
# what a configuration may leave out or say, and nothing else
ONLY = {
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "quantization_config": None,
}
PATTERN = 6  # of so many layers the last sees everything
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
    """What the shape and the arithmetic of a Gemma 3 depend on."""

    model_type: ClassVar[str] = MODEL_TYPE
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    context: int
    window: int  # tokens that a local layer sees, the token itself counted
    local: tuple[bool, ...]  # of each layer: whether it sees the window only
    rms_norm_eps: float
    rope_theta: float  # of the layers that see everything
    rope_local: float
    rope_factor: float  # by which those that see everything divide their positions
    query_scale: float  # queries times keys are divided by its root
    logit_cap: float | None
    tie_word_embeddings: bool


def from_hf(metadata: Mapping[str, Any]) -> Gemma3Config:
    """The configuration of a config.json; RiyazError lists every missing, wrong or unsupported key."""
    problems = []
    if metadata.get("model_type") != TEXT:
        problems.append(f"model_type is {metadata.get('model_type')!r:.60}, riyaz runs {TEXT} only")
    checks.only(metadata, ONLY, problems)
    values = {field: default if (v := metadata.get(key)) is None else v for field, (key, _, default) in KEYS.items()}
    ropes = checks.table(metadata, "rope_parameters")
    local = checks.table(ropes, LOCAL)
    everywhere = {**checks.table(ropes, GLOBAL), **checks.table(metadata, "rope_scaling")}
    values["rope_theta"] = everywhere.get("rope_theta", values["rope_theta"])
    values["rope_local"] = local.get("rope_theta", values["rope_local"])
    values["rope_factor"], kind = 1.0, everywhere.get("rope_type", everywhere.get("type"))
    if kind == "linear":
        values["rope_factor"] = everywhere.get("factor")
    elif kind not in (None, "default") or local.get("rope_type") not in (None, "default"):
        problems.append(f"RoPE scaling {kind or local['rope_type']!r:.60} is not supported")
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
    """The configuration of GGUF metadata; head tying and vocabulary are seen from the tensors."""
    values = {f: checks.shortest(metadata.get(f"gemma3.{key}", default)) for f, (_, key, default) in KEYS.items()}
    embedding = tensors.get("token_embd.weight")
    if embedding:
        values["vocab_size"] = embedding.shape[0]
    problems = []
    kind = metadata.get("gemma3.rope.scaling.type", "none")
    values["rope_factor"] = metadata.get("gemma3.rope.scaling.factor", 1.0) if kind == "linear" else 1.0
    if kind not in ("none", "linear"):
        problems.append(f"RoPE scaling (gemma3.rope.scaling.type {kind!r:.60}) is not supported")
    if metadata.get("gemma3.attn_logit_softcapping"):
        problems.append("a soft cap of attention (gemma3.attn_logit_softcapping) is not supported")
    if metadata.get("gemma3.attention.value_length", values["head_dim"]) != values["head_dim"]:
        problems.append("gemma3.attention.value_length is not the head size")
    whole, heads = values["hidden_size"], values["n_heads"]
    values["query_scale"] = values["head_dim"]
    if values["n_layers"] == 62 and type(whole) is type(heads) is int and heads:  # Gemma 3 27B alone
        values["query_scale"] = whole / heads
    pattern = metadata.get("gemma3.attention.sliding_window_pattern", PATTERN)
    values["local"] = _pattern(values["n_layers"], pattern, "gemma3.attention.sliding_window_pattern", problems)
    values["tie_word_embeddings"] = "output.weight" not in tensors
    wide = [name for name, info in tensors.items() if name.endswith("norm.weight") and info.dtype != "F32"]
    if wide:
        problems.append(f"{wide[0]} is {tensors[wide[0]].dtype}, not F32")
    names = {field: f"gemma3.{key}" for field, (_, key, _) in KEYS.items()}
    return _checked(values, names, problems, "GGUF metadata")


def to_hf(config: Gemma3Config) -> dict[str, Any]:
    """The config.json that transformers' Gemma3ForCausalLM reads."""
    everywhere: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_factor != 1:
        everywhere |= {"rope_type": "linear", "factor": config.rope_factor}
    inside = ("rope_theta", "rope_local")
    settings = {key: getattr(config, field) for field, (key, _, _) in KEYS.items() if field not in inside}
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
        "rope_parameters": {GLOBAL: everywhere, LOCAL: {"rope_type": "default", "rope_theta": config.rope_local}},
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_bidirectional_attention": False,
    }


def layer_plan(config: Gemma3Config) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every tensor of the model; a tied head has none."""
    shapes = decoder.linears(config) | dict.fromkeys(HEAD_NORMS, (config.head_dim,))
    return decoder.layer_plan(config, LAYER_NAMES, shapes)


def names(config: Gemma3Config) -> dict[str, str]:
    """Hugging Face name -> GGUF name of every tensor of the model."""
    return decoder.gguf_names(layer_plan(config), LAYER_NAMES)


def from_gguf_layout(config: Gemma3Config, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF array in Hugging Face's layout: norms without the 1 that is added when they are used."""
    return array - np.float32(1) if name.endswith("norm.weight") else array


def to_gguf_layout(config: Gemma3Config, name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `from_gguf_layout`, but for what 1 + w loses of w."""
    return array + np.float32(1) if name.endswith("norm.weight") else array


def gguf_metadata(config: Gemma3Config) -> dict[str, Any]:
    """What llama.cpp must know of the model beside its tensors; `from_gguf` reads it. RiyazError for what GGUF has no
    place for: a scale of the queries that is not Gemma's own, layers that are local in no regular pattern."""
    values = {f"gemma3.{key}": v for field, (_, key, _) in KEYS.items() if (v := getattr(config, field)) is not None}
    values["gemma3.attention.value_length"] = config.head_dim
    if config.rope_factor != 1:
        values |= {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": config.rope_factor}
    # the layer that sees everything ends the pattern; none: a pattern longer than the model
    values["gemma3.attention.sliding_window_pattern"] = (*config.local, False).index(False) + 1
    again, hint = from_gguf(values, {}), "export it with --format hf"
    if again.local != config.local:
        kinds = ", ".join("local" if local else "global" for local in config.local)
        raise RiyazError(f"GGUF has no place for layers that are {kinds:.120}", hint=hint)
    if again.query_scale != config.query_scale:
        what = f"GGUF has no place for query_pre_attn_scalar {config.query_scale:g}, it means {again.query_scale:g}"
        raise RiyazError(what, hint=hint)
    return {"general.architecture": MODEL_TYPE, **values}


def ignored(name: str) -> bool:
    """Whether a checkpoint's extra tensor carries nothing: rotary tables that old checkpoints saved."""
    return name.endswith(".rotary_emb.inv_freq")


def _pattern(layers: Any, every: Any, key: str, problems: list[str]) -> tuple[bool, ...]:
    """Which layers are local when one of `every` is not."""
    if type(every) is not int or not 1 <= every <= LIMITS["n_layers"]:
        problems.append(f"{key} is {every!r:.60}, not a whole number from 1 to {LIMITS['n_layers']}")
    elif type(layers) is int and 1 <= layers <= LIMITS["n_layers"]:
        return tuple((layer + 1) % every != 0 for layer in range(layers))
    return ()


def _checked(values: dict[str, Any], keys: dict[str, str], problems: list[str], where: str) -> Gemma3Config:
    """The configuration, once every value is a number in its range; RiyazError listing all that are not."""
    keys = {**keys, "rope_factor": "RoPE's factor", "query_scale": "query_pre_attn_scalar"}
    checks.sizes(values, keys, problems, LIMITS)
    checks.positive(values, NUMBERS if values["logit_cap"] is None else (*NUMBERS, "logit_cap"), keys, problems)
    checks.finish(values, problems, where)
    return Gemma3Config(**values)
