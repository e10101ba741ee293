"""Export of a model as one GGUF file for llama.cpp: metadata, float or quantised weights, tokenizer, chat template.

The file is compared twice before it is kept. Opened again, it must give the logits of the source with its weights
rounded in memory in the same way, so that rounding cannot hide a mistake; and the rounding itself must be small.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from riyaz.errors import RiyazError
from riyaz.export.check import MAX_DIVERGENCE, ExportResult, checked_export, divergence, logits, same_tokenizer
from riyaz.export.gguf_ternary import TERNARY, in_blocks, type_of
from riyaz.export.targets import Target, mergeable, own_type
from riyaz.families import FAMILIES, describe
from riyaz.families.rope import FREQUENCIES
from riyaz.sources import Source, gguf_write, open_source
from riyaz.sources.gguf_quantise import QUANTISE
from riyaz.sources.gguf_vocabulary import tokenizer_metadata

FILE = "model.gguf"
# --dtype -> (type of the matrices, general.file_type)
DTYPES = {
    "float32": ("F32", 0), "float16": ("F16", 1), "bfloat16": ("BF16", 32), "q8_0": ("Q8_0", 7), "q4_0": ("Q4_0", 2),
    "q4_k_m": ("Q4_K", 15), "tq2_0": ("TQ2_0", 37), "tq1_0": ("TQ1_0", 36),
}  # fmt: skip
POSITIONS = "position_embd.weight"  # always float32, as in llama.cpp
OUTER = ("token_embd.weight", "output.weight")  # 8 bits in a q4_0 file: 4 bits would lose the most here


def family_of(source: Source) -> ModuleType:
    """The module of the source's family in `riyaz.families`, with its GGUF names, metadata and layouts."""
    return FAMILIES[describe(source).model_type]


def write(target: Target, work: Path, dtype: str | None = None) -> ExportResult:
    """Write the file, with an adapter merged, in `dtype`; by default in the model's own type, or in float32 if there is
    an adapter."""
    import torch

    from riyaz import models
    from riyaz.layers.swaps import lora

    dtype = type_of(target.source, dtype) or ("float32" if target.adapter else own_type(target.source))
    family, tokenizer = family_of(target.source), target.source.tokenizer()
    model = mergeable(target)
    described, divisors = model_metadata(family, model.config, target.source)
    metadata = {
        **described,
        "general.type": "model", "general.name": target.source.name, "general.file_type": DTYPES[dtype][1],
        "general.quantization_version": 2,
        **tokenizer_metadata(target.source, tokenizer, model.config.vocab_size),
    }  # fmt: skip
    source_logits = logits(model, tokenizer)
    lora.merge(model)
    ternary, notes = in_blocks(family, model, DTYPES[dtype][0], str(target.source.path))
    state = _state(model)
    planned = ternary | _planned(family, model.config, state, dtype)
    notes += _narrow(planned, dtype)
    for name, plan in planned.items():  # encoded once: searching the scales of K blocks takes the most time
        if name in ternary:
            continue
        rows = gguf_write.encode(plan.dtype, state[name].numpy())
        state[name].copy_(torch.from_numpy(gguf_write.decode(plan.dtype, rows)))
        if plan.dtype in QUANTISE:
            values = partial(family.to_gguf_layout, model.config, name, rows)
            planned[name] = replace(plan, values=values, encoded=True)
    gguf_write.write(work / FILE, metadata, [*planned.values(), *divisors])
    rounded_logits = logits(model, tokenizer)
    del model, state, planned
    reopened = open_source(work)
    same_tokenizer(tokenizer, reopened.tokenizer(), "gguf")
    written_logits = logits(models.load(reopened, torch.float32), reopened.tokenizer())
    nats = divergence(rounded_logits, written_logits)
    if not nats <= MAX_DIVERGENCE["float32"]:
        what = f"opened again, the file differs by {nats:.2g} nats per token from the weights it was written from"
        raise RiyazError(what, "gguf", "nothing was kept; report a bug")
    return replace(checked_export(source_logits, written_logits, work, "gguf", dtype), notes=notes)


def model_metadata(
    family: ModuleType, config: Any, source: Source
) -> tuple[dict[str, Any], list[gguf_write.PlannedTensor]]:
    """The model's metadata and, if its RoPE is scaled by frequency, the tensor of divisors, else an empty list."""
    try:
        metadata = family.gguf_metadata(config)
    except RiyazError as error:  # GGUF cannot hold the configuration
        raise RiyazError(error.what, str(source.path), error.hint) from error
    divisors = metadata.pop(FREQUENCIES, None)
    if divisors is None:
        return metadata, []
    values = np.array(divisors, np.float32)
    return metadata, [gguf_write.PlannedTensor(FREQUENCIES, values.shape, "F32", lambda: values)]


def _state(model: Any) -> dict[str, Any]:
    """The model's tensors by Hugging Face name, without a tied head."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    return state


def _planned(family: ModuleType, config: Any, state: dict[str, Any], dtype: str) -> dict[str, gguf_write.PlannedTensor]:
    """Hugging Face name -> the GGUF tensor to write, with rows in llama.cpp's order."""
    planned = {}
    for name, stored in family.names(config).items():
        if name not in state:  # of a ternary linear
            continue
        tensor = state[name]

        def values(name: str = name, tensor: Any = tensor) -> Any:
            return family.to_gguf_layout(config, name, tensor.numpy())

        shape = tuple(tensor.shape)
        kind = gguf_write.dtype_for(matrix_type(stored, config, dtype), shape)
        planned[name] = gguf_write.PlannedTensor(stored, shape, kind, values)
    return planned


def matrix_type(stored: str, config: Any, dtype: str) -> str:
    """The type of a matrix, if its rows fit; q4_k_m mixes Q4_K and Q6_K as llama.cpp's `llama_tensor_get_type` does."""
    if stored == POSITIONS:
        return "F32"
    if dtype == "q4_0" and stored in OUTER:
        return "Q8_0"
    if dtype in TERNARY:
        return "F16"
    if dtype != "q4_k_m":
        return DTYPES[dtype][0]
    block, _, part = stored.removeprefix("blk.").partition(".")
    if part in ("attn_v.weight", "ffn_down.weight"):
        layer, eighth = int(block), config.n_layers // 8
        more = layer < eighth or layer >= 7 * config.n_layers // 8 or (layer - eighth) % 3 == 2
    else:
        head = "token_embd.weight" if config.tie_word_embeddings else "output.weight"
        more = stored == head or part == "attn_qkv.weight"  # llama.cpp has Q5_K for the latter
    return "Q6_K" if more else "Q4_K"


def _narrow(planned: dict[str, gguf_write.PlannedTensor], dtype: str) -> tuple[str, ...]:
    """A sentence on the matrices whose rows are no whole number of blocks of 256; none if there are no such."""
    matrices = [plan for plan in planned.values() if len(plan.shape) > 1]
    narrow = [plan for plan in matrices if plan.dtype not in ("Q4_K", "Q6_K", "F32")]
    if dtype != "q4_k_m" or not narrow:
        return ()
    kinds = " and ".join(sorted({plan.dtype for plan in narrow}))
    what = f"{len(narrow)} of {len(matrices)} matrices have rows that are not a multiple of 256 weights long"
    return (f"{what}: they are written as {kinds}, as llama.cpp does it, and the file is larger",)
