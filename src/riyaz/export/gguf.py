"""A model as one GGUF file: what llama.cpp needs, weights in float or in blocks, tokenizer and chat template.

Two comparisons before it is kept. The file opened again must say what the source says when its weights are rounded in
memory in the same way, so that no mistake hides behind the rounding; and the rounding itself must be small.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from riyaz.errors import RiyazError
from riyaz.export.check import DIVERGENCE_MOST, Written, checked, divergence, logits, same_tokenizer
from riyaz.export.targets import Opened, mergeable, own_type
from riyaz.families import FAMILIES, describe
from riyaz.families.rope import FREQUENCIES
from riyaz.sources import Source, gguf_write, open_source
from riyaz.sources.gguf_vocabulary import tokenizer_metadata

FILE = "model.gguf"
# --dtype -> (type of the matrices, general.file_type)
DTYPES = {
    "float32": ("F32", 0), "float16": ("F16", 1), "bfloat16": ("BF16", 32), "q8_0": ("Q8_0", 7), "q4_0": ("Q4_0", 2),
}  # fmt: skip
POSITIONS = "position_embd.weight"  # llama.cpp keeps it float32
OUTER = ("token_embd.weight", "output.weight")  # what 4 bits cost most, and every token passes


def family_of(source: Source) -> ModuleType:
    """The module of the source's family, which says how llama.cpp's file of it looks."""
    return FAMILIES[describe(source).model_type]


def write(opened: Opened, work: Path, dtype: str | None = None) -> Written:
    """The file in `dtype`, by default the model's own; with an adapter, which is merged in float32, float32."""
    import torch

    from riyaz import models
    from riyaz.layers import lora

    dtype = dtype or ("float32" if opened.adapter else own_type(opened.source))
    family, tokenizer = family_of(opened.source), opened.source.tokenizer()
    model = mergeable(opened)
    known, divisors = _known(family, model.config, opened.source)
    metadata = {
        **known,
        "general.type": "model", "general.name": opened.source.name, "general.file_type": DTYPES[dtype][1],
        "general.quantization_version": 2,
        **tokenizer_metadata(opened.source, tokenizer, model.config.vocab_size),
    }  # fmt: skip
    wanted = logits(model, tokenizer)
    lora.merge(model)
    state = _state(model)
    planned = _planned(family, model.config, state, DTYPES[dtype][0])
    gguf_write.write(work / FILE, metadata, [*planned.values(), *divisors])
    for name, plan in planned.items():
        state[name].copy_(torch.from_numpy(gguf_write.round_trip(plan.dtype, state[name].numpy())))
    rounded = logits(model, tokenizer)
    del model, state, planned
    reopened = open_source(work)
    same_tokenizer(tokenizer, reopened.tokenizer(), "gguf")
    found = logits(models.load(reopened, torch.float32), reopened.tokenizer())
    apart = divergence(rounded, found)
    if not apart <= DIVERGENCE_MOST["float32"]:
        what = f"opened again, the file differs by {apart:.2g} nats per token from the weights it was written from"
        raise RiyazError(what, "gguf", "nothing was kept; report a bug")
    return checked(wanted, found, work, "gguf", dtype)


def _known(family: ModuleType, config: Any, source: Source) -> tuple[dict[str, Any], list[gguf_write.PlannedTensor]]:
    """What the file must say of the model, and the tensor that says how RoPE is scaled, if one must."""
    try:
        known = family.gguf_metadata(config)
    except RiyazError as error:  # what GGUF has no place for
        raise RiyazError(error.what, str(source.path), error.hint) from error
    divisors = known.pop(FREQUENCIES, None)
    if divisors is None:
        return known, []
    values = np.array(divisors, np.float32)
    return known, [gguf_write.PlannedTensor(FREQUENCIES, values.shape, "F32", lambda: values)]


def _state(model: Any) -> dict[str, Any]:
    """The tensors by Hugging Face name, the embedding first; a tied head has none."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    return state


def _planned(family: ModuleType, config: Any, state: dict[str, Any], dtype: str) -> dict[str, gguf_write.PlannedTensor]:
    """Hugging Face name -> what is written for it, in llama.cpp's order of rows."""
    planned = {}
    for name, stored in family.names(config).items():
        tensor = state[name]
        kind = "Q8_0" if dtype == "Q4_0" and stored in OUTER else "F32" if stored == POSITIONS else dtype

        def values(name: str = name, tensor: Any = tensor) -> Any:
            return family.to_gguf_layout(config, name, tensor.numpy())

        shape = tuple(tensor.shape)
        planned[name] = gguf_write.PlannedTensor(stored, shape, gguf_write.dtype_for(kind, shape), values)
    return planned
