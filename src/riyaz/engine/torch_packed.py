"""Linears whose weights stand in oneDNN's own order, for a model that only answers.

A plain linear is re-ordered at every call, which for one token costs more than the product. In bf16, with the
weights of SmolLM2-135M, one row takes half the time and the head a quarter; 1,000 rows gain a tenth.
"""

import torch
from torch import Tensor, nn

from riyaz.layers.lora import LoRALinear
from riyaz.layers.swap import swap


class PackedLinear(nn.Module):
    """A bf16 linear without a gradient; the plain weight (out, in) is gone."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1)

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + bias for x (T, in)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class PackedLoRA(LoRALinear):
    """A packed base with its adapter: W and A are one product, as a second call costs as much as A's own work."""

    def __init__(self, lora: LoRALinear) -> None:
        nn.Module.__init__(self)
        weight, bias = lora.base.weight, lora.base.bias
        both = torch.cat((weight, lora.lora_A.detach().to(weight.dtype)))  # (out + r, in)
        more = None if bias is None else torch.cat((bias, bias.new_zeros(len(lora.lora_A))))
        self.out_features, self.enabled = len(weight), lora.enabled
        self.down = PackedLinear(both, more)
        self.up = PackedLinear((lora.lora_B.detach().float() * lora.scale).to(weight.dtype), None)

    def forward(self, x: Tensor) -> Tensor:
        """The base and, when enabled, the product of A and B."""
        base, low = self.down(x).tensor_split((self.out_features,), dim=1)  # (T, out), (T, r)
        return base + self.up(low) if self.enabled else base.contiguous()


def pack(model: nn.Module) -> None:
    """Replace the bf16 linears by packed ones, where oneDNN is; the model cannot be trained or saved then."""
    if not torch.backends.mkldnn.is_available():
        return
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear) and module.base.weight.dtype == torch.bfloat16:
            swap(model, name, PackedLoRA(module))
        elif isinstance(module, nn.Linear) and module.weight.dtype == torch.bfloat16 and not name.endswith(".base"):
            swap(model, name, PackedLinear(module.weight, module.bias))
