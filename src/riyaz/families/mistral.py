"""The mistral family (Mistral 7B and what was trained from it): configuration, tensor names, shapes; torch-free.

A llama whose layers may all see a window of the last tokens only. GGUF files of it call themselves llama and say no
window, so only Hugging Face folders are read here, and only a model that no window narrows is written as GGUF.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.errors import RiyazError
from riyaz.families import llama, rope
from riyaz.families.llama import LlamaConfig
from riyaz.sources import TensorInfo

MODEL_TYPE = "mistral"
LIMITS = {
    "vocab_size": 2**22,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "n_layers": 1024,
    "n_heads": 4096,
    "n_kv_heads": 4096,
    "head_dim": 1024,
    "context": 2**30,
}
NUMBERS = ("rms_norm_eps", "rope_theta")
# field -> key in config.json
KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "context": "max_position_embeddings",
    "window": "sliding_window",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "tie_word_embeddings": "tie_word_embeddings",
}
# what transformers takes where config.json says nothing
DEFAULTS = {"window": 4096, "rms_norm_eps": 1e-6, "context": 2**17, "tie_word_embeddings": False}


@dataclass(frozen=True)
class MistralConfig:
    """What the shape and the arithmetic of a Mistral depend on."""

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
    window: int | None  # tokens that a token sees, itself counted; None: all
    tie_word_embeddings: bool


def from_hf(metadata: Mapping[str, Any]) -> MistralConfig:
    """The configuration of a config.json; RiyazError lists every missing, wrong or unsupported key."""
    problems: list[str] = []
    for key, only in (("hidden_act", "silu"), ("layer_types", None), ("quantization_config", None)):
        if metadata.get(key) not in (None, only):
            problems.append(f"{key} is {metadata[key]!r:.60}, riyaz runs {only} only")
    values = {field: metadata.get(key, DEFAULTS.get(field)) for field, key in KEYS.items()}
    theta, scaling = rope.from_hf(metadata, problems)
    values["rope_theta"] = 10_000.0 if theta is None else theta
    if scaling is not None:
        problems.append(f"RoPE scaling {scaling.kind!r} is not supported")
    if values["n_kv_heads"] is None:
        values["n_kv_heads"] = values["n_heads"]
    hidden, heads = values["hidden_size"], values["n_heads"]
    if values["head_dim"] is None and type(hidden) is int and type(heads) is int and heads > 0:
        values["head_dim"] = hidden // heads
    return _checked(values, problems)


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> MistralConfig:
    """RiyazError: no writer of GGUF calls a model so."""
    raise RiyazError("a Mistral in GGUF calls itself llama, not mistral", "GGUF metadata", "convert the model again")


def to_hf(config: MistralConfig) -> dict[str, Any]:
    """The config.json that transformers' MistralForCausalLM reads."""
    settings = {key: getattr(config, field) for field, key in KEYS.items()}
    return {"architectures": ["MistralForCausalLM"], "model_type": MODEL_TYPE, **settings, "hidden_act": "silu"}


def layer_plan(config: MistralConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape of every tensor of the model; a tied head has none."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    layers = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    plan: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for layer in range(config.n_layers):
        plan |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in layers.items()}
    plan["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        plan["lm_head.weight"] = (config.vocab_size, hidden)
    return plan


def names(config: MistralConfig) -> dict[str, str]:
    """Hugging Face name -> GGUF name of every tensor of the model: those of a llama."""
    return llama.names(_as_llama(config))


def from_gguf_layout(config: MistralConfig, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF array in Hugging Face's layout, as of a llama."""
    return llama.from_gguf_layout(_as_llama(config), name, array)


def to_gguf_layout(config: MistralConfig, name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `from_gguf_layout`."""
    return llama.to_gguf_layout(_as_llama(config), name, array)


def gguf_metadata(config: MistralConfig) -> dict[str, Any]:
    """What llama.cpp must know of the model beside its tensors; RiyazError for a window, which it would not see."""
    if config.window is not None and config.window < config.context:
        what = f"llama.cpp knows no window, and this model sees {config.window} tokens of {config.context}"
        raise RiyazError(what, hint="export it with --format hf")
    return llama.gguf_metadata(_as_llama(config))


def ignored(name: str) -> bool:
    """Whether a checkpoint's extra tensor carries nothing: rotary tables that old checkpoints saved."""
    return name.endswith(".rotary_emb.inv_freq")


def _as_llama(config: MistralConfig) -> LlamaConfig:
    """The llama that computes the same where no window narrows it."""
    settings = {name: value for name, value in asdict(config).items() if name != "window"}
    return LlamaConfig(**settings)


def _checked(values: dict[str, Any], problems: list[str]) -> MistralConfig:
    """The configuration, once every value is a number in its range; RiyazError listing all that are not."""
    sizes = LIMITS if values["window"] is None else {**LIMITS, "window": 2**30}
    for field, limit in sizes.items():
        value = values[field]
        if value is None:
            problems.append(f"{KEYS[field]} is missing")
        elif type(value) is not int or not 1 <= value <= limit:
            problems.append(f"{KEYS[field]} is {value!r:.60}, not a whole number from 1 to {limit}")
    for field in NUMBERS:
        value = values[field]
        if type(value) not in (int, float) or not 0 < value < 1e15:
            problems.append(f"{KEYS[field]} is {value!r:.60}, not a positive number below 1e15")
    if not isinstance(values["tie_word_embeddings"], bool):
        problems.append(f"tie_word_embeddings is {values['tie_word_embeddings']!r:.60}, not true or false")
    if not problems and values["n_heads"] % values["n_kv_heads"]:
        problems.append(f"{values['n_heads']} heads cannot share {values['n_kv_heads']} key/value heads evenly")
    if not problems and values["head_dim"] % 2:
        problems.append(f"the head size {values['head_dim']} is odd")
    if problems:
        raise RiyazError(", ".join(problems), "config.json", "riyaz cannot run this model")
    return MistralConfig(**{**values, **{field: float(values[field]) for field in NUMBERS}})
