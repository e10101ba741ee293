"""DPO and ORPO beside the formulas of their papers, with autograd over whole sequences."""

from collections.abc import Callable, Sequence
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
from riyaz.preferences import dpo, judge_pairs, orpo
from riyaz.train import TrainPlan, answer_loss, answer_nats, micro_batches, row_nats, train

VALUE, GRADIENT = 1e-5, 1e-4  # relative tolerances, float32


def pairs(seed: int, count: int) -> list[Row]:
    """Rows with two answers, of different lengths, to prompts with a common beginning."""
    worse = random_rows(seed + 100, count)
    return [Row((*range(1, 12), *row.prompt), row.answer, rejected=other.answer + (3,) * (place % 3))
            for place, (row, other) in enumerate(zip(random_rows(seed, count), worse))]  # fmt: skip


def adapted(seed: int = 3) -> Any:
    """A small model whose LoRA is not zero."""
    model = small_model()
    lora.apply(model, r=4, alpha=8, seed=seed)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name.endswith("b"):
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


PLAIN: dict[str, tuple[Any, Callable[[Any, Row], Tensor]]] = {
    "dpo": (dpo(), lambda model, row: plain_dpo(model, row, False)),
    "dpo by token": (dpo(normalised=True), lambda model, row: plain_dpo(model, row, True)),
    "orpo": (orpo(), plain_orpo),
}


def trainable(model: Any) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", PLAIN)
def test_loss_and_gradients_are_those_of_the_formula(name: str) -> None:
    objective, formula = PLAIN[name]
    rows = pairs(5, 6)
    model = adapted()
    expected = torch.stack([formula(model, row) for row in rows]).sum()
    expected.backward()
    gradients = {key: p.grad.clone() for key, p in trainable(model).items()}
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients.values())
    model = adapted()
    masters, total = Masters(model, torch.float32), 0.0
    for micro in micro_batches(rows, 90):
        loss = objective(model, micro, masters.sums)
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
    (micro,) = micro_batches(pairs(6, 4), 10**6)
    assert dpo()(model, micro, None).item() == pytest.approx(4 * 0.693147, rel=VALUE)  # type: ignore[arg-type]


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
    rows = [*pairs(11, 3), Row((1,), (2, 3), wanted=wanted)]
    losses = [objective(model, micro, None).item() for micro in micro_batches(rows, 10**6)]  # type: ignore[arg-type]
    (general,) = micro_batches(rows[-1:], 10**6)
    assert losses[1] == answer_nats(model, general).item() > 0


def test_losses_of_answers_are_those_of_the_better_ones() -> None:
    rows, model = pairs(8, 4), small_model()
    better = [Row(row.prompt, row.answer) for row in rows]
    assert row_nats(model, rows) == row_nats(model, better)
    assert answer_loss(model, rows) == answer_loss(model, better)


@pytest.mark.parametrize("name", PLAIN)
def test_training_prefers_the_better_answers_and_goes_on_where_it_was_stopped(name: str, tmp_path: Path) -> None:
    objective, rows = PLAIN[name][0], pairs(9, 12)
    plan = TrainPlan(
        steps=12, learning_rate=2e-2, batch_size=4, validate_every=4, checkpoint_every=6, compute="float32"
    )
    judge = judge_pairs(objective)

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
