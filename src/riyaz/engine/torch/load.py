"""From a model's files to a TorchRunner."""

import torch

from riyaz import hardware, models
from riyaz.adapters import Adapter
from riyaz.engine.torch.packed import pack
from riyaz.engine.torch.runner import TorchRunner
from riyaz.families import describe
from riyaz.layers.swaps import lora
from riyaz.sources import Source


def load_runner(source: Source, dtype: str, merged: Adapter | None = None) -> TorchRunner:
    """The source's model in torch's type `dtype`, on all cores this process may use, with the adapter `merged` added to
    the weights."""
    torch.set_num_threads(hardware.threads())
    model = models.load(source, getattr(torch, dtype))
    if merged is not None:
        assert merged.soft_prompt is None, "a soft prompt cannot be merged into the weights"
        lora.attach(model, merged)
        lora.merge(model)
    pack(model)
    return TorchRunner(model, describe(source))
