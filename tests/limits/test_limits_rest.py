"""Context, cost and fragility: the grid, the refusal beyond the end, prices, energy, and questions put otherwise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
from tiny_comparison import CLOSED, closed_rows, command, write_rows

from riyaz import hardware
from riyaz.artifact import TextPart
from riyaz.config import LimitsConfig
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.request import Request
from riyaz.limits import context, cost, energy, fragile, reworded, templates
from riyaz.limits.ask import first_token, plain
from riyaz.limits.inputs import Inputs, Rows
from riyaz.predictor import (
    ClosedPredictor,
    CopyPredictor,
    FreePredictor,
    LabelHead,
    ModelPredictor,
    Prediction,
    open_model,
    predictor_for,
)
from riyaz.results import Figure, Part

TASK = Task("closed", tuple(sorted(CLOSED)), "accuracy", "Classify the text.", "")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelPredictor:
    return open_model(tiny_llama.write_hf_folder(tmp_path_factory.mktemp("context") / "tiny", context=512))


@pytest.fixture(scope="module")
def inputs(model: ModelPredictor) -> Inputs:
    examples = tuple(
        Example(({"role": "user", "content": row["text"]},), (row["label"],), where=f"r:{i}")
        for i, row in enumerate(closed_rows(24, "please"))
    )
    classifier = predictor_for(replace(model, text=TextPart(TASK.instruction, list_labels=True), task=TASK))
    return Inputs(model, LimitsConfig(), answering=classifier, rows=Rows(TASK, examples, examples, "rows"))


def named(part: Part, name: str) -> dict[str, Figure]:
    return {figure.group: figure for figure in part.figures if figure.name == name}


def test_the_grid_has_every_depth_and_length(inputs: Inputs) -> None:
    grid, loss, *growing, beyond, own = context.measure(inputs).parts
    assert [part.name.split()[0] for part in growing] == ["examples", "passages", "your"]
    assert set(named(grid, "one fact found")) == {
        "256 tokens", "512 tokens", *(f"depth {depth:.0%}" for depth in context.DEPTHS),
    }  # fmt: skip
    assert named(grid, "of 3 facts found")["512 tokens"].n == 3
    (curve,) = loss.curves
    assert curve.points[-1][0] == 511 and len(curve.points) == context.TESTED
    assert beyond.figures[0].value == 1 and "does not fit the context of 512" in beyond.notes[0]
    assert own.figures[0].unit == "tokens" and (own.figures[0].value or 0) < 512 and own.figures[3].value == 0


def test_loss_by_position_is_the_loss_of_each_block(inputs: Inputs) -> None:
    assert inputs.model is not None
    model = plain(inputs.model)
    part = context.measure(replace(inputs, rows=None)).parts[1]
    ids = context.filler_ids(model)[:511]
    (nats,) = model.lm.logprobs([Request(0, first_token(model))], [ids])
    assert part.curves[0].points[0] == (32.0, pytest.approx(-float(nats[:32].mean()), abs=1e-4))
    assert part.figures[1].n == 31 and part.figures[1].value == pytest.approx(-float(nats[-31:].mean()), abs=1e-4)


def test_a_fact_is_found_where_its_number_is_answered(model: ModelPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def reading(self: FreePredictor, conversations: list, **_: object) -> list[Prediction]:
        asked.extend(each[0]["content"] for each in conversations)
        return [Prediction(text[0]["content"].partition(" is ")[2][:5]) for text in conversations]

    monkeypatch.setattr(FreePredictor, "answers", reading)
    assert context._recalled(plain(model), context.filler_ids(model), 256, [0.0], seed=1) == [1.0]
    assert len(model.tokenizer.encode(asked[0])) <= 256
    monkeypatch.setattr(FreePredictor, "answers", lambda *_, **__: [Prediction("none")])
    assert context._recalled(plain(model), context.filler_ids(model), 256, [0.0], seed=1) == [0.0]


def test_a_short_budget_leaves_out_the_longest(inputs: Inputs) -> None:
    part = context.measure(inputs, 0.4).parts[0]
    assert "256 tokens" in named(part, "one fact found") and "512 tokens" not in named(part, "one fact found")
    assert part.notes[1:] == ["The budget was too short for texts of 512 tokens."]
    marks = part.notes[0].partition("256 tokens ")[2].rstrip(".")
    assert [float(mark == "+") for mark in marks] == [named(part, "one fact found")[f"depth {depth:.0%}"].value
                                                     for depth in context.DEPTHS]  # fmt: skip


def test_prices_follow_from_seconds_and_tokens(inputs: Inputs) -> None:
    config = LimitsConfig(price_per_hour=3.6, price_per_million=1000.0, carbon=400.0)
    given = replace(inputs, config=config, parameters=1000, training_seconds=100.0)
    (part,) = cost.measure(given).parts
    seconds = named(part, "time of 1,000 answers")
    price = named(part, "price of 1,000 answers")
    for group in ("one at a time", "16 together"):
        assert price[group].value == pytest.approx((seconds[group].value or 0) * 3.6 / 3600)
    tokens = sum(figure.value or 0 for figure in part.figures if figure.unit == "tokens")
    assert price["elsewhere"].value == pytest.approx(1000 * tokens * 1000 / 1e6)
    assert named(part, "computation of 1,000 answers")["all"].value == pytest.approx(1000 * 2 * 1000 * tokens)
    assert named(part, "price to make it")["training"].value == pytest.approx(0.1)
    made = named(part, "energy to make it, estimated")["training"].value or 0
    assert made == pytest.approx(100 * energy.WATTS * hardware.threads())
    assert named(part, "CO2 to make it, estimated")["training"].value == pytest.approx(made / 3.6e6 * 400)
    joules = named(part, "energy of 1,000 answers")["16 together"].value or 0
    assert named(part, "CO2 of 1,000 answers")["16 together"].value == pytest.approx(joules / 3.6e6 * 400)
    answers = named(part, "cheaper here after so many answers")["16 together"].value
    assert answers == pytest.approx(0.1 / (tokens / 1000 - (price["16 together"].value or 0) / 1000), rel=1e-6)


def test_break_even_is_never_where_this_machine_costs_more() -> None:
    assert cost.break_even(here=1.0, there=3.0, made=10.0) == 5
    assert cost.break_even(here=3.0, there=1.0, made=10.0) is None


def test_copied_answers_have_costs_too(inputs: Inputs) -> None:
    assert inputs.rows is not None
    copying = CopyPredictor(examples=inputs.rows.test, task=TASK)
    (part,) = cost.measure(replace(inputs, predictor=copying, answering=copying)).parts
    assert named(part, "time of 1,000 answers")["one at a time"].value and "tokens read" in part.figures[4].name


def test_energy_is_counted_or_said_to_be_estimated(tmp_path: Path) -> None:
    assert not energy.Meter(tmp_path).stop().measured
    for name, value in (("intel-rapl:0", "1000000"), ("intel-rapl:0:0", "7"), ("intel-rapl:1", "9000000")):
        folder = tmp_path / energy.POWERCAP / name
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text(value)
        (folder / "max_energy_range_uj").write_text("10000000")
    meter = energy.Meter(tmp_path)
    (tmp_path / energy.POWERCAP / "intel-rapl:0" / "energy_uj").write_text("3000000")
    (tmp_path / energy.POWERCAP / "intel-rapl:1" / "energy_uj").write_text("1000000")  # it began anew
    used = meter.stop()
    assert used.measured and used.joules == pytest.approx(2 + 2)


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        ("reworded", "I can't get my card.", "I cannot receive this card."),
        ("in another order", "I paid. Where is it?", "Where is it? I paid."),
        ("in another order", "If I pay, does it arrive?", "Does it arrive, if I pay?"),
        ("in another order", "where is it", "where is it"),
        ("in small letters", "Where Is It?", "where is it"),
    ],
)
def test_changes_are_by_rule(change: str, text: str, expected: str) -> None:
    assert reworded.CHANGES[change](text) == expected


def test_typos_exchange_letters_and_are_the_same_each_time() -> None:
    text = "my payment was declined yesterday"
    typed = reworded.mistyped(text)
    assert typed != text and typed == reworded.mistyped(text) and sorted(typed) == sorted(text)
    assert sum(a != b for a, b in zip(text.split(), typed.split())) == reworded.TYPOS
    polite = reworded.polite(text)
    assert text in polite and len(polite) > len(text)


def test_answers_that_stay_are_counted(inputs: Inputs) -> None:
    easy, negation, own, labels = fragile.measure(inputs).parts
    assert named(easy, "right")["as written"].even == 0.25
    assert "asked in other words" in named(easy, "the answer stays")
    assert set(named(negation, "the true sentence is likelier")) == {"without not", "with not"}
    assert inputs.rows is not None and inputs.answering is not None
    lowered = [row for row in inputs.rows.test if reworded.lowered(row.prompt) != row.prompt]
    assert "in small letters" not in named(own, "the answer stays") or lowered
    before = [inputs.answering.answer(row.messages) for row in inputs.rows.test]
    after = [inputs.answering.answer([{"role": "user", "content": reworded.mistyped(row.prompt)}])
             for row in inputs.rows.test]  # fmt: skip
    assert named(own, "the answer stays")["with typos"].value == np.mean([a == b for a, b in zip(before, after)])
    assert set(named(labels, "the answer stays")) == {"labels renamed", "labels listed in reverse order"}


def test_not_makes_the_other_statement_true(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that always finds the true sentence likelier: that with the true word, but with not the other."""
    assert inputs.model is not None
    items = templates.read_data("negations.json")["statements"]
    true = {f"{item['is']} {item['true']}." for item in items} | {f"{item['not']} {item['false']}." for item in items}
    monkeypatch.setattr(fragile, "text_nats", lambda _, texts: np.array([float(text in true) for text in texts]))
    assert [figure.value for figure in fragile._negation(inputs.model).figures] == [1.0, 1.0]


