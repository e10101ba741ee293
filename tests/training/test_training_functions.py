"""Norm, rotation, gate and cross-entropy of training in C++ beside plain forms in float64, on every instruction set."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from each_isa import printed_on
from plain_layers import geglu_plain, rotate_plain, swiglu_plain
from small_llama import counting_rows, small_model
from torch import Tensor

from riyaz import native
from riyaz.events import quiet
from riyaz.layers import functions
from riyaz.layers.fast import native_functions
from riyaz.layers.fast.native_functions import softmax_loss
from riyaz.layers.swaps import lora
from riyaz.layers.transformer import rotary
from riyaz.train import TrainPlan, train

EXACT = 2e-6  # of the tensor's largest element: what float32 arithmetic may lose
ROUNDED = 2**-8  # of each element of bfloat16 results: one rounding, at the end
LOSSES = 1e-5  # nats, over ten steps
EPS = 1e-5
NATIVE = ("RMSNormBackward", "RotateBackward", "GateBackward")  # nodes of autograd
ISAS = native.isas() if native.available() else ()
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 16), (33, 17), (65, 576), (70, 1031)], ids=str)


def noise(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_rounded(found: Tensor, wanted: Tensor) -> None:
    """`wanted`, in float64, but for float32 arithmetic and one rounding to the type of `found`."""
    assert found.shape == wanted.shape
    allowed = EXACT * wanted.abs().max().clamp(min=0.1)
    if found.dtype == torch.bfloat16:
        allowed = allowed + ROUNDED * wanted.abs()
    error = (found.double() - wanted).abs() - allowed
    assert (error <= 0).all(), f"off by {error.max().item():g} more than allowed"


def assert_twins(fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Value and the gradient of every input agree with the plain form in float64 on the same numbers."""
    ours = [x.clone().requires_grad_() for x in inputs]
    theirs = [x.double().requires_grad_() for x in inputs]
    found, wanted = fast(*ours), plain(*theirs)
    assert found.dtype == inputs[0].dtype and type(found.grad_fn).__name__ in NATIVE
    grad = noise(99, *found.shape, dtype=found.dtype)
    found.backward(grad)
    wanted.backward(grad.double())
    assert_rounded(found, wanted)
    for x, y in zip(ours, theirs):
        assert x.grad is not None and y.grad is not None and x.grad.dtype == x.dtype
        assert_rounded(x.grad, y.grad)


