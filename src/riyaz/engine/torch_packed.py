"""Linears whose weights stand in oneDNN's own order, for a model that only answers.

A plain linear is re-ordered at every call, which for one token costs more than the product. In bf16, with the
weights of SmolLM2-135M, one row takes half the time and the head a quarter; 1,000 rows gain a tenth.
"""

import torch
from torch import Tensor, nn

from riyaz.layers.lora import LoRALinear
from riyaz.layers.swap import swap


class PackedLinear(nn.Module):
    """A bf16 linear without a gradient; the plain weight is gone."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1)

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + bias for x (T, in)."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


class PackedLoRA(LoRALinear):
    """A packed base and its adapter in the base's type."""

    def __init__(self, lora: LoRALinear) -> None:
        nn.Module.__init__(self)
        dtype = lora.base.weight.dtype
        self.base = PackedLinear(lora.base)  # type: ignore[assignment]
        self.scale, self.enabled = lora.scale, lora.enabled
        self.lora_A = nn.Parameter(lora.lora_A.detach().to(dtype), requires_grad=False)
        self.lora_B = nn.Parameter(lora.lora_B.detach().to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """The base and, when enabled, the product of A and B."""
        out = self.base(x)
        return out.addmm_(x @ self.lora_A.T, self.lora_B.T, alpha=self.scale) if self.enabled else out


def pack(model: nn.Module) -> None:
    """Replace the bf16 linears by packed ones, where oneDNN is; the model cannot be trained or saved then."""
    if not torch.backends.mkldnn.is_available():
        return
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear) and module.base.weight.dtype == torch.bfloat16:
            swap(model, name, PackedLoRA(module))
        elif isinstance(module, nn.Linear) and module.weight.dtype == torch.bfloat16 and not name.endswith(".base"):
            swap(model, name, PackedLinear(module))
