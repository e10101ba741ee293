"""Instruction search among labels: the pool is halved by the log-loss of even labels, and the task's own wording stays
with its labels as they are where these are better."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fit_context import TASK, examples, fit_context

from riyaz.comparison import measure
from riyaz.data import Example
from riyaz.errors import RiyazError
from riyaz.events import Note
from riyaz.methods import METHODS, instruct
from riyaz.methods.fitting import choices
from riyaz.methods.fitting.base import Context, Fitted
from riyaz.methods.fitting.choices import base_predictor, rows_scored
from riyaz.methods.fitting.even_labels import even_labels
from riyaz.methods.fitting.instructions import MOST, Instruction
from riyaz.methods.instruct import LABEL_TOKENS, LEAST, ROUNDS, SURE, tried
from riyaz.metrics.calibration import fit_temperature, log_softmax
from riyaz.predictor import ClosedPredictor, ModelPredictor
from riyaz.scoring import REOPEN_ROWS, accepted_labels, answer_log_loss

pytestmark = pytest.mark.usefixtures("in_float32")
Scored = list[tuple[str, tuple[str, ...]]]  # the candidate, and the rows that were read


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path, valid=examples(54, "today"), valid_rows=48)


def scores_of(
    context: Context, rows: Sequence[Example], quality: float, bias: Sequence[float], seed: int
) -> np.ndarray:
    """Log-probabilities (n, L) that favour the right label by `quality`, and some labels."""
    accepted = accepted_labels(context.task, rows)
    noise = [np.random.default_rng([seed, int(row.where.rpartition(":")[2])]).normal(0, 1, 3) for row in rows]
    return log_softmax(quality * accepted + np.array(noise) + np.array(bias))


def fitted(
    context: Context, patch: pytest.MonkeyPatch, qualities: Sequence[float], bias: Sequence[float] = (0, 0, 0)
) -> tuple[Fitted, Scored]:
    """The fit among wordings of these qualities, of which the first is the task's own, and what it read."""
    done: Scored = []
    pool = [Instruction(f"{place}", "task" if place == 0 else "riyaz") for place in range(len(qualities))]

    def read(predictor: ClosedPredictor, rows: Sequence[Example]) -> np.ndarray:
        place = int(predictor.text.instruction)
        done.append((f"{place}", tuple(row.where for row in rows)))
        return scores_of(context, rows, qualities[place], bias, place)

    patch.setattr(instruct, "instructions", lambda *_: pool)
    patch.setattr(instruct, "_log_p", read)
    patch.setattr(choices, "answer_log_loss", lambda *_: pytest.fail("the rows are read already"))
    return METHODS["instruct"].fit(context), done


