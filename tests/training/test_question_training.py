"""Rows that answer several typed questions after one reading: their packing, loss, gradients and validation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_context import PLAN, TASK, fit_context

from riyaz import train as training
from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.packing import pack
from riyaz.data.questions import TRUE_FALSE, Choice, Question, answers_text
from riyaz.data.rows import Row
from riyaz.data.task import Task
from riyaz.layers.attention import packed
from riyaz.methods import full
from riyaz.methods.fitting import learning_rate, weights
from riyaz.methods.fitting.base import Context, instruction_only
from riyaz.methods.fitting.label_rows import head_labels, head_sizes, label_tokens, with_label_head
from riyaz.train import (
    TrainPlan,
    answer_nats,
    label_log_p,
    label_places,
    label_ranges,
    micro_batches,
    train,
    validate,
)

pytestmark = pytest.mark.usefixtures("in_float32")
QUESTIONS = (
    Question("urgent", "predicate", "Is it urgent?", TRUE_FALSE),
    Question("team", "choice", "Who answers?", tuple(map(Choice, TASK.labels))),
    Question("mood", "score", "How content?", tuple(map(Choice, ("bad", "fine", "good", "best")))),
)
SIZES = [2, 3, 4]
ASKED = Task("questions", (), "decisions", "Answer.", "", QUESTIONS)
PLACES = [(0, 1, 2), (1, None, 0), (None, 2, None), (0, 0, 3), (None, None, 1), (1, 1, None)]


def asked_rows(count: int) -> tuple[Example, ...]:
    """Rows that answer the questions in PLACES, one after the other."""
    return tuple(
        Example(({"role": "user", "content": f"where is my refund {i}"},), (answers_text(QUESTIONS, PLACES[i % 6]),))
        for i in range(count)
    )


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    text = replace(instruction_only(TASK), text=TextPart("Answer."))
    return fit_context(
        model_folder, tmp_path, task=ASKED, train=asked_rows(24), valid=asked_rows(6), prompt_text=text
    )  # fmt: skip


@pytest.fixture
def model(context: Context) -> Any:
    return with_label_head(context, full.build)(context)


def numbered(rows: Sequence[Row]) -> list[tuple[Row, int, int]]:
    """(row, question, place) of every answer of the rows, by the places they were made from."""
    return [(row, q, p) for i, row in enumerate(rows) for q, p in enumerate(PLACES[i % 6]) if p is not None]


def by_hand(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """The cross-entropies (N,) of the answers of the rows, each row read alone and each question by a softmax of its
    own."""
    starts, nats = [0, 2, 5], []
    for row, question, place in numbered(rows):
        tokens = torch.tensor(row.prompt)
        hidden = model(tokens, torch.arange(len(tokens)), packed([len(tokens)]))[-1:]
        logits = hidden @ model.label_head.weight[starts[question] : starts[question] + SIZES[question]].T
        nats.append(torch.nn.functional.cross_entropy(logits, torch.tensor([place])))
    return torch.stack(nats)


def test_all_answers_of_a_row_are_predicted_by_the_end_of_its_prompt() -> None:
    together = [Row((1, 2, 3), (10, 12, 15), None, True), Row((4, 5), (11,), None, True)]
    one = pack(together)
    assert one.tokens.tolist() == [1, 2, 3, 4, 5] and one.lengths == [3, 2]
    assert one.label_index.tolist() == [2, 2, 2, 4] and one.labels.tolist() == [10, 12, 15, 11]
    following = pack([replace(row, together=False) for row in together])
    assert following.tokens.tolist() == [1, 2, 3, 10, 12, 4, 5] and following.label_index.tolist() == [2, 3, 4, 6]
    common = tuple(range(20, 32))
    shared = pack([Row((*common, 1, 2), (40, 41), None, True), Row((*common, 3), (42,), None, True)])
    assert shared.shared == 12 and shared.lengths == [2, 1] and shared.label_index.tolist() == [13, 13, 14]
    assert [row.length for row in together] == [3, 2]


def test_the_answers_are_labels_one_question_after_the_other(context: Context, model: Any) -> None:
    assert head_labels(ASKED) == ["true", "false", *TASK.labels, "bad", "fine", "good", "best"]
    assert head_sizes(ASKED) == list(model.sizes) == SIZES and label_ranges(SIZES) == [(0, 2), (2, 5), (5, 9)]
    assert head_sizes(TASK) == [] and head_labels(TASK) == list(TASK.labels)
    rows = asked_rows(3)
    assert [label_tokens(ASKED, row, 100) for row in rows] == [(100, 103, 107), (101, 105), (104,)]
    assert all(row.together for row in weights.rows_for(context, context.train))


@pytest.mark.parametrize("alone", [False, True])
def test_the_loss_and_its_gradient_are_those_of_separate_cross_entropies(
    context: Context, model: Any, alone: bool
) -> None:
    rows = weights.rows_for(context, context.train)[:6]
    nats, gradients = by_hand(model, rows), []
    batches = [[row] for row in rows] if alone else [rows]
    ours = sum(answer_nats(model, pack(batch)) for batch in batches)
    assert ours.item() == pytest.approx(nats.sum().item(), abs=1e-3)
    for loss in (nats.sum(), ours):
        model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([w.grad.flatten() for w in model.parameters() if w.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[0].norm() > 0
    assert model.label_head.weight.grad.abs().sum(1).min() > 0, "every choice"


def test_a_row_may_have_more_answers_than_tokens(model: Any) -> None:
    V = model.config.vocab_size
    few = [Row((5, 6), (V, V + 2, V + 5), None, True), Row((7,), (V + 1, V + 3), None, True)]
    assert answer_nats(model, pack(few)).item() == pytest.approx(
        sum(answer_nats(model, pack([replace(row, answer=(each,))])).item() for row in few for each in row.answer),
        abs=1e-3,
    )
    even = [Row((5, 6), (V, V + 5), None, True)]  # as many answers as tokens
    log_p, places = label_log_p(model, even), label_places(model, even)
    assert np.allclose(np.exp(log_p[0, :2]).sum(), 1) and np.isneginf(log_p[0, 2:]).all()
    single = label_log_p(model, [replace(even[0], answer=(V + 5,))])
    assert log_p[1] == pytest.approx(single[0], abs=1e-5) and places.tolist() == [0, 5]


def test_validation_is_the_mean_over_the_answers(context: Context, model: Any) -> None:
    rows = weights.rows_for(context, context.valid)
    log_p, places = label_log_p(model, rows, 16), label_places(model, rows)
    answers = numbered(rows)
    assert log_p.shape == (len(answers), 9) and len(list(micro_batches(rows, 16))) > 1
    starts = np.array([0, 2, 5])
    assert places.tolist() == [starts[question] + place for _, question, place in answers]
    for line, (_, question, _) in zip(log_p, answers):
        own = slice(starts[question], starts[question] + SIZES[question])
        assert [np.exp(part).sum() for part in (line[own], line)] == pytest.approx([1, 1], abs=1e-5)
    nats = by_hand(model, rows).detach().numpy()
    assert -log_p[np.arange(len(places)), places] == pytest.approx(nats, abs=1e-4)
    judged = validate(model, rows, 16)
    assert judged["valid_loss"] == pytest.approx(nats.mean(), abs=1e-4)
    assert judged["valid_accuracy"] == pytest.approx((log_p.argmax(1) == places).mean())
    assert 0 < judged["calibrated_loss"] <= judged["valid_loss"] + 1e-2


def test_a_step_moves_the_choices_that_rows_answer(context: Context, model: Any) -> None:
    rows = [row for row in weights.rows_for(context, context.train) if len(row.answer) == 1]  # team or mood alone
    before = model.rows()
    plan = TrainPlan(steps=1, learning_rate=1e-3, batch_size=len(rows), compute="float32", weight_decay=0.0)
    train(model, rows, rows[:2], plan, context.folder / "run", lambda _: None)
    moved = np.abs(model.rows() - before).max(1)
    assert (moved[2:] > 1e-5).all() and (moved[:2] == 0).all(), "no row says whether it is urgent"


def test_a_rate_is_judged_by_rows(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, build = weights.rows_for(context, context.train), with_label_head(context, full.build)
    trial = learning_rate._trial(context, 1e-3, build, rows, rows[:6], None)
    assert trial.nats.shape == (6,) and trial.wrong is not None and trial.wrong.shape == (6,)
    counts = [len(row.answer) for row in rows[:6]]
    assert all(0 <= wrong <= count and wrong == int(wrong) for wrong, count in zip(trial.wrong, counts))
    monkeypatch.setattr(training, "train", lambda *_, **__: None)
    untrained = learning_rate._trial(context, 1e-3, build, rows, rows[:6], None)
    nats = iter(by_hand(build(context), rows[:6]).tolist())
    assert untrained.nats == pytest.approx([sum(next(nats) for _ in range(count)) for count in counts], abs=1e-3)


def test_a_rate_for_single_labels_is_judged_as_before(model_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    context = fit_context(model_folder, tmp_path)
    rows, build = weights.rows_for(context, context.train), with_label_head(context, full.build)
    monkeypatch.setattr(training, "train", lambda *_, **__: None)
    trial, model = learning_rate._trial(context, 1e-3, build, rows, rows, None), build(context)
    log_p, places = label_log_p(model, rows), label_places(model, rows)
    assert trial.nats == pytest.approx(-log_p[np.arange(len(rows)), places])
    assert trial.wrong is not None and trial.wrong.tolist() == (log_p.argmax(1) != places).tolist()
    lengths = np.array([len(row.answer) for row in rows])
    _, record = learning_rate.chosen({1e-3: trial.nats}, lengths, {1e-3: trial.wrong})
    assert record[0]["accuracy"] == pytest.approx((log_p.argmax(1) == places).mean()) and PLAN.learning_rates
