"""One torch-free module per model family; `describe` and `describe_embedder` match a source to its family and check
every tensor.

A language model's module defines `from_hf`, `from_gguf`, `to_hf`, `layer_plan` (the embedding first), `names`,
`from_gguf_layout`, `to_gguf_layout`, `gguf_metadata`, `native_settings` of the C++ engine and `ignored`. Some also
define

- `checkpoint_names(config, tensors)`, the names of the tensors in a Hugging Face checkpoint, and `transposed(name)`,
  whether the checkpoint stores a tensor transposed;
- `to_native_layout(config, name, array)`, a norm's weight or a bias as the C++ engine takes it;
- `fresh_config(vocab, context, layers, heads, width)` and RESIDUAL, the endings of the matrices whose output is added
  to the residual stream: what pretraining needs;
- `with_sub_norms(config)`, the configuration of the student that `riyaz ternarize` trains.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Generic, TypeVar

import numpy as np

from riyaz.errors import RiyazError, few, shown
from riyaz.families import bert, bitnet, checks, gemma3, gpt2, llama, mistral, qwen2, qwen3, ternary
from riyaz.families.bert import BertConfig
from riyaz.families.bitnet import BitNetConfig
from riyaz.families.gemma3 import Gemma3Config
from riyaz.families.gpt2 import GPT2Config
from riyaz.families.llama import LlamaConfig
from riyaz.families.mistral import MistralConfig
from riyaz.families.qwen2 import Qwen2Config
from riyaz.families.qwen3 import Qwen3Config
from riyaz.families.rope import FREQUENCIES
from riyaz.sources import Source, gguf_ternary
from riyaz.sources.gguf import GGUFFile
from riyaz.sources.gguf_blocks import LAYOUTS, dequantise
from riyaz.sources.tensor_files import float32, is_finite, not_finite
from riyaz.sources.ternary import Ternary, ternary_codes

FAMILIES: dict[str, ModuleType] = {  # of language models
    bitnet.MODEL_TYPE: bitnet,
    **dict.fromkeys(bitnet.GGUF_NAMES, bitnet),
    gemma3.MODEL_TYPE: gemma3,
    gemma3.TEXT: gemma3,  # model_type in config.json
    gpt2.MODEL_TYPE: gpt2,
    llama.MODEL_TYPE: llama,
    mistral.MODEL_TYPE: mistral,
    qwen2.MODEL_TYPE: qwen2,
    qwen3.MODEL_TYPE: qwen3,
}
# those that riyaz can pretrain
FRESH = {module.MODEL_TYPE: module for module in FAMILIES.values() if hasattr(module, "fresh_config")}
EMBEDDERS: dict[str, ModuleType] = {bert.MODEL_TYPE: bert}  # `sources.source.EMBEDDERS` lists the same names
FLOAT_TYPES = ("F32", "F16", "BF16", "F64")  # allowed in Hugging Face files; F64 is converted to float32
HEAD, TRUNK = "lm_head.weight", "model."

# the configuration of any language model
ModelConfig = BitNetConfig | Gemma3Config | GPT2Config | LlamaConfig | MistralConfig | Qwen2Config | Qwen3Config
Config = TypeVar("Config", ModelConfig, BertConfig)


@dataclass(frozen=True)
class Family(Generic[Config]):
    """A source matched to its family: its configuration, and its weights under Hugging Face names."""

    model_type: str
    config: Config
    parameters: int
    source: Source = field(repr=False)
    stored_names: Mapping[str, str] = field(repr=False)  # Hugging Face name -> name in the source
    notes: tuple[str, ...] = ()  # warnings for the user about how the weights were interpreted
    scheme: ternary.Scheme | None = None  # of a Hugging Face folder with ternary linears

    def weights(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """Yields (name, type, values) of every tensor, type and values as from `array`. Raises RiyazError for NaN or an
        infinity."""
        for name in self.stored_names:
            dtype, values = self.array(name)
            if not is_finite(values):
                raise self.not_finite(name)
            yield name, dtype, values

    def array(self, name: str) -> tuple[str, np.ndarray]:
        """("F32" | "F16" | "BF16", values) of one tensor; linears are (out, in), BF16 values are uint16 bits. A ternary
        linear comes as the floats from which it was rounded, where the file has them, else as codes times scales."""
        stored = self.stored_names[name]
        if self.is_ternary(name) and not self.has_masters:
            return "F32", self.ternary(name).floats()
        array = self.source.array(stored)
        if self.source.format == "gguf":
            array = FAMILIES[self.model_type].from_gguf_layout(self.config, name, array)
        elif transposed(self.model_type, name):
            array = array.T
        dtype = self.source.tensors[stored].dtype
        if dtype == "F64":
            array = array.astype(np.float32)
        return dtype if dtype in ("F16", "BF16") else "F32", array  # quantised tensors come dequantised

    def pieces(self, name: str, size: int) -> Iterator[tuple[int, str, np.ndarray]]:
        """Yields (first row, type, values) of whole rows of a matrix, 16 or as many multiples as `size` numbers fill;
        type and values are as from `array`, but that blocks of GGUF are dequantised one piece after another."""
        info = self.source.tensors[self.stored_names[name]]
        in_blocks = self.source.format == "gguf" and info.dtype not in (*FLOAT_TYPES, "I2_S")
        kind, values = ("F32", self.blocks(name)) if in_blocks else self.array(name)
        rows, cols = info.shape if in_blocks else values.shape
        step = max(1, size // cols // 16) * 16
        for first in range(0, rows, step):
            piece = values[first : first + step]
            if in_blocks:
                piece = dequantise(info.dtype, piece.reshape(-1).view(LAYOUTS[info.dtype])).reshape(-1, cols)
            yield first, kind, piece

    def rows(self, name: str, rows: Sequence[int]) -> np.ndarray:
        """Some rows of a matrix in float32 (N, C)."""
        info = self.source.tensors[self.stored_names[name]]
        if self.source.format == "gguf" and info.dtype not in (*FLOAT_TYPES, "I2_S"):
            blocks = self.blocks(name)[list(rows)].reshape(-1).view(LAYOUTS[info.dtype])
            return np.array(dequantise(info.dtype, blocks), np.float32).reshape(len(rows), -1)
        kind, values = self.array(name)
        return np.array(float32(kind, values[list(rows)]))

    def blocks(self, name: str) -> np.ndarray:
        """The bytes of a quantised GGUF matrix: uint8 (rows, bytes of a row)."""
        stored, file = self.stored_names[name], self.source.files[0]
        assert isinstance(file, GGUFFile)
        raw = file.blocks(stored).view(np.uint8).reshape(self.source.tensors[stored].shape[0], -1)
        array: np.ndarray = FAMILIES[self.model_type].from_gguf_layout(self.config, name, raw)
        return array

    @property
    def has_masters(self) -> bool:
        """Whether the file holds floats for every tensor, from which ternary linears are rounded in each forward."""
        return not (self.scheme and self.scheme.packed) and not any(map(self._gguf_ternary, self.stored_names))

    @property
    def has_ternary(self) -> bool:
        """Whether the model has ternary linears."""
        return any(map(self.is_ternary, self.stored_names))

    def is_ternary(self, name: str) -> bool:
        """Whether the tensor is the weight of a ternary linear, which `ternary` reads. An embedding in a ternary type
        of GGUF is none."""
        shape = self.source.tensors[self.stored_names[name]].shape
        return ternary.is_linear(name, shape) and (self._gguf_ternary(name) or self.scheme is not None)

    def ternary(self, name: str) -> Ternary:
        """The codes and scales of a ternary linear (out, in). Raises RiyazError for codes and scales that are none."""
        stored = self.stored_names[name]
        if self._gguf_ternary(name):
            file = self.source.files[0]
            assert isinstance(file, GGUFFile)
            matrix = gguf_ternary.read(self.source.tensors[stored], file.blocks(stored))
            codes = FAMILIES[self.model_type].from_gguf_layout(self.config, name, matrix.codes)
            scales = matrix.scales
            if matrix.group is not None:
                scales = FAMILIES[self.model_type].from_gguf_layout(self.config, name, scales)
            return replace(matrix, codes=codes, scales=scales)
        assert self.scheme is not None, name
        if self.scheme.packed:
            return ternary.read_packed(self.source, stored, self.scheme)
        values = float32(*self.array(name))
        if not np.isfinite(values).all():
            raise self.not_finite(name)
        return ternary_codes(values, self.scheme.group)

    def _gguf_ternary(self, name: str) -> bool:
        return self.source.tensors[self.stored_names[name]].dtype in ternary.GGUF_TYPES

    def not_finite(self, name: str) -> RiyazError:
        """The error for a tensor with NaN or infinities: its file, its name there, the first place."""
        stored = self.stored_names[name]
        file = next(file for file in self.source.files if stored in file.tensors)
        what = not_finite(stored, file.tensors[stored].dtype, file.array(stored))
        what = what or f"tensor {shown(stored)} holds a number that float32 does not"
        return RiyazError(what, str(file.path), "the weights are damaged: download the file or train again")


def transposed(model_type: str, name: str) -> bool:
    """Whether the family's Hugging Face checkpoints store this tensor transposed, as (in, out)."""
    module = FAMILIES.get(model_type)  # None for an embedder
    return module is not None and hasattr(module, "transposed") and bool(module.transposed(name))


