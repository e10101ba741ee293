"""Randomly initialised models, from which pretraining starts.

Source: GPT-2 (Radford et al. 2019): a normal with standard deviation 0.02, divided by √(2 · layers) for the matrices
whose output each half layer adds to the residual stream, so that the stream's size does not grow with the layers.
"""

import importlib
import math
from typing import Any

import torch
from torch import Tensor

from riyaz.errors import RiyazError
from riyaz.families import FAMILIES
from riyaz.layers.ternary import apply
from riyaz.models import fill

STD = 0.02
# the matrices of each family whose output is added to the residual stream
RESIDUAL = {
    "bitnet": (".o_proj.weight", ".down_proj.weight"),
    "llama": (".o_proj.weight", ".down_proj.weight"),
    "gpt2": (".c_proj.weight",),
}


def fresh(config: Any, seed: int, ternary: bool = False) -> Any:
    """A trainable float32 model of this configuration with random weights, the same for the same seed; with `ternary`
    its linears round them in every forward. Raises RiyazError for a family that riyaz cannot pretrain."""
    family = config.model_type
    if family not in RESIDUAL:
        what = f"a model of the family {family} cannot be pretrained"
        raise RiyazError(what, hint=f"choose {' or '.join(RESIDUAL)}")
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = importlib.import_module(f"riyaz.models.{family}").Model(config)
    plan = FAMILIES[family].layer_plan(config)
    model = fill(model, {name: _initial(name, shape, config, generator) for name, shape in plan.items()})
    if ternary:
        apply(model)
    return model


def _initial(name: str, shape: tuple[int, ...], config: Any, generator: torch.Generator) -> Tensor:
    """The initial value of one parameter: normal for matrices, 1 for norms, 0 for biases."""
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
    std = STD / math.sqrt(2 * config.n_layers) if name.endswith(RESIDUAL[config.model_type]) else STD
    return torch.empty(shape).normal_(0.0, std, generator=generator)
