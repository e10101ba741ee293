"""Weights that a file holds as codes: how often each code occurs in each linear, and how many weights are zero."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from riyaz.adapters.base_shapes import shapes_of
from riyaz.families import Family, ModelConfig
from riyaz.sources.gguf_blocks import LAYOUTS

NIBBLES = {"Q4_0": 8, "Q4_1": None, "Q4_K": None}  # types with a code of 4 bits in each half byte; the code of zero
WHOLE = {"Q8_0": 0}  # types with a code in each byte; the code of zero
TERNARY = "ternary"


@dataclass(frozen=True)
class Codes:
    """The codes of one linear: `counts` of those from `first` on, and the share of weights that are zero, None where a
    code alone does not tell."""

    name: str
    kind: str  # the type in the file
    first: int
    counts: tuple[int, ...]
    zeros: float | None


def codes_of(family: Family[ModelConfig]) -> Iterator[Codes]:
    """The codes of each linear that the file holds as ternary, Q4_0, Q4_1, Q4_K or Q8_0, in the model's order."""
    for path in shapes_of(family).linears:
        name = f"{path}.weight"
        if name not in family.stored_names:
            continue  # a tied head
        kind = family.source.tensors[family.stored_names[name]].dtype
        if family.is_ternary(name):
            yield _counted(path, TERNARY, family.ternary(name).codes, -1, 1, 0)
        elif family.source.format == "gguf" and kind in (*NIBBLES, *WHOLE):
            codes = family.blocks(name).reshape(-1).view(LAYOUTS[kind])["q"]
            family.source.release()
            if kind in WHOLE:
                yield _counted(path, kind, codes, -128, 127, WHOLE[kind])
            else:
                both = np.concatenate([(codes & 15).ravel(), (codes >> 4).ravel()])
                yield _counted(path, kind, both, 0, 15, NIBBLES[kind])


def _counted(name: str, kind: str, codes: np.ndarray, first: int, last: int, zero: int | None) -> Codes:
    """The counts of integer codes from `first` to `last`."""
    counts = np.bincount((codes.ravel().astype(np.int16) - first).view(np.uint16), minlength=last - first + 1)
    zeros = None if zero is None else float(counts[zero - first] / codes.size)
    return Codes(name, kind, first, tuple(counts.tolist()), zeros)
