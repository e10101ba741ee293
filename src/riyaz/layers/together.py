"""Linears of the same input as one step of autograd: q, k and v, or gate and up.

One by one each would make a gradient of x, and autograd would add these up in further passes over memory; here each
product adds to the one before it. The A matrices of LoRAs become one product instead of three thin ones.
"""

from torch import Tensor, nn

from riyaz.layers import in_place, lora


def together(x: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """`linear(x)` of each linear, for x (T, in): at once where all of them train in place, or all have a LoRA."""
    for fast in (in_place, lora):
        if all(map(fast.takes, linears)):
            found: tuple[Tensor, ...] = fast.products(x, linears)
            return found
    return tuple(linear(x) for linear in linears)
