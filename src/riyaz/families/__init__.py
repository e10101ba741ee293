"""One file per model family, torch-free: `describe` and `describe_embedder` find the family of a source and check
every tensor.

Every module says `from_hf`, `from_gguf`, `to_hf`, `layer_plan` (which begins with the embedding), `names`,
`from_gguf_layout` and its inverse, `gguf_metadata` and `ignored`. Where its Hugging Face checkpoints need it,
`checkpoint_names(config, tensors)` says what they call each tensor, and `transposed(name)` which of them they hold the
other way round.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Generic, TypeVar

import numpy as np

from riyaz.errors import RiyazError, shown
from riyaz.families import bert, checks, gemma3, gpt2, llama, mistral, qwen2, qwen3
from riyaz.families.bert import BertConfig
from riyaz.families.gemma3 import Gemma3Config
from riyaz.families.gpt2 import GPT2Config
from riyaz.families.llama import LlamaConfig
from riyaz.families.mistral import MistralConfig
from riyaz.families.qwen2 import Qwen2Config
from riyaz.families.qwen3 import Qwen3Config
from riyaz.families.rope import FREQUENCIES
from riyaz.sources import Source

FAMILIES: dict[str, ModuleType] = {  # of language models
    gemma3.MODEL_TYPE: gemma3,
    gemma3.TEXT: gemma3,  # as config.json calls it
    gpt2.MODEL_TYPE: gpt2,
    llama.MODEL_TYPE: llama,
    mistral.MODEL_TYPE: mistral,
    qwen2.MODEL_TYPE: qwen2,
    qwen3.MODEL_TYPE: qwen3,
}
EMBEDDERS: dict[str, ModuleType] = {bert.MODEL_TYPE: bert}  # `sources.source` knows them by name
FLOATS = ("F32", "F16", "BF16", "F64")  # of Hugging Face's files; F64 is read to float32
HEAD, TRUNK = "lm_head.weight", "model."
MAX_LISTED = 8

# of any language model: a union of the families' own
ModelConfig = Gemma3Config | GPT2Config | LlamaConfig | MistralConfig | Qwen2Config | Qwen3Config
Config = TypeVar("Config", ModelConfig, BertConfig)


@dataclass(frozen=True)
class Family(Generic[Config]):
    """A source understood: its family, its configuration, and its weights under Hugging Face names."""

    model_type: str
    config: Config
    parameters: int
    source: Source = field(repr=False)
    stored_names: Mapping[str, str] = field(repr=False)  # Hugging Face name -> name in the source
    notes: tuple[str, ...] = ()  # what a person should know of how the weights were understood

    def weights(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """(name, type, values) of every tensor, as `array` gives them."""
        for name in self.stored_names:
            dtype, values = self.array(name)
            yield name, dtype, values

    def array(self, name: str) -> tuple[str, np.ndarray]:
        """("F32" | "F16" | "BF16", values) of one tensor, linears as (out, in); BF16 as uint16."""
        stored = self.stored_names[name]
        array = self.source.array(stored)
        if self.source.format == "gguf":
            array = FAMILIES[self.model_type].from_gguf_layout(self.config, name, array)
        elif transposed(self.model_type, name):
            array = array.T
        dtype = self.source.tensors[stored].dtype
        if dtype == "F64":
            array = array.astype(np.float32)
        return dtype if dtype in ("F16", "BF16") else "F32", array  # quantised tensors come dequantised


def transposed(model_type: str, name: str) -> bool:
    """Whether the family's Hugging Face checkpoints hold this tensor as (in, out), the other way round."""
    module = FAMILIES.get(model_type)  # an embedder's is none of them
    return module is not None and hasattr(module, "transposed") and bool(module.transposed(name))


def describe(source: Source) -> Family[ModelConfig]:
    """A language model's family and weights; RiyazError names an embedder or an unknown architecture, or lists
    every mismatch."""
    source.expect_language_model()
    architecture = source.architecture
    if not isinstance(architecture, str) or architecture not in FAMILIES:
        key = "general.architecture" if source.format == "gguf" else "model_type"
        what = f"the architecture {shown(str(architecture))} ({key}) is not supported"
        raise RiyazError(what, str(source.path), f"supported: {', '.join(FAMILIES)}")
    return _described(source, FAMILIES[architecture])


