"""Linears of the same input as one step of autograd: q, k and v, or gate and up.

One by one each would make a gradient of x, and autograd would add these up in further passes over memory; here each
product adds to the one before it. The A matrices of LoRAs become one product instead of three thin ones.
"""

from torch import Tensor, nn

from riyaz.layers.fast import in_place
from riyaz.layers.swaps import lora


def together(x: Tensor, *linears: nn.Module, columns: bool = False) -> tuple[Tensor, ...]:
    """`linear(x)` of each linear, for x (T, in): at once where all of them train in place, or all have a LoRA. With
    `columns` the results may be columns of one matrix, not contiguous."""
    if all(map(in_place.computes, linears)):
        return in_place.outputs(x, linears, columns)
    if all(map(lora.computes, linears)):
        return lora.outputs(x, linears)
    return tuple(linear(x) for linear in linears)
