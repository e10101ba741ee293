"""Attention in training by the C++ kernels, beside plain masked softmax with autograd and beside torch's functions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from each_isa import printed_on
from small_llama import random_rows, small_model
from torch import Tensor

from riyaz import native
from riyaz.events import quiet
from riyaz.layers.attention import packed
from riyaz.layers.swaps import lora
from riyaz.train import TrainPlan, train

# Of the largest element, or of 1: sums in float32 in another order; bfloat16 keeps 8 bits of inputs and of results.
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1e-2}
LOSSES = 1e-5  # nats, over 10 steps in float32, by the kernels and by torch
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
# lengths, prefix, window, (heads, key/value heads, head size)
SHAPES = [
    ([1], 0, None, (1, 1, 32)),
    ([1] * 7, 0, None, (8, 1, 64)),
    ([1] * 7, 3, 2, (8, 8, 64)),
    ([5, 1, 17, 2, 40, 1], 0, None, (9, 3, 64)),
    ([5, 100, 17, 210], 20, None, (9, 3, 64)),
    ([130, 1, 70], 50, 40, (4, 1, 80)),
    ([150, 7], 0, 50, (4, 2, 256)),
    ([400], 3, None, (3, 3, 128)),
    ([1, 2, 3], 200, None, (8, 8, 40)),
    ([97, 96, 95, 1], 96, 97, (16, 2, 32)),
]  # fmt: skip
IDS = [f"{len(shape[0])}-rows-{shape[1]}-{shape[2]}-{shape[3][2]}" for shape in SHAPES]


def visible(lengths: list[int], prefix: int, window: int | None) -> Tensor:
    """(T, T): whether a token, by row, sees another one, by column."""
    row = torch.repeat_interleave(torch.arange(len(lengths) + 1), torch.tensor([prefix, *lengths]))
    place = torch.cat([torch.arange(prefix), *(torch.arange(n) + prefix for n in lengths)])
    distance = place[:, None] - place
    seen = (distance >= 0) & ((row[:, None] == row) | (row == 0))
    return seen if window is None else seen & (distance < window)


def plain(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Softmax of q kᵀ / √D over all keys, masked: q (T,H,D), k and v (T,K,D) -> (T,H,D)."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def tensors(shape: Any, dtype: torch.dtype) -> list[Tensor]:
    """Random q, k, v and the gradient of the result."""
    lengths, prefix, _, (H, K, D) = shape
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((prefix + sum(lengths), h, D), generator=generator).to(dtype) for h in (H, K, K, H)]


def results(shape: Any, given: list[Tensor]) -> list[Tensor]:
    """The result and the gradients of q, k and v, by the function that training calls."""
    lengths, prefix, window, _ = shape
    leaves = [x.clone().requires_grad_() for x in given[:3]]
    out = packed(lengths).behind(prefix)(0, *leaves, window)
    assert out.grad_fn is not None and ("Native" in out.grad_fn.name()) == native.trains()
    out.backward(given[3])
    return [out.detach(), *(x.grad for x in leaves)]


def wanted(shape: Any, given: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The same by autograd of the plain form."""
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in given[:3]]
    out = plain(*leaves, visible(*shape[:3]))
    out.backward(given[3].to(dtype))
    return [out.detach(), *(x.grad for x in leaves)]


def compare(shape: Any, dtype: torch.dtype) -> None:
    """Results beside those of the plain form in float64 and float32."""
    given = tensors(shape, dtype)
    found = results(shape, given)
    for exact in (torch.float64, torch.float32):
        right = wanted(shape, given, exact)
        scale = max(1.0, *(float(x.abs().max()) for x in right[1:]))  # a row of one token has almost no gradient
        for x, y in zip(found, right, strict=True):
            assert x.dtype == dtype and float((x.double() - y.double()).abs().max()) <= TOLERANCE[dtype] * scale


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_results_and_gradients_equal_a_plain_masked_softmax(shape: Any, dtype: torch.dtype) -> None:
    assert native.trains(), native.why_not()
    compare(shape, dtype)


