"""The model that `riyaz ternarize` trains: a full-precision one with ternary linears and, where the family has a place
for them, norms before the output linears (subln), as in BitDistill (Wu et al. 2025, arXiv 2510.13998).

A llama without biases becomes a BitNet with SiLU, which is a llama with these norms; other families get none.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from riyaz.data.packing import pack
from riyaz.data.rows import Row
from riyaz.families import bitnet, describe, with_sub_norms
from riyaz.families.bitnet import SUB_NORMS
from riyaz.layers.attention import packed
from riyaz.layers.swaps import ternary
from riyaz.models import empty, fill_weights, load, to_torch
from riyaz.sources import Source


def with_norms(source: Source) -> bool:
    """Whether the student of this source gets norms."""
    return with_sub_norms(describe(source).config) is not None


def rounded(source: Source, group: int | None = None) -> Any:
    """The source's model with its linears rounded to ternary ones and nothing learned, in evaluation mode."""
    model = load(source, torch.float32)
    ternary.apply(model, group)
    return model.eval()


def student(source: Source, teacher: Any, rows: Sequence[Row], group: int | None = None) -> Any:
    """A trainable float32 model with the source's weights and ternary linears. The norms that it gets multiply by the
    usual size of the teacher's activations on `rows`, so that they begin as near to nothing as a norm can."""
    family = describe(source)
    config = with_sub_norms(family.config)
    if config is None:
        model = load(source, torch.float32)
    else:
        sizes = magnitudes(teacher, rows)
        weights = {name: to_torch(kind, array).float() for name, kind, array in family.weights()}
        norms = {
            f"{name.removesuffix(linear)}{norm}.weight": size
            for name, size in sizes.items()
            for linear, norm in SUB_NORMS.items()
            if name.endswith(linear)
        }
        plan = bitnet.layer_plan(config)
        state = {
            name: weights[name] if name in weights else torch.full(shape, norms[name]) for name, shape in plan.items()
        }
        model = fill_weights(empty(config), state)
    ternary.apply(model, group)
    return model.requires_grad_(True)


@torch.no_grad()
def magnitudes(model: Any, rows: Sequence[Row]) -> dict[str, float]:
    """The median over tokens of the root mean square of what enters each linear of SUB_NORMS on these rows, by the
    linear's name. A mean would be that of the few tokens whose activations are a hundred times the others'."""
    sizes: dict[str, list[Tensor]] = {}

    def hooked(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            sizes.setdefault(name, []).append(inputs[0].float().square().mean(-1).sqrt())

        return hook

    named = [(name, module) for name, module in model.named_modules() if name.endswith(tuple(SUB_NORMS))]
    handles = [module.register_forward_pre_hook(hooked(name)) for name, module in named]
    for row in rows:
        one = pack([row])
        model(torch.from_numpy(one.tokens), torch.from_numpy(one.positions), packed(one.lengths))
    for handle in handles:
        handle.remove()
    return {name: float(torch.cat(seen).median()) for name, seen in sizes.items()}