def describe_embedder(source: Source) -> Family[BertConfig]:
    """An embedder's family and weights; RiyazError for a language model, and as `describe`."""
    if not source.is_embedder:
        what = f"{source.name} is not an embedder ({shown(str(source.architecture))})"
        raise RiyazError(what, str(source.path), f"embedders: {', '.join(EMBEDDERS)}, such as minilm")
    if source.format == "gguf":
        raise RiyazError("an embedder is not read from GGUF", str(source.path), "give its Hugging Face folder")
    return _described(source, EMBEDDERS[str(source.architecture)])


def _described(source: Source, module: ModuleType) -> Family:
    """The source read as one of the module's models."""
    try:
        if source.format == "gguf":
            config = module.from_gguf(_with_frequencies(source), source.tensors)
        else:
            config = module.from_hf(source.metadata)
    except RiyazError as error:
        raise RiyazError(error.what, str(source.path), error.hint) from error
    notes = []
    if _has_own_head(source, module, config):
        config = replace(config, tie_word_embeddings=False)
        notes.append(f"{source.name} says that its head is its embedding, yet holds another head, which is used")
    plan, stored_names = module.layer_plan(config), _stored_names(source, module, config)
    problems = _mismatches(source, module, config, stored_names)
    if problems:
        rest = f" and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        what = f"the weights do not fit the configuration: {', '.join(problems[:MAX_LISTED])}{rest}"
        raise RiyazError(what, str(source.path), "the model is incomplete or its configuration is another's")
    parameters = sum(math.prod(shape) for shape in plan.values())
    return Family(module.MODEL_TYPE, config, parameters, source, stored_names, tuple(notes))


def _stored_names(source: Source, module: ModuleType, config: Any) -> dict[str, str]:
    """Hugging Face name -> name in the source of every tensor of the model."""
    if source.format == "gguf":
        names: dict[str, str] = module.names(config)
        return names
    if hasattr(module, "checkpoint_names"):
        names = module.checkpoint_names(config, source.tensors)
    else:  # saved from the model without its head, whose names begin one step further down
        bare = "embed_tokens.weight" in source.tensors
        names = {name: name.removeprefix(TRUNK) if bare else name for name in module.layer_plan(config)}
    embedding = next(iter(names))
    if _is_tied(config) and names[embedding] not in source.tensors and HEAD in source.tensors:
        names[embedding] = HEAD  # of two that are one, the other was saved
    return names


def _has_own_head(source: Source, module: ModuleType, config: Any) -> bool:
    """Whether a head that the configuration ties is saved and another than the embedding: transformers ties only two
    that are the same."""
    if source.format == "gguf" or not _is_tied(config) or HEAD not in source.tensors:
        return False
    names = _stored_names(source, module, config)
    embedding = names[next(iter(names))]
    return not np.array_equal(source.array(HEAD), source.array(embedding))


def _is_tied(config: Any) -> bool:
    return bool(getattr(config, "tie_word_embeddings", False))  # an embedder has no head


def _mismatches(
    source: Source, module: ModuleType, config: ModelConfig | BertConfig, stored_names: dict[str, str]
) -> list[str]:
    """One text per tensor that is missing, of another shape or type, or unknown to the configuration."""
    problems = []
    for name, shape in module.layer_plan(config).items():
        stored = stored_names[name]
        info = source.tensors.get(stored)
        if source.format == "hf" and transposed(module.MODEL_TYPE, name):
            shape = shape[::-1]
        if info is None:
            problems.append(f"{stored} is missing")
        elif info.shape != shape:
            problems.append(f"{stored} has the shape {list(info.shape)} instead of {list(shape)}")
        elif source.format == "hf" and info.dtype not in FLOATS:
            problems.append(f"{stored} has the type {info.dtype} instead of {', '.join(FLOATS)}")
    for extra in sorted(source.tensors.keys() - stored_names.values()):
        if not module.ignored(extra) and not (extra == HEAD and source.format == "hf" and _is_tied(config)):
            problems.append(f"{shown(extra)} is unknown")
    return problems


def _with_frequencies(source: Source) -> dict[str, Any]:
    """GGUF metadata with the values of the tensor that says how RoPE is scaled: a setting kept among the weights."""
    info = source.tensors.get(FREQUENCIES)
    if info is None:
        return source.metadata
    if info.dtype != "F32" or len(info.shape) != 1 or info.shape[0] > checks.LIMITS["head_dim"]:
        raise RiyazError(f"{FREQUENCIES} is {info.dtype} {list(info.shape)}, not one float32 to a frequency")
    return {**source.metadata, FREQUENCIES: source.array(FREQUENCIES).tolist()}
