"""The mistral family (Mistral 7B and what was trained from it): configuration, tensor names, shapes; torch-free.

A llama whose layers may all see a window of the last tokens only. GGUF files of it call themselves llama and say no
window, so only Hugging Face folders are read here, and only a model that no window narrows is written as GGUF.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from riyaz.errors import RiyazError
from riyaz.families import checks, decoder, llama, rope
from riyaz.families.llama import LlamaConfig
from riyaz.sources import TensorInfo

MODEL_TYPE = "mistral"
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
    checks.only(metadata, {"hidden_act": "silu", "layer_types": None, "quantization_config": None}, problems)
    values = {field: metadata.get(key, DEFAULTS.get(field)) for field, key in KEYS.items()}
    theta, scaling = rope.from_hf(metadata, problems)
    values["rope_theta"] = 10_000.0 if theta is None else theta
    if scaling is not None:
        problems.append(f"RoPE scaling {scaling.kind!r} is not supported")
    checks.fill(values)
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
    return decoder.layer_plan(config, decoder.LAYER_NAMES, decoder.linears(config))


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
    limits = checks.LIMITS if values["window"] is None else {**checks.LIMITS, "window": 2**30}
    checks.sizes(values, KEYS, problems, limits)
    checks.positive(values, ("rms_norm_eps", "rope_theta"), KEYS, problems)
    if not isinstance(values["tie_word_embeddings"], bool):
        problems.append(f"tie_word_embeddings is {values['tie_word_embeddings']!r:.60}, not true or false")
    checks.finish(values, problems, "config.json")
    return MistralConfig(**values)