def norm_plain(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return functions.rms_norm(x, weight, EPS)


@DTYPES
@SHAPES
def test_norm(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight = noise(1, *shape, dtype=dtype), 1 + noise(2, shape[1], dtype=dtype)
    assert_twins(norm, norm_plain, x, weight)
    assert_twins(norm, norm_plain, 1e-3 * x, weight)  # eps counts
    assert_twins(norm, norm_plain, x, weight.float())  # as Gemma 3 gives it


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 3, 6), (17, 2, 34), (65, 9, 64), (40, 1, 256)], ids=str)
def test_rotation(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    T, _, D = shape
    cos, sin = rotary(torch.arange(T) * 37, D, 1e4, dtype)
    wide = cos.double(), sin.double()

    def plain(x: Tensor) -> Tensor:
        return x * wide[0] + x.roll(D // 2, -1) * wide[1]

    other = noise(2, T, 1, D, dtype=dtype)
    for rotate in (
        lambda x: functions.rotate(x, other, cos, sin)[0],
        lambda x: functions.rotate(other, x, cos, sin)[1],
    ):
        assert_twins(rotate, plain, noise(1, *shape, dtype=dtype))
    angle = torch.arange(T)[:, None] * 1e4 ** -(torch.arange(D // 2) / (D // 2))
    for turned in functions.rotate(noise(1, *shape), noise(1, *shape), *functions.cos_sin(angle, torch.float32)):
        assert_rounded(turned, rotate_plain(noise(1, *shape), angle).double())


@DTYPES
@SHAPES
@pytest.mark.parametrize("which", ["swiglu", "geglu"])
def test_gate(which: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    plain = {"swiglu": swiglu_plain, "geglu": geglu_plain}[which]
    gate, up = 3 * noise(1, *shape, dtype=dtype), noise(2, *shape, dtype=dtype)
    gate.view(-1)[:4] = torch.tensor([0.0, 30.0, -30.0, -200.0])[
        : gate.numel()
    ]  # where exponentials under- or overflow
    assert_twins(getattr(functions, which), plain, gate, up)


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (7, 37), (3, 4111), (40, 1024)], ids=str)
def test_loss(shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits, labels = (5 * noise(1, *shape)).to(dtype), torch.arange(shape[0]) * 7 % shape[1]
    wide = logits.double().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(wide, labels, reduction="sum")
    wanted.backward()
    kept = logits.clone()
    assert softmax_loss(kept, labels, gradient=False) == pytest.approx(wanted.item(), rel=EXACT, abs=EXACT)
    assert torch.equal(kept, logits)
    assert softmax_loss(kept, labels, gradient=True) == pytest.approx(wanted.item(), rel=EXACT, abs=EXACT)
    assert wide.grad is not None
    assert_rounded(kept, wide.grad)


@DTYPES
def test_repeated_runs_are_equal_bit_for_bit_whatever_the_threads(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, up, grad = (noise(seed, 99, 1030, dtype=dtype) for seed in (1, 2, 3))  # more than one thread computes alone
    weight, labels = noise(4, 1030, dtype=dtype), torch.arange(99)
    cos, sin = rotary(torch.arange(99), 206, 1e4, dtype)

    def results() -> list[Tensor]:
        one, two, three = (part.clone().requires_grad_() for part in (x, up, weight))
        parts = [norm(one, three), functions.swiglu(one, two), functions.geglu(two, one)]
        turned = functions.rotate(one.view(99, 5, 206), two.view(99, 5, 206), cos, sin)
        parts += [part.view(99, 1030) for part in turned]
        torch.autograd.backward(parts, [grad] * len(parts))
        logits = x.clone()
        nats = softmax_loss(logits, labels, gradient=True)
        return [*parts, *(part.grad for part in (one, two, three)), logits, torch.tensor(nats, dtype=torch.float64)]

    runs = []
    for count in (1, 2, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)  # which the kernels take as theirs
        runs.append(results())
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_what_is_not_finite_stays_visible_and_spoils_its_own_row_only(bad: float, dtype: torch.dtype) -> None:
    x, up, weight = noise(1, 3, 21, dtype=dtype), noise(2, 3, 21, dtype=dtype), noise(3, 21, dtype=dtype)
    x[1, 20] = bad
    for call in (norm, lambda x, _: functions.swiglu(up, x), lambda x, _: functions.geglu(up, x)):
        one = x.clone().requires_grad_()
        out = call(one, weight)
        assert not out[1].isfinite().all() and out[::2].isfinite().all()
    for call in (functions.swiglu, functions.geglu):
        out = call(x, up)
        assert (out[1, 20].isfinite() and bad < 0) or not out[1].isfinite().all()  # silu(-inf) may be 0
        assert out[::2].isfinite().all()
    one = x.clone().requires_grad_()
    norm(one, weight).sum().backward()
    assert one.grad is not None and one.grad[1].isnan().any() and one.grad[::2].isfinite().all()
    cos, sin = rotary(torch.arange(3), 20, 1e4, dtype)
    for turned in functions.rotate(x[:, None, 1:], x[:, None, 1:], cos, sin):  # strides of another tensor
        assert not turned[1].isfinite().all() and turned[::2].isfinite().all()
    logits = x.clone()
    nats = softmax_loss(logits, torch.zeros(3, dtype=torch.int64), gradient=True)
    assert logits[::2].isfinite().all()
    assert bad == -float("inf") or (nats != nats and logits[1].isnan().any())  # -inf is a probability of 0


def test_the_gradient_of_a_weight_is_none_where_it_is_frozen() -> None:
    x, weight = noise(1, 5, 8).requires_grad_(), torch.ones(8)
    norm(x, weight).sum().backward()
    assert x.grad is not None and weight.grad is None


def test_wrong_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="label outside"):
        softmax_loss(noise(1, 2, 5), torch.tensor([0, 5]), gradient=True)
    with pytest.raises(ValueError, match="sizes differ"):
        softmax_loss(noise(1, 2, 5), torch.tensor([0]), gradient=True)
    with pytest.raises(ValueError, match="sizes differ"):
        native.extension().gate(noise(1, 2, 4), noise(1, 2, 5), "silu", noise(1, 2, 4), 1)
    with pytest.raises(ValueError, match="rows lie differently"):
        native.extension().gate(noise(1, 2, 4), noise(1, 2, 5)[:, :4], "silu", noise(1, 2, 4), 1)
    with pytest.raises(ValueError, match="sizes differ"):
        native.extension().norm(noise(1, 2, 4), noise(1, 3), EPS, noise(1, 2), noise(1, 2, 4), 1)


def test_other_types_go_through_torch() -> None:
    x = noise(1, 3, 8, dtype=torch.float64).requires_grad_()
    assert not native_functions.runs(x)
    assert torch.autograd.gradcheck(lambda x: functions.swiglu(x, x + 1), x)


def test_the_engine_in_torch_computes_in_torch_alone() -> None:
    """It computes in inference mode, and is what the engine in C++ is compared with."""
    x = torch.ones(3, 16)
    assert native_functions.runs(x) == native.trains()
    with torch.no_grad():  # of validation
        assert native_functions.runs(x) == native.trains()
    with torch.inference_mode():
        assert not native_functions.runs(x)


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    yield lambda: monkeypatch.setattr(native, "trains", lambda: False)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_ten_steps_have_the_losses_of_torch(method: str, tmp_path: Path, by_torch: Callable[[], None]) -> None:
    losses = []
    for side in ("native", "torch"):
        if side == "torch":
            by_torch()
        model = small_model(torch.float32).requires_grad_(method == "full")
        if method == "lora":
            lora.apply(model, r=4, alpha=8, seed=0)
        plan = TrainPlan(steps=10, learning_rate=1e-2, validate_every=10, compute="float32", seed=1)
        state = train(model, counting_rows(), counting_rows(), plan, tmp_path / side, quiet)
        losses.append([entry["loss"] for entry in state.history])
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert losses[0] != losses[1]  # two ways indeed
    assert losses[0] == pytest.approx(losses[1], abs=LOSSES)


def test_riyaz_native_0_trains_by_torch() -> None:
    code = "from riyaz import native; print(native.trains(), native.available(), native.trainer())"
    for value, wanted in (("0", "False True torch"), ("1", f"True True C++ {native.VERSION} ({native.isa()})")):
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"RIYAZ_NATIVE": value},
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout.strip() == wanted


@pytest.mark.slow
def test_every_instruction_set() -> None:
    names = "(norm or rotation or gate or loss or repeated or finite) and not set"
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", __file__, "-k", names]
    code = (
        f"import pytest; from riyaz import native; status = pytest.main({options!r})\n"
        "if status: raise SystemExit(status)\n"
        "print('on', native.isa())"
    )
    others = [isa for isa in ISAS if isa != native.isa()]
    found = printed_on(others, code, "import hypothesis, tiny_comparison, riyaz.retrieval.documents")
    assert [lines.splitlines()[-1] for lines in found.values()] == [f"on {isa}" for isa in others]
