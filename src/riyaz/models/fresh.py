"""Randomly initialised models, from which pretraining starts.

Source: GPT-2 (Radford et al. 2019): a normal with standard deviation 0.02, divided by √(2 · layers) for the matrices
whose output each half layer adds to the residual stream, so that the stream's size does not grow with the layers.
"""

import math
from typing import Any

import torch
from torch import Tensor

from riyaz.errors import RiyazError
from riyaz.families import FRESH
from riyaz.layers.swaps.ternary import apply
from riyaz.models import empty, fill_weights

STD = 0.02


def fresh(config: Any, seed: int, ternary: bool = False) -> Any:
    """A trainable float32 model of this configuration with random weights, the same for the same seed; with `ternary`
    its linears round them in every forward. Raises RiyazError for a family that riyaz cannot pretrain."""
    if config.model_type not in FRESH:
        what = f"a model of the family {config.model_type} cannot be pretrained"
        raise RiyazError(what, hint=f"choose {' or '.join(FRESH)}")
    family, generator = FRESH[config.model_type], torch.Generator().manual_seed(seed)
    residual = STD / math.sqrt(2 * config.n_layers)
    state = {
        name: _initial(name, shape, residual if name.endswith(family.RESIDUAL) else STD, generator)
        for name, shape in family.layer_plan(config).items()
    }
    model = fill_weights(empty(config), state)
    if ternary:
        apply(model)
    return model


def _initial(name: str, shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    """The initial value of one parameter: normal for matrices, 1 for norms, 0 for biases."""
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
    return torch.empty(shape).normal_(0.0, std, generator=generator)