def with_sub_norms(config: ModelConfig) -> BitNetConfig | None:
    """The configuration with norms before the output linears; None where the family has no place for them."""
    module = FAMILIES[config.model_type]
    student: BitNetConfig | None = module.with_sub_norms(config) if hasattr(module, "with_sub_norms") else None
    return student


def describe(source: Source) -> Family[ModelConfig]:
    """A language model's family and weights.

    Raises RiyazError for an embedder, for an unsupported architecture, and for tensors that do not match, listing them.
    """
    source.expect_language_model()
    architecture = source.architecture
    if not isinstance(architecture, str) or architecture not in FAMILIES:
        key = "general.architecture" if source.format == "gguf" else "model_type"
        what = f"the architecture {shown(str(architecture))} ({key}) is not supported"
        raise RiyazError(what, str(source.path), f"supported: {', '.join(FAMILIES)}")
    return _read_family(source, FAMILIES[architecture])


def describe_embedder(source: Source) -> Family[BertConfig]:
    """An embedder's family and weights. Raises RiyazError for a language model, a GGUF file, or mismatching tensors."""
    if not source.is_embedder:
        what = f"{source.name} is not an embedder ({shown(str(source.architecture))})"
        raise RiyazError(what, str(source.path), f"embedders: {', '.join(EMBEDDERS)}, such as minilm")
    if source.format == "gguf":
        raise RiyazError("an embedder cannot be read from GGUF", str(source.path), "give its Hugging Face folder")
    return _read_family(source, EMBEDDERS[str(source.architecture)])


