"""Linears of the same input as one step of autograd, beside each linear by itself."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from riyaz import native
from riyaz.layers.fast import in_place, native_functions
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.fast.together import together
from riyaz.layers.swaps import lora
from riyaz.layers.swaps.frozen import FrozenLinear
from riyaz.layers.swaps.lora import LoRALinear

WIDTHS, RANKS, EVEN, SCALES = (64, 32, 96), (3, 5, 1), (4, 2, 8), (0.5, 2.0, 1.0)
# of the largest number; in bf16 a sum of gradients is rounded as often, but elsewhere
NEAR = {torch.float32: 2e-6, torch.bfloat16: 2**-6}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def plain(bias: bool, dtype: torch.dtype) -> list[Any]:
    """Three linears of one input."""
    torch.manual_seed(0)
    return [nn.Linear(128, width, bias=bias, dtype=dtype) for width in WIDTHS]


def with_loras(coded: bool, dtype: torch.dtype, ranks: Sequence[int] = RANKS) -> list[Any]:
    """LoRAs of different ranks and scales on frozen linears."""
    layers = []
    for linear, r, scale in zip(plain(True, dtype), ranks, SCALES):
        base = linear.requires_grad_(False)
        layer = LoRALinear(FrozenLinear(base) if coded else base, r, scale)
        for weight in (layer.lora_A, layer.lora_B):
            nn.init.normal_(weight, std=0.2)
        layers.append(layer.to(dtype))
    return layers


def in_sums(linears: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
    """Linears that add their weights' gradients to sums in place, and the sums."""
    model, totals = nn.ModuleList(linears), {linear.weight: torch.zeros(linear.weight.shape) for linear in linears}
    in_place.attach(model, GradientSums(totals))
    return list(model), list(totals.values())


