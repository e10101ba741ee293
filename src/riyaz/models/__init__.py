"""The torch module of each family; `load` puts a source's weights into it."""

import importlib

import numpy as np
import torch

from riyaz.families import describe
from riyaz.models.llama import Model
from riyaz.sources import Source


def load(source: Source, dtype: torch.dtype = torch.bfloat16) -> Model:
    """The source's model in `dtype`, frozen and in evaluation mode, with the checkpoint's names."""
    family = describe(source)
    module = importlib.import_module(f"riyaz.models.{family.model_type}")
    with torch.device("meta"):
        model = module.Model(family.config)
    state = {name: to_torch(kind, array).to(dtype) for name, kind, array in family.weights()}
    if family.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True, strict=True)
    if family.config.tie_word_embeddings:  # assigning made two parameters of the one tensor
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval().requires_grad_(False)


def to_torch(kind: str, array: np.ndarray) -> torch.Tensor:
    """A tensor of the array's shape; BF16 arrives as its 16 bits in uint16."""
    array = np.ascontiguousarray(array)
    if not array.flags.writeable:  # a memory map: torch must not share it
        array = array.copy()
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if kind == "BF16" else tensor
