"""What a teacher predicts as targets, of tokens and of labels: the loss and its gradients are autograd's over whole
logits, beside general text and in every micro-batch; a run that was stopped ends with the same bits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_llama import SIZES, random_rows, small_model
from torch import Tensor

from riyaz.data.packing import pack
from riyaz.data.rows import Row, Wanted
from riyaz.events import quiet
from riyaz.layers.attention import packed
from riyaz.layers.divergence import LEAST
from riyaz.layers.fast.masters import Masters
from riyaz.layers.swaps import label_head, lora
from riyaz.train import TrainPlan, answer_nats, micro_batches, run_name, train

VALUE, GRADIENT = 1e-5, 1e-4  # relative tolerances, float32
V, LABELS, LIKELIEST = SIZES["vocab"], [(5,), (6, 7), (8,), (9, 10, 11)], 6


def adapted(labels: bool = False, seed: int = 3) -> Any:
    """A small model whose LoRA is not zero, with a head of LABELS if the answers are labels."""
    model = small_model()
    lora.apply(model, r=4, alpha=8, seed=seed)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name.endswith("lora_B"):
            parameter.data.normal_(0, 0.05)
    return label_head.attach(model, LABELS, 0.5) if labels else model


def drawn(seed: int, places: int, choices: int, kept: int) -> Wanted:
    """The likeliest `kept` of so many choices at each place."""
    generator = torch.Generator().manual_seed(seed)
    log_p = (torch.randn(places, choices, generator=generator) * 2).log_softmax(-1)
    top = log_p.topk(kept)
    return Wanted(top.indices.numpy(), top.values.numpy())


def of_tokens(seed: int, count: int) -> list[Row]:
    """Rows with a common beginning and soft targets at every token of their answers."""
    return [replace(row, prompt=(*range(1, 12), *row.prompt), wanted=drawn(seed + i, len(row.answer), V, LIKELIEST))
            for i, row in enumerate(random_rows(seed, count))]  # fmt: skip


def of_labels(seed: int, count: int) -> list[Row]:
    """Rows whose answer is one of LABELS, with the probabilities of all, numbered behind the vocabulary."""
    rows = []
    for place, row in enumerate(random_rows(seed, count)):
        soft = drawn(seed + place, 1, len(LABELS), len(LABELS))
        rows.append(Row(row.prompt, (V + place % len(LABELS),), wanted=replace(soft, tokens=soft.tokens + V)))
    return rows


def general(seed: int, count: int) -> list[Row]:
    """Texts that are rehearsed, whose tokens weigh a quarter each."""
    return [Row(row.prompt[:1], row.answer, general=True,
                wanted=replace(drawn(seed + i, len(row.answer), V, LIKELIEST), weight=0.25))
            for i, row in enumerate(random_rows(seed, count))]  # fmt: skip


ROWS: dict[str, Any] = {"tokens": of_tokens, "labels": of_labels}


def log_q(model: Any, row: Row) -> Tensor:
    """The log-probabilities at the places of a row that is read alone: (n, V), or (1, L) of a label."""
    tokens = torch.tensor([*row.prompt, *row.answer[:-1]])
    hidden = model(tokens, torch.arange(len(tokens)), packed([len(tokens)]))[len(row.prompt) - 1 :]
    if row.answer[0] >= V:
        return (hidden @ (model.label_head.weight * model.pace).T).log_softmax(-1)
    return (hidden @ model.lm_head.weight.T).log_softmax(-1)


def plain(model: Any, row: Row) -> Tensor:
    """Σ weight · KL(p ‖ q) by torch's own function over all choices, of which those that p does not name are one."""
    assert row.wanted is not None
    log_p, q = torch.from_numpy(row.wanted.log_p), log_q(model, row)
    tokens = torch.from_numpy(row.wanted.tokens) - (V if row.answer[0] >= V else 0)
    own = q.gather(1, tokens)
    if tokens.shape[1] < q.shape[1]:
        rest_p, rest_q = ((1 - each.exp().sum(1, keepdim=True)).clamp_min(LEAST).log() for each in (log_p, own))
        log_p, own = torch.cat((log_p, rest_p), 1), torch.cat((own, rest_q), 1)
    kl = torch.nn.functional.kl_div(own, log_p, reduction="sum", log_target=True)
    return row.wanted.weight * kl


