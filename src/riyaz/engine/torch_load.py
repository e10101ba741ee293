"""From files to a Backend: the one place where a model is opened to answer."""

from pathlib import Path

import torch

from riyaz import hardware, models
from riyaz.engine.torch_backend import Backend
from riyaz.engine.torch_packed import pack
from riyaz.errors import RiyazError
from riyaz.layers.lora import load_peft, merge, read_config
from riyaz.sources import Source

ADAPTER = "adapter"  # the name under which requests ask for it


def load(source: Source, eos_ids: frozenset[int], adapter: Path | None = None, *, merged: bool = False) -> Backend:
    """The source's model with a PEFT folder on it, in bf16 where the CPU is quick at it, else in float32, on
    all cores this process may use; `merged` adds the adapter to the weights, where it cannot be turned off."""
    torch.set_num_threads(hardware.cores())
    model = models.load(source, torch.bfloat16 if hardware.bf16_is_fast() else torch.float32)
    if adapter is not None:
        load_peft(model, adapter)
    if merged:
        merge(model)
    pack(model)
    return Backend(model, eos_ids, ADAPTER if adapter is not None and not merged else None)


def base_of(config: Path) -> str:
    """The base model that a PEFT configuration names. Raises RiyazError when it names none."""
    name = read_config(config).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise RiyazError("names no base model", str(config), "name it with --model")
    return name