@pytest.mark.slow
@pytest.mark.grid
def test_every_instruction_set_gives_them() -> None:
    code = (
        "import test_training_attention as t; from grids import some\n"
        "for shape in some(t.SHAPES, 4, t.native.isa()):\n    for dtype in t.TOLERANCE: t.compare(shape, dtype)\n"
        "print('equal on', t.native.isa())"
    )
    assert printed_on(native.isas(), code) == {isa: f"equal on {isa}\n" for isa in native.isas()}


@DTYPES
def test_bits_are_the_same_again_and_with_another_number_of_threads(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ([5, 300, 17, 210, 1, 400], 20, None, (9, 3, 64))
    given, found = tensors(shape, dtype), []
    for count in (1, 2, 2, 3, 1):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)  # which the kernels take as theirs
        found.append(results(shape, given))
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


@DTYPES
@pytest.mark.parametrize("which", range(4), ids=["q", "k", "v", "grad"])
def test_what_is_no_number_stays_visible_in_its_row_alone(which: int, dtype: torch.dtype) -> None:
    shape = ([40, 130], 0, None, (4, 2, 64))
    given = tensors(shape, dtype)
    given[which][45, 1, 3] = torch.nan
    found, right = results(shape, given), wanted(shape, given, torch.float32)
    for x, y in zip(found, right, strict=True):
        assert x[40:].isnan().any() == y[40:].isnan().any() and not x[:40].isnan().any()


def test_the_environment_and_other_shapes_take_the_functions_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(D: int, dtype: torch.dtype = torch.float32) -> str:
        q, k, v = (torch.randn(6, heads, D, dtype=dtype).requires_grad_() for heads in (4, 2, 2))
        return str(packed([4, 2])(0, q, k, v).grad_fn)

    assert "_Native" in name(64) and "_Native" in name(64, torch.bfloat16)
    assert "_FlashRows" in name(16) and "_FlashRows" in name(36) and "_FlashRows" in name(264)
    monkeypatch.setenv("RIYAZ_NATIVE", "0")
    assert "_FlashRows" in name(64)


def test_what_does_not_fit_is_refused() -> None:
    q, k, sums = torch.zeros(6, 4, 64), torch.zeros(6, 2, 64), torch.zeros(6, 4)
    call = native.extension().attention
    for rows, message in (([4, 1], "other tokens"), ([6, 0], "without tokens")):
        with pytest.raises(ValueError, match=message):
            call(q, k, k, torch.empty_like(q), sums, rows, 0, 0, 1)
    with pytest.raises(ValueError, match="sizes differ"):
        call(q, k, k[:5], torch.empty_like(q), sums, [6], 0, 0, 1)
    with pytest.raises(ValueError, match="types differ"):
        call(q, k, k.bfloat16(), torch.empty_like(q), sums, [6], 0, 0, 1)
    with pytest.raises(ValueError, match="heads do not divide"):
        call(q, torch.zeros(6, 3, 64), torch.zeros(6, 3, 64), torch.empty_like(q), sums, [6], 0, 0, 1)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_equal_those_of_torch(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = TrainPlan(steps=10, learning_rate=5e-3, validate_every=5, compute="float32", seed=1)
    rows, losses = random_rows(0, 24), {}
    for switch in ("1", "0"):
        monkeypatch.setenv("RIYAZ_NATIVE", switch)
        model = small_model(hidden=128).requires_grad_(method == "full")
        if method == "lora":
            lora.apply(model, r=4, alpha=8, seed=0)
        losses[switch] = [entry["loss"] for entry in train(model, rows, rows, plan, tmp_path / switch, quiet).history]
    assert len(losses["1"]) == 10 and losses["1"] != losses["0"]
    assert all(abs(a - b) <= LOSSES for a, b in zip(losses["1"], losses["0"], strict=True))
