"""Ternary linears: codes and scales by their definition, exact sums, gradients past the rounding, adapters."""

import numpy as np
import pytest
import torch
from refusals import assert_refused
from small_llama import small_model
from torch import Tensor

from riyaz import native
from riyaz.layers.attention import packed
from riyaz.layers.swaps import lora, ternary
from riyaz.layers.swaps.ternary import FrozenTernaryLinear, TernaryLinear, activation_codes, ternary_product
from riyaz.sources import ternary as numpy_twin


def weight(rows: int = 24, cols: int = 80, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_codes_are_the_weights_over_their_mean_rounded() -> None:
    w = torch.tensor([[0.9, -0.2, 0.6, 0.3], [-3.0, 0.0, 1.0, -2.0]])
    codes, scales = ternary.ternary_codes(w)
    assert scales.tolist() == [[1.0]] and codes.tolist() == [[1, 0, 1, 0], [-1, 0, 1, -1]]
    codes, scales = ternary.ternary_codes(w, 2)
    assert torch.allclose(scales, torch.tensor([[0.55, 0.45], [1.5, 1.5]]))
    assert codes.tolist() == [[1, 0, 1, 1], [-1, 0, 1, -1]]
    assert ternary.ternary_codes(torch.zeros(2, 4))[0].eq(0).all()


@pytest.mark.parametrize("group", [None, 16, 32, 48])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numpy_and_torch_find_the_same_codes_and_scales(
    group: int | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy_twin, "PIECE", 400)  # five rows at once
    w = weight(dtype=dtype)
    codes, scales = ternary.ternary_codes(w, group)
    found = numpy_twin.ternary_codes(w.float().numpy(), group)
    assert np.array_equal(found.codes, codes.numpy()) and np.array_equal(found.scales, scales.numpy())
    assert scales.shape == ((1, 1) if group is None else (24, -(-80 // group)))
    assert np.array_equal(numpy_twin.unpack(numpy_twin.pack(found.codes), "w"), found.codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (64, 1024)])
def test_codes_by_the_extension_are_torchs(
    shape: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = weight(*shape, dtype=dtype)
    halves = torch.tensor([[0.5, -0.5, 1.5, -1.5, 1.0, 1.0, 1.0, 1.0]], dtype=dtype)  # their mean size is 1
    for case in (w, halves, torch.zeros_like(w), 1e30 * w):
        codes, scales = ternary.ternary_codes(case)
        with monkeypatch.context() as patch:
            patch.setattr(native, "trains", lambda: False)
            plain_codes, plain_scales = ternary.ternary_codes(case)
        assert torch.equal(codes, plain_codes) and torch.equal(scales, plain_scales)
    w[0, 0] = torch.nan
    assert ternary.ternary_codes(w)[1].isnan().all()


def test_inputs_have_the_code_127_where_they_are_largest() -> None:
    codes, scales = activation_codes(torch.tensor([[0.5, -1.0, 0.0], [0.0, 0.0, 0.0], [2.54, 0.05, 0.07]]))
    assert codes.tolist() == [[64, -127, 0], [0, 0, 0], [127, 2, 4]]
    assert torch.allclose(scales, torch.tensor([[1 / 127], [1e-5 / 127], [0.02]]))


@pytest.mark.parametrize("group", [None, 16, 48])
def test_the_product_is_exact(group: int | None) -> None:
    """Integers in float64, scaled at the end in float32: no sum is rounded."""
    q = torch.randint(-127, 128, (5, 80), dtype=torch.int8, generator=torch.Generator().manual_seed(1))
    codes, scales = ternary.ternary_codes(weight(), group)
    wanted = torch.zeros(5, 24)
    for g, begin in enumerate(range(0, 80, group or 80)):
        part = slice(begin, begin + (group or 80))
        wanted += (q[:, part].double() @ codes[:, part].double().T).float() * scales[:, g]
    assert torch.equal(ternary_product(q, codes, scales, group), wanted)


def plain(x: Tensor, w: Tensor, group: int | None) -> Tensor:
    """The same linear in floats, by the formula of the paper, with its straight-through gradients."""
    codes, scales = ternary.ternary_codes(w.detach(), group)
    columns = scales if group is None else scales.repeat_interleave(group, 1)[:, : w.shape[1]]
    rounded = codes * columns
    q, step = activation_codes(x.detach())
    return (x + (q * step - x).detach()) @ (w + (rounded - w).detach()).T


@pytest.mark.parametrize("group", [None, 32])
def test_gradients_pass_the_rounding(group: int | None) -> None:
    linear = torch.nn.Linear(80, 24)
    x, grad = torch.randn(6, 80), torch.randn(6, 24)
    ours, theirs = (x.clone().requires_grad_(True) for _ in range(2))
    mine = TernaryLinear(linear, group)
    y = mine(ours)
    y.backward(grad)
    w = linear.weight.detach().clone().requires_grad_(True)
    wanted = plain(theirs, w, group) + linear.bias.detach()
    wanted.backward(grad)
    assert torch.allclose(y, wanted, atol=1e-5) and torch.allclose(ours.grad, theirs.grad, atol=1e-5)
    assert torch.allclose(mine.weight.grad, w.grad, atol=1e-5) and torch.allclose(mine.bias.grad, grad.sum(0))


def test_a_share_of_the_rounding_leads_from_the_plain_linear_to_the_ternary_one() -> None:
    linear, x = torch.nn.Linear(80, 24), torch.randn(6, 80)
    made = TernaryLinear(linear).train()
    made.share = 0.0
    assert torch.equal(made(x), linear(x))
    made.share = 0.5
    q, step = activation_codes(x)
    half_x, half_w = (x + q * step) / 2, (linear.weight + made.frozen().weight) / 2
    assert torch.allclose(made(x), torch.nn.functional.linear(half_x, half_w, linear.bias), atol=1e-5)
    made.eval()
    assert torch.equal(made(x), made.frozen()(x))
    ternary.set_share(made, 1.0)
    assert made.share == 1.0 and torch.equal(made.train()(x), made.frozen()(x))


def test_any_model_is_made_ternary_but_for_its_head() -> None:
    model = small_model()
    ternary.apply(model, group=16)
    kinds = {name: type(module) for name, module in model.named_modules() if name.endswith(("_proj", "lm_head"))}
    assert kinds.pop("lm_head") is torch.nn.Linear and set(kinds.values()) == {TernaryLinear}
    ternary.freeze(model)
    assert {type(model.get_submodule(name)) for name in kinds} == {FrozenTernaryLinear}
    scales = model.model.layers[0].mlp.up_proj.scales
    model.to(torch.bfloat16)
    assert model.model.layers[0].mlp.up_proj.scales is scales  # half of the bits would be lost


def logits(model: object) -> Tensor:
    tokens = torch.tensor([5, 7, 20, 13])
    result: Tensor = model.head(model(tokens, torch.arange(4), packed([4])))  # type: ignore[attr-defined]
    return result


def test_a_lora_lies_beside_a_frozen_ternary_base_and_is_never_merged() -> None:
    model = small_model()
    ternary.apply(model)
    ternary.freeze(model)
    before = logits(model)
    lora.apply(model, r=2, alpha=4, seed=0)
    assert len(list(lora.lora_layers(model))) == 14 and torch.equal(logits(model), before)
    logits(model).sum().backward()
    layer = model.model.layers[0].self_attn.q_proj
    assert layer.lora_B.grad is not None and layer.lora_B.grad.abs().sum() > 0
    with assert_refused("cannot be merged into a ternary model", "-1, 0 and 1 cannot hold the sum", "keep it as an"):
        lora.merge(model)
