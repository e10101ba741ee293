"""DPO, ORPO and KTO beside the formulas of their papers, with autograd over whole sequences."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_llama import random_rows, small_model
from torch import Tensor
from torch.nn.functional import logsigmoid

from riyaz.data.packing import pack
from riyaz.data.rows import Row, Wanted
from riyaz.events import quiet
from riyaz.layers.attention import packed
from riyaz.layers.fast.masters import Masters
from riyaz.layers.swaps import lora
from riyaz.preferences import balanced, dpo, judge_answers, kto, mismatched, orpo, reference_point
from riyaz.train import TrainPlan, answer_loss, answer_nats, micro_batches, row_nats, run_name, train

VALUE, GRADIENT = 1e-5, 1e-4  # relative tolerances, float32


def pairs(seed: int, count: int) -> list[Row]:
    """Rows with two answers, of different lengths, to prompts with a common beginning."""
    worse = random_rows(seed + 100, count)
    return [Row((*range(1, 12), *row.prompt), row.answer, rejected=other.answer + (3,) * (place % 3))
            for place, (row, other) in enumerate(zip(random_rows(seed, count), worse))]  # fmt: skip


def singles(seed: int, count: int) -> list[Row]:
    """Rows with one answer, of which every third is undesirable."""
    return [replace(row, rejected=(), desirable=place % 3 != 1) for place, row in enumerate(pairs(seed, count))]


def adapted(seed: int = 3) -> Any:
    """A small model whose LoRA is not zero."""
    model = small_model()
    lora.apply(model, r=4, alpha=8, seed=seed)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name.endswith("lora_B"):
            parameter.data.normal_(0, 0.05)
    return model


def log_p(model: Any, row: Row, answer: Sequence[int]) -> Tensor:
    """log p of a whole answer, from one sequence read alone."""
    tokens = torch.tensor([*row.prompt, *answer])
    hidden = model(tokens[:-1], torch.arange(len(tokens) - 1), packed([len(tokens) - 1]))
    logits = (hidden @ model.lm_head.weight.T).log_softmax(-1)
    return logits[len(row.prompt) - 1 :].gather(1, torch.tensor(answer)[:, None]).sum()


def plain_dpo(model: Any, row: Row, normalised: bool) -> Tensor:
    lengths = (len(row.answer), len(row.rejected)) if normalised else (1, 1)
    with torch.no_grad(), lora.enabled(model, False):
        base = [log_p(model, row, answer) / n for answer, n in zip((row.answer, row.rejected), lengths)]
    own = [log_p(model, row, answer) / n for answer, n in zip((row.answer, row.rejected), lengths)]
    return -logsigmoid(0.1 * ((own[0] - base[0]) - (own[1] - base[1])))


def plain_orpo(model: Any, row: Row) -> Tensor:
    better, worse = (log_p(model, row, answer) / len(answer) for answer in (row.answer, row.rejected))
    odds = [(each.exp() / (1 - each.exp())).log() for each in (better, worse)]
    return -better - 0.1 * logsigmoid(odds[0] - odds[1])


def plain_kto(model: Any, rows: Sequence[Row], weights: tuple[float, float]) -> Tensor:
    """The losses (n,) of rows that are one step: pairs, or single answers."""

    def reward(row: Row, answer: Sequence[int]) -> Tensor:
        with torch.no_grad(), lora.enabled(model, False):
            base = log_p(model, row, answer)
        return log_p(model, row, answer) - base

    def answers(row: Row) -> list[tuple[Sequence[int], bool]]:
        return [(row.answer, row.desirable is not False), *([(row.rejected, False)] if row.rejected else [])]

    before = zip(rows, [rows[-1], *rows[:-1]])
    with torch.no_grad():
        others = [reward(row, answer) for row, other in before for answer, _ in answers(other)]
        z = torch.stack(others).mean().clamp_min(0)
    losses = []
    for row in rows:
        each = [weights[not good] * (1 - torch.sigmoid(0.1 * (reward(row, answer) - z) * (1 if good else -1)))
                for answer, good in answers(row)]  # fmt: skip
        losses.append(torch.stack(each).mean())
    return torch.stack(losses)


def by_row(formula: Callable[[Any, Row], Tensor]) -> Callable[[Any, Sequence[Row]], Tensor]:
    return lambda model, rows: torch.stack([formula(model, row) for row in rows])


PLAIN: dict[str, tuple[Any, Callable[[Any, Sequence[Row]], Tensor]]] = {
    "dpo": (dpo(), by_row(lambda model, row: plain_dpo(model, row, False))),
    "dpo by token": (dpo(normalised=True), by_row(lambda model, row: plain_dpo(model, row, True))),
    "orpo": (orpo(), by_row(plain_orpo)),
    "kto": (kto(desirable=1.2, undesirable=1.5), lambda model, rows: plain_kto(model, rows, (1.2, 1.5))),
}


def trainable(model: Any) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", PLAIN)
def test_loss_and_gradients_are_those_of_the_formula(name: str) -> None:
    objective, formula = PLAIN[name]
    rows = pairs(5, 6)
    model = adapted()
    expected = formula(model, rows).sum()
    expected.backward()
    gradients = {key: p.grad.clone() for key, p in trainable(model).items()}
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients.values())
    model = adapted()
    masters, total, loss_of = Masters(model, torch.float32), 0.0, objective(model, rows, 90)
    for micro in micro_batches(rows, 90):
        loss = loss_of(model, micro, masters.sums)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(expected.item(), rel=VALUE)
    for key, weight in masters.weights().items():
        ours, theirs = masters.sums.of(dict(model.named_parameters())[key]), gradients[key]
        assert ours is not None
        assert torch.allclose(ours, theirs, rtol=GRADIENT, atol=GRADIENT * float(theirs.abs().max())), (key, weight)


def test_a_model_that_is_the_base_has_the_loss_of_chance() -> None:
    model = small_model()
    lora.apply(model, r=4, alpha=8, seed=0)
    rows = pairs(6, 4)
    (micro,) = micro_batches(rows, 10**6)
    for objective, chance in ((dpo(), 4 * 0.693147), (kto(), 4 * 0.5)):
        loss = objective(model, rows, 10**6)(model, micro, None)  # type: ignore[arg-type]
        assert loss.item() == pytest.approx(chance, rel=VALUE)


def test_a_pair_is_two_sequences_of_one_batch() -> None:
    rows = pairs(7, 5)
    for budget in (1, 200, 10**6):
        parts = list(micro_batches(rows, budget))
        assert sum(len(part.counts) for part in parts) == 10 and all(len(part.counts) % 2 == 0 for part in parts)
    whole = pack(rows)
    assert whole.counts == tuple(len(answer) for row in rows for answer in (row.answer, row.rejected))
    assert [row.weight for row in rows] == [1] * 5


@pytest.mark.parametrize("name", PLAIN)
def test_general_text_beside_pairs_is_kept_as_the_base_predicts_it(name: str) -> None:
    objective, model = PLAIN[name][0], adapted()
    wanted = Wanted(np.array([[4, 5], [6, 7]]), np.log(np.array([[0.5, 0.3], [0.2, 0.6]], np.float32)), 0.25)
    rows = [*pairs(11, 3), Row((1,), (2, 3), wanted=wanted, general=True)]
    loss_of = objective(model, rows, 10**6)
    losses = [loss_of(model, micro, None).item() for micro in micro_batches(rows, 10**6)]  # type: ignore[arg-type]
    (general,) = micro_batches(rows[-1:], 10**6)
    assert losses[1] == answer_nats(model, general).item() > 0


def test_losses_of_answers_are_those_of_the_better_ones() -> None:
    rows, model = pairs(8, 4), small_model()
    better = [Row(row.prompt, row.answer) for row in rows]
    assert row_nats(model, rows) == row_nats(model, better)
    assert answer_loss(model, rows) == answer_loss(model, better)


@pytest.mark.parametrize(("name", "make"), [*((name, pairs) for name in PLAIN), ("kto", singles)])
def test_training_prefers_the_better_answers_and_goes_on_where_it_was_stopped(
    name: str, make: Callable[[int, int], list[Row]], tmp_path: Path
) -> None:
    objective, rows = PLAIN[name][0], make(9, 12)
    plan = TrainPlan(
        steps=12, learning_rate=2e-2, batch_size=4, validate_every=4, checkpoint_every=6, compute="float32"
    )
    judge = judge_answers(objective)

    def run(folder: Path, stop: int = 0) -> Any:
        model = adapted()

        def adjust(plan: TrainPlan, step: int) -> TrainPlan:
            if stop and step == stop:
                raise KeyboardInterrupt
            return plan

        state = train(model, rows, rows, plan, folder, quiet, objective=objective, judge=judge, adjust=adjust)
        return state, {key: p.detach().clone() for key, p in trainable(model).items()}

    state, weights = run(tmp_path / "whole")
    judged = [entry for entry in state.history if "valid_accuracy" in entry]
    assert judged[-1]["valid_accuracy"] > 0.9 and judged[-1]["valid_loss"] < 0.9 * judged[0]["valid_loss"]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop=8)
    _, again = run(tmp_path / "stopped")
    assert weights.keys() == again.keys() and all(torch.equal(weights[key], again[key]) for key in weights)


def test_rows_with_other_thumbs_are_another_run() -> None:
    rows, plan = singles(13, 4), TrainPlan(steps=1, learning_rate=1e-3)
    other = [replace(rows[0], desirable=not rows[0].desirable), *rows[1:]]
    assert run_name({}, rows, rows, plan) != run_name({}, other, rows, plan)


def likelier(rows: Sequence[Row], folder: Path) -> Any:
    """A small model that finds the rows' better answers likelier than its base does, also after other prompts."""
    model = adapted()
    plan = TrainPlan(steps=6, learning_rate=2e-2, compute="float32", keep_best=False)
    train(model, [Row(row.prompt, row.answer) for row in rows], (), plan, folder, quiet)
    return same_as(model)