def alone(x: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """Each linear by itself."""
    return tuple(linear(x) for linear in linears)


def outcome(apply: Callable[..., tuple[Tensor, ...]], linears: Sequence[Any], dtype: torch.dtype) -> list[Tensor]:
    """Outputs, the gradient of x and those of all parameters."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(37, 128, generator=generator).to(dtype).requires_grad_()
    outputs = apply(x, *linears)
    grads = [torch.randn(out.shape, generator=generator).to(dtype) for out in outputs]
    torch.autograd.backward(outputs, grads)
    parameters = [weight for linear in linears for weight in linear.parameters() if weight.requires_grad]
    found = [*outputs, x.grad, *(weight.grad for weight in parameters)]
    for weight in parameters:
        weight.grad = None
    return [tensor.detach().float() for tensor in found if tensor is not None]


def expect_near(found: Sequence[Tensor], wanted: Sequence[Tensor], dtype: torch.dtype) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= NEAR[dtype] * other.abs().max()


@pytest.mark.parametrize("by_torch", [False, True], ids=["native", "torch"])
@DTYPES
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_linears_that_train_in_place(
    bias: bool, dtype: torch.dtype, by_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, write = [], native_functions.write_products
    monkeypatch.setattr(in_place, "write_products", lambda *given: calls.append(given) or write(*given))
    if by_torch:
        monkeypatch.setattr(in_place, "multiplies", lambda x, weights: False)
    dense = native.multiplies()
    linears = plain(bias, dtype)
    wanted = outcome(alone, linears, dtype)
    linears, totals = in_sums(linears)
    found = outcome(together, linears, dtype)
    assert bool(calls) == (dense and dtype == torch.bfloat16 and not by_torch)
    start = len(linears) + 1
    of_weights = wanted[start :: 1 + bias]
    del wanted[start :: 1 + bias]
    expect_near(found, wanted, dtype)
    expect_near(totals, of_weights, dtype)
    assert len({out.grad_fn for out in together(torch.ones(2, 128, dtype=dtype), *linears)}) == 1


@DTYPES
@pytest.mark.parametrize("kind", ["codes", "native", "torch"])
def test_loras(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    coded, calls, apply = kind == "codes", [], lora._NativeLoRAs.apply
    monkeypatch.setattr(lora._NativeLoRAs, "apply", lambda *given: calls.append(given) or apply(*given))
    if kind == "torch":
        monkeypatch.setattr(lora, "multiplies", lambda x, weights: False)
    layers = with_loras(coded, dtype, EVEN if kind == "native" else RANKS)
    found = outcome(together, layers, dtype)
    tiles = native.multiplies() and native.isa() == "amx"
    assert bool(calls) == (coded or (tiles and dtype == torch.bfloat16 and kind == "native"))
    if not coded:
        monkeypatch.setattr(lora, "multiplies", lambda x, weights: False)
    expect_near(found, outcome(alone, layers, dtype), dtype)
    assert len(found) == 3 + 1 + 6
    assert len({out.grad_fn for out in together(torch.ones(2, 128, dtype=dtype), *layers)}) == 1


def test_linears_of_other_kinds_are_called_one_by_one() -> None:
    layers, linears = with_loras(False, torch.float32), plain(True, torch.float32)
    layers[1].enabled = False
    mixed = [linears[0], *layers[1:]]
    for group in (layers, linears, mixed):
        x = torch.randn(5, 128)
        for one, other in zip(together(x, *group), alone(x, *group), strict=True):
            assert torch.equal(one, other)


def test_only_what_is_wanted_gets_a_gradient() -> None:
    linears, totals = in_sums(plain(True, torch.float32))
    linears[1].requires_grad_(False)
    outputs = together(torch.ones(3, 128), *linears)
    torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
    assert totals[0].any() and not totals[1].any()
    assert linears[1].bias.grad is None and linears[2].bias.grad is not None


def test_the_extension_multiplies_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even sizes in bfloat16 where the CPU is quick at pairs or has tiles; all else is torch's."""
    x, weight = torch.ones(3, 4, dtype=torch.bfloat16), torch.ones(6, 4, dtype=torch.bfloat16)
    for dense in (True, False):
        kernels = SimpleNamespace(has_dense=lambda dense=dense: dense)
        monkeypatch.setattr(native, "extension", lambda kernels=kernels: kernels)
        monkeypatch.setattr(native, "isa", lambda: "avx512bf16")
        assert native_functions.multiplies(x, [weight, weight]) == (dense and native.trains())
        assert not native_functions.multiplies(x.float(), [weight.float()])
        assert not native_functions.multiplies(x, [weight, weight[:5]])
        assert not native_functions.multiplies(x[:, :3], [weight[:, :3]])
        assert not native_functions.multiplies(x, [torch.ones(4, 6, dtype=torch.bfloat16).T])


def test_frozen_linears_are_multiplied_while_others_train() -> None:
    """Where the extension multiplies, in place of torch's products, and nothing of x is kept for them."""
    linears = nn.ModuleList(plain(True, torch.bfloat16)).requires_grad_(False)
    x = torch.randn(5, 128, dtype=torch.bfloat16, requires_grad=True)
    wanted = [linear(x) for linear in linears]
    put = in_place.attach(linears, GradientSums({}))
    assert len(put) == (len(linears) if native.multiplies() else 0)
    found = together(x, *linears)
    grads = [torch.randn_like(out) for out in wanted]
    pairs = [torch.autograd.grad(outs, x, grads) for outs in (found, wanted)]
    expect_near([*found, *pairs[0]], [*wanted, *pairs[1]], torch.bfloat16)
    in_place.detach(linears, put)
    assert all(type(linear) is nn.Linear for linear in linears)


def test_gradients_of_weights_that_are_frozen_are_left_out() -> None:
    linears, totals = in_sums(plain(False, torch.bfloat16))
    linears[1].weight.requires_grad_(False)
    x = torch.ones(5, 128, dtype=torch.bfloat16)
    sum(out.float().sum() for out in together(x, *linears)).backward()
    assert [bool(total.any()) for total in totals] == [True, False, True]


def test_gradients_whose_lines_are_an_odd_number_apart() -> None:
    (linear, *_), _ = in_sums(plain(False, torch.bfloat16))
    grads = []
    for more in (0, 3):
        x = torch.ones(5, 128, dtype=torch.bfloat16, requires_grad=True)
        rest = torch.ones(5, more, dtype=torch.bfloat16, requires_grad=True)
        torch.cat((linear(x), rest), 1).float().square().sum().backward()
        grads.append(x.grad)
    assert grads[0] is not None and grads[0].any() and torch.equal(*grads)


def test_a_linear_that_stands_twice_in_one_step() -> None:
    """Its two gradients go into one sum, one after the other."""
    ((linear, *_), (total, *_)), x = in_sums(plain(False, torch.bfloat16)), torch.randn(64, 128).bfloat16()
    sum(out.float().sum() for out in together(x, linear, linear)).backward()
    twice = total.clone()
    for _ in range(2):
        linear(x).float().sum().backward()
    expect_near([total], [2 * twice], torch.bfloat16)


def test_a_bias_is_added_before_the_result_is_rounded() -> None:
    ((linear, *_), _), x = in_sums(plain(True, torch.bfloat16)), torch.randn(33, 128).bfloat16()
    exact = x.double() @ linear.weight.double().T + linear.bias.double()
    found = linear(x).detach().double()
    assert ((found - exact).abs() <= 2**-8 * exact.abs() + 1e-5).all()
