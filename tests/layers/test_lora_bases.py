"""LoRA on linears that are no plain `nn.Linear`: the base is called as it is; and an adapter put on and taken off."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from refusals import assert_refused
from small_llama import family_of, save_peft, small_model
from torch import Tensor, nn

from riyaz import adapters
from riyaz.layers.attention import packed
from riyaz.layers.swaps import lora
from riyaz.layers.swaps.lora import LoRALinear
from riyaz.layers.swaps.swap import linears, swap
from riyaz.models.llama import Model

TOKENS = torch.arange(5, 25)
NEAR = 1e-5


class Doubled(nn.Linear):
    """A Linear by its class that computes twice as much."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Ternary(nn.Module):
    """A frozen linear whose weights are -1, 0 or 1 and one scale; it has no `weight` and no `bias`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        generator = torch.Generator().manual_seed(2)
        self.register_buffer("signs", torch.randint(-1, 2, (out_features, in_features), generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x @ self.signs.T.to(x.dtype)


def logits_of(model: Model) -> Tensor:
    with torch.no_grad():
        return model.head(model(TOKENS, torch.arange(len(TOKENS)), packed([len(TOKENS)])))


def filled(layer: LoRALinear) -> None:
    nn.init.normal_(layer.lora_A, std=0.3, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(layer.lora_B, std=0.3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [Doubled, Ternary])
def test_a_base_of_another_kind_is_called_and_its_gradients_are_autograds(make: Callable[..., nn.Module]) -> None:
    base = make(6, 4).requires_grad_(False)
    layer = LoRALinear(base, 3, 1.7)
    filled(layer)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()
    grad = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
    layer(x).backward(grad)
    naive = x.detach().requires_grad_()
    a, b = (half.detach().requires_grad_() for half in (layer.lora_A, layer.lora_B))
    wanted = base(naive) + 1.7 * (naive @ a.T) @ b.T
    wanted.backward(grad)
    for ours, theirs in (
        (layer(x), wanted),
        (x.grad, naive.grad),
        (layer.lora_A.grad, a.grad),
        (layer.lora_B.grad, b.grad),
    ):
        assert (ours - theirs).abs().max() <= NEAR
    layer.enabled = False
    assert torch.equal(layer(x), base(x))
    with assert_refused(f"cannot be merged into a {make.__name__}"):
        layer.fuse()


def test_linears_match_exact_types_and_another_kind_is_adapted_when_it_is_named() -> None:
    model = small_model()
    plain = [name for name, _ in linears(model, None)]
    swap(model, "model.layers.0.mlp.up_proj", Ternary(32, 64))
    swap(model, "model.layers.1.mlp.up_proj", Doubled(32, 64, bias=False))
    assert [name for name in plain if name not in dict(linears(model, None))] == [
        "model.layers.0.mlp.up_proj",
        "model.layers.1.mlp.up_proj",
    ]
    bare = logits_of(model)
    lora.apply(model, r=2, alpha=4, seed=0, targets=("up_proj",), kinds=(Ternary,))
    assert [name for name, _ in lora.lora_layers(model)] == ["model.layers.0.mlp.up_proj"]
    assert torch.equal(logits_of(model), bare), "a fresh adapter changes nothing"
    adapter = lora.detach(model)
    pair = adapter.pairs["model.layers.0.mlp.up_proj"]
    assert (pair.a.shape, pair.b.shape) == ((2, 32), (64, 2))
    lora.attach(model, adapter)
    assert torch.equal(logits_of(model), bare)


def test_detach_leaves_the_bare_modules_and_attach_brings_the_same_answers_back(tmp_path) -> None:
    model = small_model()
    modules, bare = dict(model.named_modules()), logits_of(model)
    norm = np.full(32, 1.5, np.float32)
    lora.attach(model, adapters.Adapter(whole={"model.norm.weight": norm}))
    lora.apply(model, r=3, alpha=6, seed=1)
    for _, layer in lora.lora_layers(model):
        filled(layer)
    adapted = logits_of(model)
    save_peft(model, tmp_path, base="x", alpha=6)
    read = adapters.read(tmp_path, family_of(model))
    adapter = lora.detach(model)
    assert dict(model.named_modules()) == modules and torch.equal(logits_of(model), bare)
    assert list(adapter.whole) == ["model.norm.weight"] and np.array_equal(adapter.whole["model.norm.weight"], norm)
    for name, pair in read.pairs.items():
        again = adapter.pairs[name]
        assert pair.a.dtype == again.a.dtype == np.float32
        assert np.array_equal(pair.a, again.a) and np.array_equal(pair.b, again.b) and pair.scale == again.scale
    lora.attach(model, adapter)
    assert torch.equal(logits_of(model), adapted) and not any(weight.requires_grad for weight in model.parameters())
    lora.detach(model)
    assert list(lora.detach(model).pairs) == []
