"""Linears with weights in oneDNN's own memory order, for inference only.

oneDNN reorders a plain linear's weight at every call, which for one token costs more than the product. In bf16, with
the weights of SmolLM2-135M, one row takes half the time and the head a quarter; 1,000 rows gain a tenth.
"""

import torch
from torch import Tensor, nn

from riyaz.layers.swaps.swap import swap


class PackedLinear(nn.Module):
    """A bf16 linear without gradients, which holds only the packed weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)

    @property
    def weight(self) -> Tensor:
        """The weight (out, in), unpacked into new memory."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + bias for x (T, in)."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")


def pack(model: nn.Module) -> None:
    """Replace the plain bf16 linears by packed ones, where oneDNN is available. The model can then no longer be trained
    or saved."""
    if not torch.backends.mkldnn.is_available():
        return
    linears = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    for name in linears:  # not the modules: each plain weight is freed before the next one is packed
        plain = model.get_submodule(name)
        assert isinstance(plain, nn.Linear)
        if plain.weight.dtype == torch.bfloat16:
            swap(model, name, PackedLinear(plain.weight, plain.bias))
