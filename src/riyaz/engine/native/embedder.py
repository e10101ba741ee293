"""The embedder in C++ (native/engine/encoder.cpp), torch-free."""

from typing import Any

import numpy as np

from riyaz import hardware, native
from riyaz.engine.embedder import ModelEmbedder
from riyaz.errors import RiyazError
from riyaz.families import Family, describe_embedder
from riyaz.families.bert import BertConfig
from riyaz.sources import Source, open_source
from riyaz.sources.tensor_files import float32

OUTER = -1  # the "layer" of tensors outside the layers


class NativeEmbedder(ModelEmbedder):
    """The C++ encoder with weights in bf16 or fp32, on all cores that the process may use, by the kernels of `isa`, of
    this CPU if empty. A text's vector does not depend on the texts beside it."""

    def __init__(self, source: Source, precision: str = "fp32", isa: str = "") -> None:
        super().__init__(source)
        self._encoder = _load(describe_embedder(source), precision, isa)

    def _vectors(self, ids: list[np.ndarray]) -> np.ndarray:
        tokens = np.concatenate(ids).astype(np.int32)
        try:
            vectors: np.ndarray = self._encoder.embed(tokens, np.array([len(row) for row in ids], np.int32))
        except RuntimeError as error:
            raise RiyazError(str(error), self.name) from error
        return vectors


def open_embedder(name: str = "minilm") -> NativeEmbedder:
    """The embedder of this name or path, in bf16 if the CPU computes it faster than float32. Raises RiyazError with the
    command that gets a missing one."""
    quick = native.isa() == "amx" or (native.isa() == "avx512bf16" and hardware.bf16_is_fast())
    return NativeEmbedder(open_source(name), "bf16" if quick else "fp32")


def _load(family: Family[BertConfig], precision: str, isa: str) -> Any:
    """The C++ encoder with the family's weights. Raises RiyazError for NaN or an infinity."""
    extension, config = native.extension(), family.config
    settings = {
        "layers": config.n_layers,
        "hidden": config.hidden_size,
        "heads": config.n_heads,
        "inner": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "context": config.context,
        "fp32": precision == "fp32",
        "eps": config.layer_norm_eps,
    }
    encoder = extension.Encoder(settings, hardware.threads(), isa)
    held = {name: float32(kind, values) for name, kind, values in family.weights()}

    def vector(layer: int, slot: str, values: np.ndarray) -> None:
        encoder.set(layer, slot, np.ascontiguousarray(values.reshape(-1)))

    def matrix(layer: int, slot: str, values: np.ndarray) -> None:
        packed = extension.Matrix(precision, *values.shape)
        packed.fill(0, np.ascontiguousarray(values))
        encoder.set(layer, slot, packed)

    vector(OUTER, "words", held["embeddings.word_embeddings.weight"])
    types = held["embeddings.token_type_embeddings.weight"]  # every text is of type 0
    vector(OUTER, "positions", held["embeddings.position_embeddings.weight"] + types[0])
    vector(OUTER, "norm", held["embeddings.LayerNorm.weight"])
    vector(OUTER, "norm_bias", held["embeddings.LayerNorm.bias"])
    scale = np.float32(config.head_dim**-0.5)
    for layer in range(config.n_layers):
        base = f"encoder.layer.{layer}"
        for slot, part in (("o", "attention.output"), ("up", "intermediate"), ("down", "output")):
            matrix(layer, slot, held[f"{base}.{part}.dense.weight"])
            vector(layer, f"{slot}_bias", held[f"{base}.{part}.dense.bias"])
        for slot, part in (("attention_norm", "attention.output"), ("output_norm", "output")):
            vector(layer, slot, held[f"{base}.{part}.LayerNorm.weight"])
            vector(layer, f"{slot}_bias", held[f"{base}.{part}.LayerNorm.bias"])
        for put, slot, kind in ((matrix, "qkv", "weight"), (vector, "qkv_bias", "bias")):
            q, k, v = (held[f"{base}.attention.self.{part}.{kind}"] for part in ("query", "key", "value"))
            put(layer, slot, np.concatenate([q * scale, k, v]))
    return encoder