def _read_family(source: Source, module: ModuleType) -> Family:
    """Reads the source as a model of this family module. Raises RiyazError."""
    scheme = None
    try:
        if source.format == "gguf":
            config = module.from_gguf(_with_frequencies(source), source.tensors)
        else:
            scheme = ternary.from_hf(source.metadata)
            own = {key: value for key, value in source.metadata.items() if not scheme or key != ternary.KEY}
            config = module.from_hf(own)
    except RiyazError as error:
        raise RiyazError(error.what, str(source.path), error.hint) from error
    notes = []
    if _has_own_head(source, module, config):
        config = replace(config, tie_word_embeddings=False)
        notes.append(f"{source.name}: tie_word_embeddings is true, but the file holds a different head, which is used")
    plan, stored_names = module.layer_plan(config), _stored_names(source, module, config)
    problems = _mismatches(source, module, config, stored_names, scheme)
    if problems:
        what = f"the weights do not fit the configuration: {few(problems)}"
        raise RiyazError(what, str(source.path), "the model is incomplete or has another model's configuration")
    parameters = sum(math.prod(shape) for shape in plan.values())
    return Family(module.MODEL_TYPE, config, parameters, source, stored_names, tuple(notes), scheme)


def _stored_names(source: Source, module: ModuleType, config: Any) -> dict[str, str]:
    """Hugging Face name -> name in the source, for every tensor of the model."""
    if source.format == "gguf":
        names: dict[str, str] = module.names(config)
        return names
    if hasattr(module, "checkpoint_names"):
        names = module.checkpoint_names(config, source.tensors)
    else:  # a checkpoint saved from the model without its head lacks the prefix "model."
        bare = "embed_tokens.weight" in source.tensors
        names = {name: name.removeprefix(TRUNK) if bare else name for name in module.layer_plan(config)}
    embedding = next(iter(names))
    if _is_tied(config) and names[embedding] not in source.tensors and HEAD in source.tensors:
        names[embedding] = HEAD  # the tied tensor was saved under the head's name
    return names


