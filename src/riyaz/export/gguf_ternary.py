"""The ternary linears of a model that is exported as GGUF: blocks of llama.cpp's TQ2_0 or TQ1_0.

A block of 256 weights has a scale in half precision, so scales are rounded, codes are not.
"""

from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.sources import Source, gguf_ternary, gguf_write
from riyaz.sources.gguf_ternary import SUPER
from riyaz.sources.ternary import Ternary

TERNARY = ("tq2_0", "tq1_0")  # --dtype
ELSEWHERE = "export it with --format hf"


def type_of(source: Source, dtype: str | None) -> str | None:
    """The --dtype of a source, None for the model's own; by default tq2_0 of a ternary model. Raises RiyazError for
    ternary types of a model that is not, and for others of one that is."""
    if not describe(source).has_ternary:
        if dtype in TERNARY:
            raise RiyazError(f"{source.name} is not ternary", "--dtype", "make one of it with riyaz ternarize")
        return dtype
    if dtype is not None and dtype not in TERNARY:
        raise RiyazError(f"{source.name} is ternary, and {dtype} would round it again", "--dtype", "take tq2_0")
    return dtype or TERNARY[0]


def in_blocks(
    family: ModuleType, model: Any, dtype: str, where: str
) -> tuple[dict[str, gguf_write.PlannedTensor], tuple[str, ...]]:
    """The planned tensors of a model's ternary linears by Hugging Face name, which the model holds from here on as the
    file does, and a note for the user; nothing of a model without. Raises RiyazError for what blocks cannot hold."""

    from riyaz.layers.swaps import ternary

    ternary.freeze(model)
    planned, names = {}, family.names(model.config)
    for path, linear in model.named_modules():
        if not isinstance(linear, ternary.FrozenTernaryLinear):
            continue
        name, codes = f"{path}.weight", linear.codes.numpy()
        _expect_blocks(name, codes.shape[1], linear.group, where)
        linear.scales = linear.scales.half().float()
        scales = np.broadcast_to(linear.scales.numpy(), (len(codes), linear.scales.shape[1]))
        if not np.isfinite(scales).all() or not scales.all():
            raise RiyazError(f"{name} has a scale that half precision does not hold", where, ELSEWHERE)
        codes, scales = (
            family.to_gguf_layout(model.config, name, np.ascontiguousarray(array)) for array in (codes, scales)
        )
        rows = gguf_ternary.blocks_of(dtype, Ternary(codes, scales, linear.group))
        values = partial(np.asarray, rows)
        planned[name] = gguf_write.PlannedTensor(names[name], codes.shape, dtype, values, encoded=True)
    return planned, _notes(model.config) if planned else ()


def _expect_blocks(name: str, cols: int, group: int | None, where: str) -> None:
    """Raises RiyazError for rows and groups of columns that are no whole blocks."""
    if cols % SUPER:
        what = f"{name} has rows of {cols} weights, and blocks of TQ1_0 and TQ2_0 have {SUPER}"
        raise RiyazError(what, where, ELSEWHERE)
    if group and group % SUPER:
        what = f"{name} has a scale for every {group} columns, and blocks of TQ1_0 and TQ2_0 one for {SUPER}"
        raise RiyazError(what, where, ELSEWHERE)


def _notes(config: Any) -> tuple[str, ...]:
    """What llama.cpp does not know of a ternary model."""
    if getattr(config, "activation", "silu") == "silu":
        return ("llama.cpp rounds inputs in blocks of 256, training a whole token: its numbers differ a little",)
    return ("llama.cpp computes SiLU in every bitnet; this model has ReLU², which bitnet.cpp and riyaz compute",)