def same_as(model: Any) -> Any:
    """A model with the LoRA of another, which no optimiser holds."""
    copied = adapted()
    copied.load_state_dict({key: weight.detach().clone() for key, weight in model.state_dict().items()})
    return copied


@pytest.mark.parametrize("make", [pairs, singles])
def test_the_reference_point_is_that_of_the_whole_step(make: Callable[[int, int], list[Row]], tmp_path: Path) -> None:
    rows, weights = make(12, 7), (1.0, 1.5)
    model = likelier(rows, tmp_path)
    point = reference_point(model, rows, 10**6)
    assert point > 1 and point == pytest.approx(reference_point(model, rows, 40), rel=VALUE), "else the clamp hides it"
    expected, whole = plain_kto(model, rows, weights).sum(), trainable(model)
    expected.backward()
    gradients = {key: p.grad.clone() for key, p in whole.items()}
    for budget in (40, 90, 10**6):
        model = same_as(model)
        masters = Masters(model, torch.float32)
        loss_of, micros = kto(undesirable=1.5)(model, rows, budget), list(micro_batches(rows, budget))
        assert (len(micros) == 1) is (budget == 10**6)
        losses = [loss_of(model, micro, masters.sums) for micro in micros]
        for loss in losses:
            loss.backward()
        assert sum(loss.item() for loss in losses) == pytest.approx(expected.item(), rel=VALUE)
        for key in masters.weights():
            ours, theirs = masters.sums.of(dict(model.named_parameters())[key]), gradients[key]
            assert ours is not None
            assert torch.allclose(ours, theirs, rtol=GRADIENT, atol=GRADIENT * float(theirs.abs().max()))


def test_a_prompt_gets_the_answers_of_the_row_before_it_cut_to_the_context() -> None:
    rows = [Row((1, 2, 3), (4, 5), rejected=(6,)), Row((7,), (8, 9), rejected=(10, 11))]
    others = mismatched([*rows, Row((1,), (2, 3), desirable=True)], 4)
    assert [(row.prompt, row.answer) for row in others] == [
        ((1, 2, 3), (2,)), ((7,), (4, 5)), ((7,), (6,)), ((1,), (8, 9)), ((1,), (10, 11)),
    ]  # fmt: skip
    assert reference_point(adapted(), rows[:1], 100) == 0.0


@pytest.mark.parametrize(("counts", "weights"), [
    ((5, 5), (1, 1)), ((5, 10), (2, 1)), ((8, 6), (1, 1)), ((20, 5), (1, 3)), ((13, 10), (1, 1)),
])  # fmt: skip
def test_the_weights_of_both_kinds_of_answers(counts: tuple[int, int], weights: tuple[float, float]) -> None:
    made = balanced(*counts)
    assert made == pytest.approx(weights)
    assert 1 - 1e-9 <= made[0] * counts[0] / (made[1] * counts[1]) <= 4 / 3 + 1e-9
