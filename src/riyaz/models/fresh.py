"""A model that has learned nothing: the random weights with which pretraining begins.

Source: GPT-2 (Radford et al. 2019): a normal of 0.02, and less for what is added to the stream once per half layer, so
that its size does not grow with the layers.
"""

import importlib
import math
from typing import Any

import torch
from torch import Tensor

from riyaz.errors import RiyazError
from riyaz.families import FAMILIES
from riyaz.models import fill

STD = 0.02
ADDED = {"llama": (".o_proj.weight", ".down_proj.weight"), "gpt2": (".c_proj.weight",)}  # to the stream, by each layer


def fresh(config: Any, seed: int) -> Any:
    """A model of this configuration in float32, trainable, equal for equal seeds; RiyazError for a family that is only
    read."""
    family = config.model_type
    if family not in ADDED:
        raise RiyazError(f"a model of the family {family} cannot begin from nothing", hint=f"take {' or '.join(ADDED)}")
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = importlib.import_module(f"riyaz.models.{family}").Model(config)
    plan = FAMILIES[family].layer_plan(config)
    return fill(model, {name: _first(name, shape, config, generator) for name, shape in plan.items()})


def _first(name: str, shape: tuple[int, ...], config: Any, generator: torch.Generator) -> Tensor:
    """Normal matrices; norms at 1, biases at 0."""
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith(".bias") else torch.ones(shape)
    std = STD / math.sqrt(2 * config.n_layers) if name.endswith(ADDED[config.model_type]) else STD
    return torch.empty(shape).normal_(0.0, std, generator=generator)
