"""Weights of 32 bits and the step of AdamW beside torch's; linears and embeddings that add their gradients in place."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_llama import bits, counting_rows, small_model
from torch import Tensor, nn

from riyaz import native
from riyaz.data.packing import pack, padded
from riyaz.data.rows import Row
from riyaz.events import quiet
from riyaz.layers.attention import packed
from riyaz.layers.fast import in_place
from riyaz.layers.fast.gradient_sums import GradientSums
from riyaz.layers.fast.masters import Masters
from riyaz.layers.functions import swiglu
from riyaz.layers.swaps import ternary
from riyaz.layers.transformer import GatedMLP
from riyaz.models.fresh import fresh
from riyaz.pretraining.shapes import Shape, configured
from riyaz.train import TrainPlan, answer_nats, in_every_batch, train

STEPS, RATE, BETAS, DECAY = 12, 1e-2, (0.9, 0.99), 0.1
# of weights up to 4; in bf16 the mean gradient is rounded, and a step is up to RATE long
EXACT = {torch.float32: 4e-6, torch.bfloat16: STEPS * RATE * 2**-8}
MEAN = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.bfloat16: {"rtol": 2**-6, "atol": 2**-7}}
GRADIENT = 1e-6  # of the largest element, float32
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Weights(nn.Module):
    """Tensors of odd sizes, matrices and others."""

    def __init__(self) -> None:
        super().__init__()
        for seed, shape in enumerate([(5, 7), (5,), (257, 129), (33,)]):
            self.register_parameter(f"w{seed}", nn.Parameter(noise(seed, *shape)))


def gradient(step: int, seed: int, shape: torch.Size) -> Tensor:
    return noise(1000 + 100 * step + seed, *shape)


@DTYPES
@pytest.mark.parametrize("fast", [True, False], ids=["C++", "plain"])
def test_a_step_is_that_of_torch(dtype: torch.dtype, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in bf16, whose lower bits are kept: half of each gradient is clipped away in every second step."""
    assert native.trains()
    model, oracle = Weights(), Weights()
    matrices = [weight for weight in oracle.parameters() if weight.ndim > 1]
    rest = [weight for weight in oracle.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    masters = Masters(model, dtype)
    monkeypatch.setattr(native, "trains", lambda: fast)
    for step in range(STEPS):
        factor = 0.5 if step % 2 else 1.0
        for seed, (name, weight) in enumerate(oracle.named_parameters()):
            weight.grad = gradient(step, seed, weight.shape) * factor
            masters.sums.of(model.get_parameter(name)).add_(gradient(step, seed, weight.shape))
        optimizer.step()
        masters.step(step + 1, RATE, BETAS, DECAY, factor)
        assert not any(total.any() for total in sums_of(model, masters))
    moments = masters.moments()
    for name, weight in oracle.named_parameters():
        state = optimizer.state[weight]
        assert torch.allclose(moments[f"{name}.exp_avg"].float(), state["exp_avg"], **MEAN[dtype])
        assert torch.allclose(moments[f"{name}.exp_avg_sq"], state["exp_avg_sq"], rtol=1e-5, atol=1e-6)
        assert masters.working[name].dtype == dtype
    rounded = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    masters.detach()
    for (name, ours), theirs in zip(model.named_parameters(), oracle.parameters(), strict=True):
        assert ours.dtype == torch.float32 and (ours - theirs).abs().max() <= EXACT[dtype]
        assert ((ours - rounded[name].float()).abs() <= 2**-8 * ours.abs()).all()


def test_both_steps_split_weights_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of 0 changes no bit of weights in two parts, whatever they are."""
    bits = torch.cat((torch.arange(-(2**15), 2**15), torch.tensor([2**30 + 2**15, -(2**30) - 2**15])))
    numbers = torch.cat(((bits.to(torch.int32) + 2**30).view(torch.float32), torch.tensor([0.0, -0.0, 1e-40, -3.0])))
    for fast in (True, False):
        model = nn.ParameterList([nn.Parameter(numbers.clone())])
        masters = Masters(model, torch.bfloat16)
        before = {name: tensor.clone() for name, tensor in masters.weights().items()}
        assert set(before) == {"0", "0.low"}
        monkeypatch.setattr(native, "trains", lambda fast=fast: fast)
        masters.step(1, 0.0, BETAS, DECAY, 1.0)
        assert all(torch.equal(before[name], tensor) for name, tensor in masters.weights().items())
        masters.detach()
        assert torch.equal(model[0].view(torch.int32), numbers.view(torch.int32))


def test_a_step_refuses_tensors_that_do_not_belong_together() -> None:
    four, five, half = torch.zeros(4), torch.zeros(5), torch.zeros(4, dtype=torch.bfloat16)
    low, lower = torch.zeros(4, dtype=torch.int16), torch.zeros(5, dtype=torch.int16)
    rest = (1.0, 0.9, 0.999, 1.0, 1e-3, 1.0, 1e-8, 1)
    for parts in (
        (four, five, four, four, None), (four, four, four, five, None), (half, half, four, four, None),
        (four, four, four, four, low), (half, half, four, four, lower), (half, four, four, four, low),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"sizes differ|lower bits"):
            native.extension().adam(*parts, *rest)


def sums_of(model: nn.Module, masters: Masters) -> list[Tensor]:
    """The sum of each weight's gradients."""
    return [masters.sums.of(weight) for weight in model.parameters()]


def gradients(model: nn.Module, rows) -> list[Tensor]:
    """What autograd gives each weight."""
    nats = answer_nats(model, rows)
    return list(torch.autograd.grad(nats, list(model.parameters())))


@DTYPES
@pytest.mark.parametrize("linear", [nn.Linear, ternary.TernaryLinear])
def test_gradients_in_place_are_autograds(linear: type, dtype: torch.dtype) -> None:
    rows = pack(counting_rows()[:5])
    model = small_model(dtype).requires_grad_(True)
    if linear is ternary.TernaryLinear:
        ternary.apply(model)
    wanted = gradients(model, rows)
    kinds = {type(module) for module in model.modules()}
    masters = Masters(model, dtype)
    summing = {type(module) for module in model.modules() if hasattr(module, "gradient_sums")}
    plain = {nn.Linear: in_place.SummingLinear}.get(linear, linear)
    assert summing == {plain, in_place.SummingLinear, in_place.SummingEmbedding}  # the head is a plain one
    for _ in range(2):
        answer_nats(model, rows, masters.sums).backward()
    for total, grad in zip(sums_of(model, masters), wanted, strict=True):
        allowed = GRADIENT if dtype == torch.float32 else 2**-6  # autograd rounds each term of a sum to bf16
        assert (total - 2 * grad.float()).abs().max() <= 2 * allowed * grad.abs().max()
    masters.detach()
    assert {type(module) for module in model.modules()} == kinds
    assert not any(getattr(module, "gradient_sums", None) for module in model.modules())


@DTYPES
def test_nothing_that_trains_is_no_error(dtype: torch.dtype) -> None:
    masters = Masters(nn.Linear(3, 2).requires_grad_(False), dtype)
    masters.step(1, RATE, BETAS, DECAY, 1.0)
    assert masters.norm() == 0 and masters.weights() == {}
    masters.detach()


@DTYPES
def test_gate_and_up_are_one_product(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where masters lay their weights side by side; results and gradients are those of linears apart."""
    mlp, x, grad = GatedMLP(24, 40, swiglu), noise(7, 5, 24).to(dtype), noise(8, 5, 24).to(dtype)
    for seed, weight in enumerate(mlp.parameters()):
        weight.data = noise(seed, *weight.shape) / 5
    parts, mine, counts = [x.clone().requires_grad_() for _ in range(2)], copy.deepcopy(mlp), []
    mlp.to(dtype)(parts[0]).backward(grad)
    masters = Masters(mine, dtype)
    monkeypatch.setattr(in_place, "multiplies", lambda x, weights: False)  # torch computes
    product = in_place._product
    monkeypatch.setattr(in_place, "_product", lambda x, w, b: counts.append(len(w)) or product(x, w, b))
    mine(parts[1]).backward(grad)
    assert counts == [80, 24]
    allowed = 1e-6 if dtype == torch.float32 else 2**-6
    for found, wanted in [
        (parts[1].grad, parts[0].grad),
        *zip(sums_of(mine, masters), [w.grad for w in mlp.parameters()]),
    ]:
        assert found is not None and wanted is not None
        assert (found - wanted.float()).abs().max() <= allowed * wanted.abs().max()


def test_a_linear_with_bias_in_place() -> None:
    linear, x, grad = nn.Linear(6, 4), noise(1, 3, 6).requires_grad_(), noise(2, 3, 4)
    linear(x).backward(grad)
    wanted, linear.weight.grad, linear.bias.grad = (x.grad, linear.weight.grad, linear.bias.grad), None, None
    x.grad, total, model = None, torch.zeros(4, 6), nn.Sequential(linear)
    sums = GradientSums({linear.weight: total})
    plain = in_place.attach(model, sums)
    model(x).backward(grad)
    for found, right in zip((x.grad, total, linear.bias.grad), wanted, strict=True):
        assert found is not None and right is not None and torch.allclose(found, right, atol=1e-6)
    assert linear.weight.grad is None
    in_place.detach(model, plain)
    sums.close()
    model(x).backward(grad)
    assert model[0] is linear and linear.weight.grad is not None


@pytest.mark.parametrize("count", [1, 5])
def test_padding_changes_no_loss_and_no_gradient(count: int) -> None:
    rows = pack(counting_rows()[:count])
    more = padded(rows, 16)
    assert len(more.tokens) % 16 == 0 and len(more.tokens) - len(rows.tokens) < 16
    assert more.lengths[:-1] == rows.lengths and more.shared + sum(more.lengths) == len(more.tokens)
    assert padded(more, 16) is more
    model = small_model().requires_grad_(True)
    assert answer_nats(model, more).item() == pytest.approx(answer_nats(model, rows).item(), abs=1e-5)
    for a, b in zip(gradients(model, more), gradients(model, rows), strict=True):
        assert (a - b).abs().max() <= GRADIENT * b.abs().max()


def test_padding_goes_no_further_than_the_learned_positions(tmp_path: Path) -> None:
    """GPT-2 has no others: three rows fill its context, which they share but for the last tokens."""
    shape = Shape(1, 2, 32)
    model = fresh(configured("gpt2", shape, 64, 32), 0).requires_grad_(True)
    rows = [Row((5,) * 28 + (i,), (7 + i, 2)) for i in range(3)]
    assert padded(pack(rows), 16).positions.max() == pack(rows).positions.max() < 32
    state = train(model, rows, rows, TrainPlan(1, 1e-3), tmp_path, quiet)
    assert state.step == 1


def test_memory_that_training_keeps_is_given_back() -> None:
    """In a process of its own: what glibc keeps inside `kept` it gives back afterwards, then and later."""
    code = """
import numpy as np
from riyaz.layers.fast import memory
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
def use():
    blocks = [np.ones(2**21) for _ in range(30)]  # 16 MB each
    del blocks
    return rss() / 2**20
before = use()
with memory.retained():
    inside = use()
print(before, inside, use())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, inside, after = map(float, done.stdout.split())
    assert inside > before + 400 and after < before + 150


@pytest.mark.parametrize(("compute", "multiple"), [("bfloat16", 16), ("float32", 1)])
def test_training_in_bf16_takes_few_numbers_of_tokens(tmp_path: Path, compute: str, multiple: int) -> None:
    """For every other number oneDNN would compile products that it never frees."""
    seen: list[int] = []

    def watched(model, rows, sums):
        seen.append(len(rows.tokens))
        return answer_nats(model, rows, sums)

    model = small_model().requires_grad_(True)
    plan = TrainPlan(steps=3, learning_rate=1e-3, batch_size=3, compute=compute)
    train(model, counting_rows(), counting_rows()[:2], plan, tmp_path, quiet, objective=in_every_batch(watched))
    assert len(seen) == 3 and all(count % multiple == 0 for count in seen)
    if multiple == 1:
        assert any(count % 16 for count in seen)


def test_what_trains_is_given_back(tmp_path: Path) -> None:
    model = small_model().requires_grad_(True)
    plan = TrainPlan(steps=1, learning_rate=1e-3)
    train(model, counting_rows(), counting_rows()[:2], plan, tmp_path, quiet)
    before = bits(model.state_dict())
    tokens = torch.tensor([1, 2, 3])
    hidden = model(tokens, torch.arange(3), packed([3]))
    hidden.sum().backward()
    assert bits(model.state_dict()) == before
    assert all(weight.grad is not None for weight in model.parameters())