def _has_own_head(source: Source, module: ModuleType, config: Any) -> bool:
    """Whether the configuration ties the head but the file holds one that differs from the embedding.

    transformers then uses the saved head.
    """
    if source.format == "gguf" or not _is_tied(config) or HEAD not in source.tensors:
        return False
    names = _stored_names(source, module, config)
    embedding = names[next(iter(names))]
    return not np.array_equal(source.array(HEAD), source.array(embedding))


def _is_tied(config: Any) -> bool:
    return bool(getattr(config, "tie_word_embeddings", False))  # an embedder has no head


def _mismatches(
    source: Source, module: ModuleType, config: ModelConfig | BertConfig, stored_names: dict[str, str],
    scheme: ternary.Scheme | None,
) -> list[str]:  # fmt: skip
    """One message for each tensor that is missing, has the wrong shape or type, or is unknown."""
    problems: list[str] = []
    scales: set[str] = set()  # of packed ternary linears
    for name, shape in module.layer_plan(config).items():
        stored = stored_names[name]
        info = source.tensors.get(stored)
        if scheme and scheme.packed and ternary.is_linear(name, shape):
            problems += ternary.packed_mismatches(source.tensors, stored, shape, scheme)
            scales.add(stored + ternary.SCALE)
            continue
        if source.format == "hf" and transposed(module.MODEL_TYPE, name):
            shape = shape[::-1]
        if info is None:
            problems.append(f"{stored} is missing")
        elif info.shape != shape:
            problems.append(f"{stored} has the shape {list(info.shape)} instead of {list(shape)}")
        elif source.format == "hf" and info.dtype not in FLOAT_TYPES:
            problems.append(f"{stored} has the type {info.dtype} instead of {', '.join(FLOAT_TYPES)}")
    for extra in sorted(source.tensors.keys() - stored_names.values() - scales):
        if not module.ignored(extra) and not (extra == HEAD and source.format == "hf" and _is_tied(config)):
            problems.append(f"{shown(extra)} is unknown")
    return problems


def _with_frequencies(source: Source) -> dict[str, Any]:
    """GGUF metadata, plus the RoPE frequency divisors, which GGUF stores as a tensor. Raises RiyazError."""
    info = source.tensors.get(FREQUENCIES)
    if info is None:
        return source.metadata
    if info.dtype != "F32" or len(info.shape) != 1 or info.shape[0] > checks.LIMITS["head_dim"]:
        raise RiyazError(f"{FREQUENCIES} is {info.dtype} {list(info.shape)}, not one float32 per frequency")
    return {**source.metadata, FREQUENCIES: source.array(FREQUENCIES).tolist()}