def trainable(model: Any) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def losses(model: Any, rows: Sequence[Row], budget: int) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of each micro-batch, and the sums of the gradients, as a step of training makes them."""
    masters, nats = Masters(model, torch.float32), list[float]()
    for micro in micro_batches(rows, budget):
        loss = answer_nats(model, micro, masters.sums)
        loss.backward()
        nats.append(loss.item())
    sums = {name: masters.sums.of(p) for name, p in trainable(model).items()}
    assert all(gradient is not None for gradient in sums.values())
    return nats, sums  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("beside", [0, 3])
def test_loss_and_gradients_are_those_of_plain_divergences(kind: str, beside: int) -> None:
    rows = [*ROWS[kind](5, 7), *general(40, beside)]
    rows = [*rows[::2], *rows[1::2]]  # general text stands between the task's rows
    model = adapted(kind == "labels")
    expected = torch.stack([plain(model, row) for row in rows]).sum()
    expected.backward()
    wanted = {name: p.grad.clone() for name, p in trainable(model).items()}
    assert all(gradient.abs().max() > 1e-4 for name, gradient in wanted.items() if "lora_A" not in name)
    for budget in (1, 60, 10**6):
        nats, sums = losses(adapted(kind == "labels"), rows, budget)
        assert len(nats) == {1: len(rows), 10**6: 1 + bool(beside)}.get(budget, len(nats))
        assert sum(nats) == pytest.approx(expected.item(), rel=VALUE)
        for name, theirs in wanted.items():
            close = torch.allclose(sums[name], theirs, rtol=GRADIENT, atol=GRADIENT * float(theirs.abs().max()))
            assert close, (budget, name)


@pytest.mark.parametrize("kind", ROWS)
def test_a_student_that_predicts_the_same_has_nothing_to_learn(kind: str) -> None:
    model = adapted(kind == "labels")
    rows = []
    for row in ROWS[kind](6, 4):
        own = log_q(model, row).detach().topk(4 if kind == "labels" else V)
        tokens = own.indices.numpy() + (V if kind == "labels" else 0)
        rows.append(replace(row, wanted=Wanted(tokens, own.values.numpy())))
    nats, sums = losses(model, rows, 10**6)
    assert abs(nats[0]) < 1e-4 and max(float(gradient.abs().max()) for gradient in sums.values()) < 1e-4


def test_rows_with_and_without_soft_targets_are_never_one_batch() -> None:
    task = random_rows(8, 5)
    assert [part.wanted is None for part in micro_batches([*task, *general(9, 2)], 10**6)] == [True, False]
    soft, rehearsed = micro_batches([*general(9, 2), *of_labels(8, 5)], 10**6)
    assert soft.wanted is not None and (soft.wanted.tokens >= V).all() and soft.count == 5
    assert rehearsed.wanted is not None and (rehearsed.wanted.tokens < V).all() and rehearsed.count == 2
    with pytest.raises(AssertionError):
        pack([*task, *of_tokens(8, 2)])


def test_soft_rows_weigh_their_tokens_and_general_ones_nothing() -> None:
    rows = of_tokens(7, 4)
    assert [row.weight for row in rows] == [len(row.answer) for row in rows]
    assert [row.weight for row in (*of_labels(7, 2), *general(7, 2))] == [1, 1, 0, 0]
    micro = pack(rows)
    assert micro.weights is not None and micro.weights.tolist() == [1.0] * sum(len(row.answer) for row in rows)


def test_other_soft_targets_are_another_run() -> None:
    model, plan, rows = adapted(), TrainPlan(steps=4, learning_rate=1e-3), of_tokens(11, 3)
    weights = Masters(model, torch.float32).weights()

    def name(changed: Row | None) -> str:
        return run_name(weights, rows if changed is None else [changed, *rows[1:]], (), plan)

    first, soft = rows[0], rows[0].wanted
    assert soft is not None
    moved, others = soft.log_p.copy(), soft.tokens.copy()
    moved[0, 0] -= 1e-3
    others[0, 0] = (set(range(V)) - set(others[0].tolist())).pop()
    copied = replace(first, wanted=Wanted(soft.tokens.copy(), soft.log_p.copy()))
    assert name(None) == name(copied)
    changed = [
        replace(first, wanted=None), replace(first, wanted=replace(soft, log_p=moved)),
        replace(first, wanted=replace(soft, tokens=others)), replace(first, wanted=replace(soft, weight=0.5)),
    ]  # fmt: skip
    assert len({name(None), *map(name, changed)}) == 5


class Stopped(Exception):
    """The run ends here."""


@pytest.mark.parametrize("kind", ROWS)
def test_training_learns_the_targets_and_goes_on_where_it_was_stopped(kind: str, tmp_path: Path) -> None:
    rows = [*ROWS[kind](21, 9), *general(50, 3)]
    valid = [replace(row, wanted=None) for row in rows[:4]]
    plan = TrainPlan(steps=12, learning_rate=2e-2, batch_size=4, validate_every=4, checkpoint_every=5, micro_tokens=70,
                     compute="float32", keep_best=False)  # fmt: skip

    def run(folder: Path, stop: int = 0) -> tuple[Any, dict[str, Tensor]]:
        model = adapted(kind == "labels")

        def adjust(plan: TrainPlan, step: int) -> TrainPlan:
            if stop and step == stop:
                raise Stopped
            return plan

        state = train(model, rows, valid, plan, folder, quiet, adjust=adjust)
        return state, {key: p.detach().clone() for key, p in trainable(model).items()}

    state, weights = run(tmp_path / "whole")
    assert state.history[-1]["loss"] < 0.8 * state.history[0]["loss"]
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", stop=8)
    again, resumed = run(tmp_path / "stopped")
    assert [entry["loss"] for entry in again.history] == [entry["loss"] for entry in state.history]
    assert weights.keys() == resumed.keys() and all(torch.equal(weights[key], resumed[key]) for key in weights)