def test_answers_with_renamed_labels_are_mapped_back(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    given, answering = inputs.rows, inputs.answering
    assert given is not None and isinstance(answering, ClosedPredictor)

    def right(predictor: ClosedPredictor, rows: list[Example]) -> list[Prediction]:
        named = {label.lower(): label for label in predictor.task.labels}
        return [Prediction(named[row.answer.lower()]) for row in rows]

    monkeypatch.setattr(fragile, "predict", right)
    part = fragile._labels(answering, given, given.test)
    assert {figure.value for figure in part.figures if figure.name == "the answer stays"} == {1.0}
    assert {figure.value for figure in part.figures if figure.name != "the answer stays"} == {0.0}


def test_a_head_does_not_read_the_names_of_labels(inputs: Inputs) -> None:
    assert isinstance(inputs.answering, ClosedPredictor)
    head = LabelHead(np.random.default_rng(0).standard_normal((len(TASK.labels), 64)).astype(np.float32))
    *_, last = fragile.measure(replace(inputs, answering=replace(inputs.answering, head=head))).parts
    assert last.name == "your rows put otherwise"


def test_labels_are_renamed_to_what_means_the_same() -> None:
    assert [fragile.renamed(label) for label in ("lost_card", "lost-card", "billing")] == [
        "lost card", "lost card", "Billing",
    ]  # fmt: skip


def test_every_suite_runs_by_command(model_folder: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(12, "now"))
    done = command("limits", model_folder, "--rows", rows, "--budget", "5s", "--price-per-hour", "1", "--json")
    assert done.status == 0, done.err
    assert [suite["name"] for suite in done.document["suites"]] == ["bias", "truth", "context", "cost", "fragile"]
    assert all(part["blind"] and part["figures"] for suite in done.document["suites"] for part in suite["parts"])
