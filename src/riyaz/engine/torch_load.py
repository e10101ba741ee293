"""From files to a Backend: the one place where a model is opened to answer."""

from pathlib import Path
from typing import Any

import torch

from riyaz import adapters, hardware, models
from riyaz.engine.torch_backend import Backend
from riyaz.engine.torch_packed import pack
from riyaz.families import Family, ModelConfig, describe
from riyaz.layers import lora, soft_prompt
from riyaz.sources import Source

ADAPTER = "adapter"  # the name under which requests ask for it


def load(source: Source, eos_ids: frozenset[int], adapter: Path | None = None, *, merged: bool = False) -> Backend:
    """The source's model with an adapter's folder on it, in bf16 where the CPU is quick at it, else in float32, on
    all cores this process may use; `merged` adds the adapter to the weights, where it cannot be turned off."""
    torch.set_num_threads(hardware.cores())
    model = models.load(source, torch.bfloat16 if hardware.bf16_is_fast() else torch.float32)
    if adapter is not None:
        model = attach(model, adapter, describe(source))
    if merged:
        assert not isinstance(model, soft_prompt.SoftPrompt), "a soft prompt has no place in the weights"
        lora.merge(model)
    pack(model)
    return Backend(model, eos_ids, ADAPTER if adapter is not None and not merged else None)


def attach(model: Any, folder: Path, family: Family[ModelConfig]) -> Any:
    """The model, of this family, with the folder's adapter, of whichever kind it is. Raises RiyazError."""
    adapter = adapters.read(folder, family)
    if adapter.soft_prompt is not None:
        return soft_prompt.attach(model, adapter.soft_prompt)
    lora.attach(model, adapter)
    return model
