"""The step of AdamW in one pass beside torch's, and linears and embeddings that add their gradients in place."""

from pathlib import Path

import pytest
import torch
from small import bits, counting_rows, small_model
from torch import Tensor, nn

from riyaz import native
from riyaz.data.packing import pack, padded
from riyaz.events import quiet
from riyaz.layers import adamw, in_place
from riyaz.layers.attention import packed
from riyaz.train import Masters, TrainPlan, answer_nats, train

EXACT = 4e-6  # of weights up to 4, float32, over STEPS steps
STEPS, RATE, DECAY = 12, 1e-2, 0.1
GRADIENT = 1e-6  # of the largest element, float32
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def noise(seed: int, *shape: int) -> Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, fast: bool) -> tuple[Masters, torch.optim.AdamW]:
    """Weights of odd sizes after STEPS steps with seeded gradients, some of them clipped."""
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(129, 257), nn.LayerNorm(33))
    for seed, weight in enumerate(model.parameters()):
        weight.data = noise(seed, *weight.shape)
    masters = Masters(model, dtype)
    optimizer = torch.optim.AdamW(masters.groups(DECAY), lr=RATE, fused=True)
    monkeypatch.setattr(native, "trains", lambda: fast)
    for step in range(STEPS):
        for seed, master in enumerate(masters.parameters):
            assert master.grad is not None
            master.grad.add_(noise(100 * step + seed, *master.shape))
        adamw.step(optimizer, masters.pairs.values(), 0.5 if step % 2 else 1.0)
        assert not any(master.grad.any() for master in masters.parameters if master.grad is not None)
    return masters, optimizer


@DTYPES
def test_a_step_is_that_of_torch(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.trains()
    (ours, mine), (theirs, other) = (trained(dtype, monkeypatch, fast) for fast in (True, False))
    for a, b in zip(ours.parameters, theirs.parameters, strict=True):
        assert (a - b).abs().max() <= EXACT
        assert mine.state[a]["step"] == other.state[b]["step"] == STEPS
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(mine.state[a][key], other.state[b][key], rtol=1e-5, atol=1e-7), key
    for working, master in ours.pairs.values():
        assert working.dtype == dtype and torch.equal(working, master.to(dtype))


def test_a_step_refuses_tensors_of_other_sizes() -> None:
    four, five = torch.zeros(4), torch.zeros(5)
    rest = (1.0, 0.9, 0.999, 1.0, 1e-3, 1.0, 1e-8, 1)
    for parts in ((four, five, four, four, None), (four, four, four, five, None), (four, four, four, four, five)):
        with pytest.raises(ValueError, match=r"sizes differ|same size"):
            native.extension().adam(*parts, *rest)


def gradients(model: nn.Module, rows) -> list[Tensor]:
    """What autograd gives each weight."""
    nats = answer_nats(model, rows)
    return list(torch.autograd.grad(nats, list(model.parameters())))


@DTYPES
def test_gradients_in_place_are_autograds(dtype: torch.dtype) -> None:
    rows = pack(counting_rows()[:5])
    model = small_model(dtype).requires_grad_(True)
    wanted = gradients(model, rows)
    masters = Masters(model, dtype)
    taken = {type(module) for module in masters.taken}
    assert taken == {nn.Linear, nn.Embedding}
    for _ in range(2):
        answer_nats(model, rows).backward()
    for master, grad in zip(masters.parameters, wanted, strict=True):
        assert master.grad is not None
        allowed = GRADIENT if dtype == torch.float32 else 2**-7  # an embedding's are added up in bf16 by autograd
        assert (master.grad - 2 * grad.float()).abs().max() <= 2 * allowed * grad.abs().max()
    masters.detach()
    assert all("forward" not in vars(module) and "total" not in vars(module) for module in masters.taken)


def test_a_linear_with_bias_in_place() -> None:
    linear, x, grad = nn.Linear(6, 4), noise(1, 3, 6).requires_grad_(), noise(2, 3, 4)
    x.grad = None
    linear(x).backward(grad)
    wanted, linear.weight.grad, linear.bias.grad = (x.grad, linear.weight.grad, linear.bias.grad), None, None
    x.grad, total = None, torch.zeros(4, 6)
    taken = in_place.take_over(linear, {linear.weight: total})
    linear(x).backward(grad)
    for found, right in zip((x.grad, total, linear.bias.grad), wanted, strict=True):
        assert found is not None and right is not None and torch.allclose(found, right, atol=1e-6)
    assert linear.weight.grad is None
    in_place.give_back(taken)
    linear(x).backward(grad)
    assert linear.weight.grad is not None


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


@pytest.mark.parametrize(("compute", "multiple"), [("bfloat16", 16), ("float32", 1)])
def test_training_in_bf16_takes_few_numbers_of_tokens(
    tmp_path: Path, compute: str, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every other number oneDNN would compile products that it never frees."""
    seen: list[int] = []

    def watched(model, rows):
        seen.append(len(rows.tokens))
        return answer_nats(model, rows)

    model = small_model().requires_grad_(True)
    plan = TrainPlan(steps=3, learning_rate=1e-3, batch_size=3, compute=compute)
    train(model, counting_rows(), counting_rows()[:2], plan, tmp_path, quiet, objective=watched)
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
