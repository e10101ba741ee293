"""The mistral family (Mistral 7B and what was trained from it): configuration, tensor names, shapes; torch-free.

A llama whose layers may attend to a sliding window of the last tokens only. GGUF files of Mistral have the architecture
llama and no window setting, so only Hugging Face folders are read here, and only a model whose window covers its whole
context is written as GGUF.
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
# transformers' defaults for keys missing in config.json
DEFAULTS = {"window": 4096, "rms_norm_eps": 1e-6, "context": 2**17, "tie_word_embeddings": False}


@dataclass(frozen=True)
class MistralConfig:
    """The sizes and settings of a Mistral model."""

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
    window: int | None  # tokens that a token attends to, itself included; None: all
    tie_word_embeddings: bool


def from_hf(metadata: Mapping[str, Any]) -> MistralConfig:
    """The configuration from a config.json. Raises RiyazError listing every missing, wrong or unsupported key."""
    problems: list[str] = []
    checks.check_fixed(metadata, {"hidden_act": "silu", "layer_types": None, "quantization_config": None}, problems)
    values = {field: metadata.get(key, DEFAULTS.get(field)) for field, key in KEYS.items()}
    theta, scaling = rope.from_hf(metadata, problems)
    values["rope_theta"] = 10_000.0 if theta is None else theta
    if scaling is not None:
        problems.append(f"RoPE scaling {scaling.kind!r} is not supported")
    checks.fill_heads(values)
    return _checked(values, problems)


def from_gguf(metadata: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> MistralConfig:
    """Always raises RiyazError: in GGUF, Mistral models have the architecture llama."""
    what = "the architecture of a Mistral in GGUF must be llama, not mistral"
    raise RiyazError(what, "GGUF metadata", "convert the model again")


def to_hf(config: MistralConfig) -> dict[str, Any]:
    """The config.json that transformers' MistralForCausalLM reads."""
    settings = {key: getattr(config, field) for field, key in KEYS.items()}
    return {"architectures": ["MistralForCausalLM"], "model_type": MODEL_TYPE, **settings, "hidden_act": "silu"}


def layer_plan(config: MistralConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> shape, for every tensor of the model; a tied head is left out."""
    return decoder.layer_plan(config, decoder.LAYER_NAMES, decoder.linear_shapes(config))


def names(config: MistralConfig) -> dict[str, str]:
    """Hugging Face name -> GGUF name, for every tensor of the model; the same as a llama's."""
    return llama.names(_as_llama(config))


def from_gguf_layout(config: MistralConfig, name: str, array: np.ndarray) -> np.ndarray:
    """A GGUF tensor in Hugging Face's layout, as for a llama."""
    return llama.from_gguf_layout(_as_llama(config), name, array)


def to_gguf_layout(config: MistralConfig, name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `from_gguf_layout`."""
    return llama.to_gguf_layout(_as_llama(config), name, array)


def gguf_metadata(config: MistralConfig) -> dict[str, Any]:
    """The model's GGUF metadata, as llama.cpp reads it. Raises RiyazError for a window shorter than the context."""
    if config.window is not None and config.window < config.context:
        window = f"{config.window} of {config.context} tokens"
        what = f"llama.cpp has no sliding window for llama models; this model's is {window}"
        raise RiyazError(what, hint="export it with --format hf")
    return llama.gguf_metadata(_as_llama(config))


def native_settings(config: MistralConfig) -> dict[str, Any]:
    """The C++ model's settings besides its sizes: a llama's, and a window in every layer."""
    return llama.native_settings(_as_llama(config)) | {"windows": [config.window or 0] * config.n_layers}


def ignored(name: str) -> bool:
    """Whether an extra tensor of a checkpoint may be ignored: the RoPE tables that old checkpoints saved."""
    return name.endswith(".rotary_emb.inv_freq")


def _as_llama(config: MistralConfig) -> LlamaConfig:
    """The llama configuration that computes the same without a window."""
    settings = {name: value for name, value in asdict(config).items() if name != "window"}
    return LlamaConfig(**settings)


def _checked(values: dict[str, Any], problems: list[str]) -> MistralConfig:
    """The configuration, checked. Raises RiyazError listing every value that is not a number in range."""
    limits = checks.LIMITS if values["window"] is None else {**checks.LIMITS, "window": 2**30}
    checks.check_sizes(values, KEYS, problems, limits)
    checks.check_positive(values, ("rms_norm_eps", "rope_theta"), KEYS, problems)
    if not isinstance(values["tie_word_embeddings"], bool):
        problems.append(f"tie_word_embeddings is {values['tie_word_embeddings']!r:.60}, not true or false")
    checks.raise_problems(values, problems, "config.json")
    return MistralConfig(**values)
