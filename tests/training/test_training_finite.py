"""What is no number is never trained on: it ends the run, and no kernel turns it into a number."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plain_layers import geglu_plain, rms_norm_plain, swiglu_plain
from refusals import assert_refused
from test_training_attention import tensors, visible
from torch import Tensor
from training_families import METHODS, family_model, training_rows

from riyaz.events import quiet
from riyaz.layers import functions
from riyaz.layers.attention import packed
from riyaz.layers.loss import head_loss
from riyaz.train import Diverged, TrainPlan, train

ROWS = training_rows()
PLAN = TrainPlan(steps=1, learning_rate=1e-3, batch_size=24, micro_tokens=512)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
BAD = pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)


def step(model: torch.nn.Module, folder: Path, compute: str = "bfloat16") -> None:
    train(model, ROWS, ROWS[:1], TrainPlan(**{**vars(PLAN), "compute": compute}), folder, quiet)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "gpt2"])
def test_a_nan_in_any_weight_ends_the_run(family: str, tmp_path: Path) -> None:
    names = [name for name, _ in family_model(family, "full").named_parameters()]
    assert len(names) >= 20
    for place, name in enumerate(names):
        model = family_model(family, "full")
        weight = model.get_parameter(name).data
        at = ROWS[0].prompt[0] if "embed_tokens" in name or "wte" in name else 1
        weight.view(len(weight), -1)[at, -1] = torch.nan
        with assert_refused("the loss is nan", "at step 1", "lower learning rate"):
            step(model, tmp_path / str(place))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_a_nan_of_a_frozen_base_or_of_what_is_trained_ends_the_run(method: str, compute: str, tmp_path: Path) -> None:
    for place, part in enumerate(("q_proj", "v_proj", "down_proj", "norm.weight", "lora_B", "prompt")):
        model = family_model("gemma3", method, getattr(torch, compute))
        spoiled = [weight for name, weight in model.named_parameters() if part in name]
        if not spoiled:
            assert part in ("lora_B", "prompt")
            continue
        spoiled[-1].data.view(-1)[7] = torch.nan
        with pytest.raises(Diverged):
            step(model, tmp_path / str(place), compute)


@pytest.mark.parametrize("method", METHODS)
@BAD
def test_a_gradient_that_is_no_number_ends_the_run_though_the_loss_is_one(
    method: str, bad: float, tmp_path: Path
) -> None:
    model = family_model("llama", method)
    last = [weight for weight in model.parameters() if weight.requires_grad][-1]
    before = last.detach().clone()

    def spoil(grad: Tensor) -> Tensor:
        grad = grad.clone()
        grad.view(-1)[-1] = bad
        return grad

    last.register_hook(spoil)
    with assert_refused("its gradient's norm", "at step 1"):
        step(model, tmp_path, "float32")
    assert torch.equal(before, last.detach().float()), "the step was made"


def lost(found: Tensor, wanted: Tensor) -> int:
    """Numbers of `found` that are finite where those wanted are not."""
    assert found.shape == wanted.shape and not wanted.isfinite().all()
    return int((found.isfinite() & ~wanted.isfinite()).sum())


@pytest.mark.grid(2)
@DTYPES
@BAD
@pytest.mark.parametrize("which", range(4), ids=["q", "k", "v", "grad"])
@pytest.mark.parametrize("token", [3, 12, 55, 149], ids=["prefix", "first", "middle", "last"])
def test_attention_is_no_number_wherever_one_is_seen(token: int, which: int, bad: float, dtype: torch.dtype) -> None:
    for shape in (([40, 98], 12, None, (4, 2, 64)), ([40, 98], 12, 30, (8, 1, 40))):
        given, seen = tensors(shape, dtype), visible(*shape[:3])
        given[which][token, -1, 3] = bad
        leaves = [x.clone().requires_grad_() for x in given[:3]]
        found = packed(shape[0]).behind(shape[1])(0, *leaves, shape[2])
        assert "Native" in str(found.grad_fn)
        found.backward(given[3])
        hit = seen[:, token] if which in (1, 2) else torch.arange(len(seen)) == token
        parts = [found[hit, -1], leaves[0].grad[hit, -1]]  # of the queries that see it
        if which == 3:
            parts = [leaves[0].grad[hit, -1], *(x.grad[seen[token], -1] for x in leaves[1:])]
        finite = torch.cat([part.isfinite().all(-1) for part in parts])
        # an infinite score below all others is only a weight of 0
        assert not finite.any() if bad != bad else not finite.all()


@pytest.mark.grid(2)
@DTYPES
@BAD
@pytest.mark.parametrize("name", ["rms_norm", "swiglu", "geglu"])
@pytest.mark.parametrize("which", [0, 1])
def test_functions_are_no_number_wherever_plain_ones_are_none(
    which: int, name: str, bad: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(size, generator=generator).to(dtype) for size in ((5, 37), (5, 37)))
    given = [one, two[0] if name == "rms_norm" else two]
    calls: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
        "rms_norm": (lambda x, w: functions.rms_norm(x, w, 1e-5), lambda x, w: rms_norm_plain(x, w, 1e-5)),
        "swiglu": (functions.swiglu, swiglu_plain), "geglu": (functions.geglu, geglu_plain),
    }  # fmt: skip
    given[which].view(-1)[20] = bad
    ours, theirs = ([x.to(kind, copy=True).requires_grad_() for x in given] for kind in (dtype, torch.float32))
    found, wanted = calls[name][0](*ours), calls[name][1](*theirs)
    assert type(found.grad_fn).__name__ in ("RMSNormBackward", "GateBackward")
    assert lost(found, wanted) == 0
    found.sum().backward()
    wanted.sum().backward()
    for x, y in zip(ours, theirs, strict=True):
        if not y.grad.isfinite().all():
            assert lost(x.grad, y.grad) == 0


@DTYPES
@BAD
@pytest.mark.parametrize("cap", [None, 20.0], ids=["plain", "capped"])
@pytest.mark.parametrize("spoiled", ["hidden", "weight of a label", "weight of no label"])
def test_the_loss_of_the_head_is_no_number_where_torch_has_none(
    spoiled: str, cap: float | None, bad: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, generator=generator).to(dtype) for size in ((9, 12), (37, 12)))
    labels = torch.arange(9) * 2
    (hidden if spoiled == "hidden" else weight)[4 if "no" not in spoiled else 5, 3] = bad
    ours, theirs = (
        [x.to(kind, copy=True).requires_grad_() for x in (hidden, weight)] for kind in (dtype, torch.float32)
    )
    found = head_loss(*ours, labels, cap)
    logits = theirs[0] @ theirs[1].T
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    wanted = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    assert found.isfinite() == wanted.isfinite() and found.isnan() == wanted.isnan()
    found.backward()
    wanted.backward()
    for x, y in zip(ours, theirs, strict=True):
        if not y.grad.isfinite().all():
            assert not x.grad.isfinite().all()