def test_the_pool_is_halved_on_the_same_rows_and_the_tasks_own_stays(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    qualities = [0.0, *(1.0 + 0.25 * place for place in range(23))]
    made, done = fitted(context, monkeypatch, qualities)
    where = [row.where for row in context.valid]
    rounds = {tuple(where[:8]): 24, tuple(where[8:16]): 12, tuple(where[16:32]): 6, tuple(where[32:48]): 3}
    assert [rows for _, rows in done] == [rows for rows, count in rounds.items() for _ in range(count)]
    for rows in rounds:
        assert next(name for name, read in done if read == rows) == "0"
    last = [name for name, read in done if read == tuple(where[32:48])]
    assert last[0] == "0" and set(last[1:]) < {str(place) for place in range(12, 24)}
    assert made.text.instruction in last[1:] and made.chosen["instruction"] == made.text.instruction
    assert sum(len(rows) for _, rows in done) == rows_scored(24, len(context.valid), ROUNDS) == 432


def test_the_record_has_every_candidate_and_three_entries_of_the_own_one(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = fitted(context, monkeypatch, [1.0, 2.5, 2.0, 0.5], (1.5, 0, 0))
    record = made.chosen["candidates"]
    even, plain = record[:-2], record[-2:]
    assert [entry["even_labels"] for entry in even] == [True] * len(even)
    assert [(each["even_labels"], each["calibrated"]) for each in plain] == [(False, False), (False, True)]
    own = [entry for entry in even if entry["rows"] == 48 and entry["instruction"] == "0"]
    assert len(own) == 1 and {each["instruction"] for each in plain} == {"0"}
    assert {"instruction", "origin", "list_labels", "validation", "nats", "rows", "difference", "error"} <= own[
        0
    ].keys()
    assert (own[0]["difference"], own[0]["error"]) == (0, 0)
    rows, accepted = context.valid[:48], accepted_labels(context.task, context.valid[:48])
    expected = even_labels(scores_of(context, rows, 1.0, (1.5, 0, 0), 0), accepted)
    assert own[0]["nats"] == pytest.approx(expected.nats, abs=1e-6)
    best = next(entry for entry in even if entry["rows"] == 48 and entry["instruction"] == "1")
    theirs = even_labels(scores_of(context, rows, 2.5, (1.5, 0, 0), 1), accepted)
    apart = expected.losses - theirs.losses
    assert best["difference"] == pytest.approx(apart.mean(), abs=1e-6) and best["difference"] > 0
    assert best["error"] == pytest.approx(apart.std(ddof=1) / math.sqrt(48), abs=1e-6)
    assert plain[0]["nats"] > own[0]["nats"], "one label is favoured"


def test_the_chosen_wording_has_the_offsets_of_its_scores(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = fitted(context, monkeypatch, [1.0, 3.0, 2.0], (2.5, 0, 0))
    rows, accepted = context.valid[:48], accepted_labels(context.task, context.valid[:48])
    scores = scores_of(context, rows, 3.0, (2.5, 0, 0), 1)
    even = even_labels(scores, accepted)
    assert (made.text.instruction, made.calibrated, made.chosen["even_labels"]) == ("1", False, True)
    assert made.label_offsets == pytest.approx(tuple(even.offsets)) and np.argmin(made.label_offsets) == 0
    assert made.temperature == pytest.approx(fit_temperature(scores + even.offsets, accepted))
    right = accepted[np.arange(48), (scores + even.offsets).argmax(1)].mean()
    tokens = sum(map(len, context.tokenizer.answer_ids([row.said for row in rows[:REOPEN_ROWS]])))
    loss = -scores[:REOPEN_ROWS][accepted[:REOPEN_ROWS]].sum() / tokens
    assert made.valid_score == pytest.approx(right) and made.valid_loss == pytest.approx(loss)


@pytest.mark.parametrize(("gain", "chosen"), [(0.9 * SURE, "0"), (1.1 * SURE, "1")])
def test_another_wording_is_chosen_if_it_is_better_by_half_a_standard_error(
    context: Context, monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str
) -> None:
    monkeypatch.setattr(instruct, "lower", lambda *_: (gain, 1.0))
    made, _ = fitted(context, monkeypatch, [1.0, 3.0], (2.5, 0, 0))
    assert made.text.instruction == chosen and made.chosen["even_labels"]


def test_the_own_wording_stays_as_it_is_where_even_labels_do_not_help(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = [replace(row, answers=("billing",)) for row in context.valid[:40]]
    skewed = replace(context, valid=(*one, *context.valid[40:48]))  # which the scores of labels know
    made, _ = fitted(skewed, monkeypatch, [1.0, 0.9, 0.8], (2.0, 0, 0))
    assert (made.text.instruction, made.label_offsets, made.chosen["even_labels"]) == ("0", (), False)
    plain = made.chosen["candidates"][-2:]
    assert made.calibrated == (plain[1]["nats"] <= plain[0]["nats"]) == made.chosen["calibrated"]
    assert min(each["nats"] for each in plain) < made.chosen["candidates"][-3]["nats"]


@pytest.mark.parametrize("null", [(3.0, 0.0, 0.0), (-3.0, 0.0, 0.0)])
def test_null_prompts_correct_the_own_wording_where_they_help_most(
    context: Context, monkeypatch: pytest.MonkeyPatch, null: tuple[float, ...]
) -> None:
    one = [replace(row, answers=("billing",)) for row in context.valid[:40]]
    skewed = replace(context, valid=(*one, *context.valid[40:48]))
    monkeypatch.setattr(ClosedPredictor, "null_offsets", property(lambda self: np.array(null)))
    made, _ = fitted(skewed, monkeypatch, [1.0, 0.5], (-1.0, 0, 0))
    assert made.calibrated == made.chosen["calibrated"] == (null[0] > 0)
    assert not (made.calibrated and made.label_offsets)


def test_two_dozen_are_tried_and_fewer_where_labels_have_many_tokens(context: Context) -> None:
    plain = base_predictor(context)
    assert tried(plain) == MOST and METHODS["instruct"].tried is tried
    counts = {}
    for number in (20, 60, 400):
        labels = tuple(f"the payment of order {place} is pending" for place in range(number))
        predictor = base_predictor(replace(context, task=replace(TASK, labels=labels)))
        tokens = sum(map(len, predictor.tokenizer.answer_ids(list(labels))))
        counts[number] = tried(predictor)
        assert counts[number] == max(LEAST, min(MOST, LABEL_TOKENS // tokens))
    assert MOST > counts[20] > LEAST == counts[400]
    assert tried(base_predictor(replace(context, task=replace(TASK, kind="free", labels=(), metric="judge")))) == MOST


def test_only_so_many_of_the_pool_are_read(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruct, "tried", lambda predictor: 4)
    _, done = fitted(context, monkeypatch, [1.0] * 9)
    assert {name for name, _ in done} == {"0", "1", "2", "3"}
    assert sum(len(rows) for _, rows in done) == rows_scored(4, len(context.valid), ROUNDS)


@pytest.mark.parametrize("count", [3, 7, 24])
def test_the_planned_seconds_are_those_of_the_rows_that_are_read(
    context: Context, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Every row that a candidate reads takes as long as all labels behind a prompt, here ten seconds."""
    taken = dict.fromkeys(("row", "loss", "alone", "pass", "candidate", "tokens"), 0.0) | {"null": 0.5}
    monkeypatch.setattr(measure, "_measured_answers", lambda *_: dict(taken))
    monkeypatch.setattr(measure, "_whole_seconds", lambda *_: 10.0)
    method = replace(METHODS["instruct"], tried=lambda predictor: count)
    speed = measure._answer_speed(method, base_predictor(context), context, 0.0, SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(instruct, "tried", method.tried)
    _, done = fitted(context, monkeypatch, [1.0] * 24)
    assert speed.choose_seconds == pytest.approx(10 * sum(len(rows) for _, rows in done) + 0.5)


def test_a_whole_row_takes_as_long_as_all_its_labels(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, read = base_predictor(context), list[int]()

    def choose(requests: Sequence[Any]) -> np.ndarray:
        read.append(len(requests))
        return np.zeros((len(requests), 3))

    monkeypatch.setattr(predictor.lm, "choose", choose)
    monkeypatch.setattr(measure, "_seconds", lambda work: work() is None or 6.0)
    assert measure._whole_seconds(predictor, context) == 6.0 / read[0] and len(read) == 1  # type: ignore[arg-type]


def test_a_real_search_answers_as_it_was_scored(context: Context) -> None:
    context = replace(context, valid=context.valid[:9], valid_rows=9, precision="fp32")
    made = METHODS["instruct"].fit(context)
    predictor: ModelPredictor = base_predictor(context)
    assert isinstance(predictor, ClosedPredictor)
    predictor = replace(predictor, text=made.text, calibrated=made.calibrated, label_offsets=made.label_offsets,
                        temperature=made.temperature)  # fmt: skip
    answers = predictor.answers([row.messages for row in context.valid])
    assert np.mean([a.text in row.answers for a, row in zip(answers, context.valid)]) == pytest.approx(made.valid_score)
    assert bool(made.label_offsets) == made.chosen["even_labels"] and made.temperature
    assert made.valid_loss == pytest.approx(answer_log_loss(predictor, context.valid), abs=1e-4)


def test_a_wording_with_which_a_row_does_not_fit_is_left_out(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = base_predictor(context)
    long = "Sort it. " * 300
    pool = [Instruction(TASK.instruction, "task"), Instruction(long, "yours"), Instruction("Sort these.", "riyaz")]
    monkeypatch.setattr(instruct, "base_predictor", lambda _: plain)
    monkeypatch.setattr(instruct, "instructions", lambda *_: pool)
    plain.lm.context = 400
    made = METHODS["instruct"].fit(context)
    assert {each["instruction"] for each in made.chosen["candidates"]} == {TASK.instruction, "Sort these."}
    monkeypatch.setattr(instruct, "instructions", lambda *_: pool[1:])
    with pytest.raises(RiyazError, match="context"):
        METHODS["instruct"].fit(context)


def test_instructions_of_the_users_that_are_not_tried_are_named(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruct, "tried", lambda predictor: LEAST)
    notes: list[Any] = []
    own = ("Sort these.", TASK.instruction.upper(), "Name the desk.", "Say where it goes.")
    METHODS["instruct"].fit(replace(context, instructions=own, listen=notes.append))
    (note,) = (each.text for each in notes if isinstance(each, Note))
    assert note.startswith("2 of your 4 instructions were not tried") and "'Name the desk.'" in note
    assert "Say where it goes." in note and "Sort these." not in note
    notes.clear()
    METHODS["instruct"].fit(replace(context, instructions=own[:2], listen=notes.append))
    assert not [each for each in notes if isinstance(each, Note)]
