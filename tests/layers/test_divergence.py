"""The divergence from another model's likeliest tokens beside autograd over all logits, and rows that ask for it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from riyaz.data.packing import pack
from riyaz.data.rows import Row, Wanted
from riyaz.layers import divergence
from riyaz.layers.divergence import LEAST, top_divergence
from riyaz.train import micro_batches

N, C, V, K = 37, 16, 101, 5


def plain(hidden: Tensor, weight: Tensor, tokens: Tensor, log_p: Tensor, weights: Tensor, cap: float | None) -> Tensor:
    """The same over whole matrices, with autograd's gradient."""
    logits = hidden @ weight.T
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    q = torch.softmax(logits, -1)
    own, p = q.gather(1, tokens), log_p.exp()
    rest_q, rest_p = 1 - own.sum(1), (1 - p.sum(1)).clamp_min(LEAST)
    each = (p * (log_p - own.log())).sum(1) + rest_p * (rest_p.log() - rest_q.log())
    return (weights * each).sum()


def drawn(seed: int) -> tuple[Tensor, ...]:
    torch.manual_seed(seed)
    hidden, weight = torch.randn(N, C), torch.randn(V, C) / 4
    log_p, tokens = torch.log_softmax(torch.randn(N, V) * 2, -1).topk(K)
    return hidden, weight, tokens, log_p, torch.rand(N) + 0.1


@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("numbers", [7 * V, 10**6])
def test_value_and_gradients_are_those_of_autograd(
    monkeypatch: pytest.MonkeyPatch, cap: float | None, numbers: int
) -> None:
    monkeypatch.setattr(divergence, "NUMBERS", numbers)  # chunks of 7 rows, and one chunk
    hidden, weight, *rest = drawn(3)
    head = nn.Linear(C, V, bias=False)
    head.weight = nn.Parameter(weight.clone())
    ours = hidden.clone().requires_grad_()
    loss = top_divergence(ours, head, *rest, cap)
    (2 * loss).backward()
    theirs, their_weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    expected = plain(theirs, their_weight, *rest, cap)
    (2 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    assert torch.allclose(head.weight.grad, their_weight.grad, rtol=1e-4, atol=1e-6)


def test_a_model_that_predicts_the_same_has_no_loss_and_no_gradient() -> None:
    hidden, weight, *_ = drawn(4)
    head = SimpleNamespace(weight=weight)
    log_p, tokens = torch.log_softmax(hidden @ weight.T, -1).topk(K)
    ours = hidden.clone().requires_grad_()
    loss = top_divergence(ours, head, tokens, log_p, torch.ones(N))  # type: ignore[arg-type]
    loss.backward()
    assert abs(loss.item()) < 1e-4 and ours.grad.abs().max() < 1e-6


def row(length: int, weight: float | None = None) -> Row:
    tokens = tuple(range(2, 2 + length))
    if weight is None:
        return Row(tokens[:3], tokens[3:])
    wanted = Wanted(np.full((length - 1, K), length), np.full((length - 1, K), -2.0, np.float32), weight)
    return Row(tokens[:1], tokens[1:], wanted=wanted, general=True)


def test_general_text_has_batches_of_its_own() -> None:
    rows = [row(6), row(9, 0.5), row(7), row(5, 0.25)]
    task, general = micro_batches(rows, 1024)
    assert task.wanted is None and task.labels.tolist() == pack([rows[0], rows[2]]).labels.tolist()
    assert general.wanted is not None and general.weights is not None
    assert general.wanted.tokens[:, 0].tolist() == [9] * 8 + [5] * 4 and len(general.labels) == 12
    assert general.weights.tolist() == [0.5] * 8 + [0.25] * 4
    assert [part.wanted is None for part in micro_batches([row(6), row(7)], 1024)] == [True]
