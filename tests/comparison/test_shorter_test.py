"""A budget that is too short for every test row: folds give way to one split, then rows do, and it is said."""

import json
from pathlib import Path

import pytest
import tiny_comparison
from refusals import assert_refused
from test_plan import given, measured, named, out
from tiny_comparison import command

from riyaz.comparison import plan as planning
from riyaz.comparison import shorter_test
from riyaz.comparison.arm_seconds import LATENCY_LEAST, Sizes
from riyaz.comparison.plan import ComparisonPlan, TooShort
from riyaz.comparison.shorter_test import FAIR_ROWS, FOLDS_SHARE, plan_within, reduction_note
from riyaz.data.data_report import DataReport
from riyaz.data.formats import load
from riyaz.data.split import Split, split
from riyaz.data.task import detect
from riyaz.evaluate import LATENCY_ROWS

METHODS = ("nearest", "zero_shot", "lora")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> shorter_test.Divide:
    """Ways to cut 120 rows without a test file."""
    return cutting(
        tiny_comparison.write_rows(tmp_path_factory.mktemp("few") / "rows.jsonl", tiny_comparison.closed_rows(120, "!"))
    )


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> shorter_test.Divide:
    """Ways to cut 400 rows, of which 100 are held out."""
    return cutting(
        tiny_comparison.write_rows(tmp_path_factory.mktemp("many") / "rows.jsonl", tiny_comparison.closed_rows(400, ""))
    )


def cutting(rows: Path) -> shorter_test.Divide:
    data = load(rows)

    def cut(deal_folds: bool, limit_test: int | None) -> tuple[Split, DataReport]:
        return split(data, None, detect(data), deal_folds=deal_folds, limit_test=limit_test)

    return cut


def within(
    cut: shorter_test.Divide, budget: float, limit_test: int | None = None, **lora: float
) -> tuple[ComparisonPlan, Split]:
    def make(sizes: Sizes, leave_out: bool) -> ComparisonPlan:
        inputs = given(*METHODS, speeds=measured(lora=lora), sizes=sizes)
        return planning.make_plan(inputs, budget=budget, spent=0.0, leave_out=leave_out)

    plan, parts, report = plan_within(cut, limit_test, make)
    assert report.rows["test"] == len(parts.tested) and report.rows["folds"] == len(parts.folds)
    return plan, parts


def test_with_time_enough_nothing_is_left_out(
    few: shorter_test.Divide, many: shorter_test.Divide, tmp_path: Path
) -> None:
    fewer = cutting(tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(45, "now")))
    for cut, tested, folds in ((few, 120, 5), (many, 100, 0), (fewer, 45, 5)):
        plan, parts = within(cut, 10_000)
        assert (len(parts.tested), len(parts.folds), reduction_note(plan, None, tested)) == (tested, folds, "")


def test_folds_that_leave_too_little_training_give_way_to_one_split(few: shorter_test.Divide) -> None:
    budgets = range(200, 1200, 50)
    found = [within(few, float(budget)) for budget in budgets]
    dealt = [bool(parts.folds) for _, parts in found]
    assert not dealt[0] and dealt[-1] and dealt == sorted(dealt), "more time never tests less"
    for plan, parts in found:
        lora = plan.arm("lora")
        if parts.folds:
            assert lora.steps >= FOLDS_SHARE * lora.recipe_steps
        else:
            assert plan.folds is False and len(parts.tested) == 48 == len(parts.train) and len(parts.valid) == 24
            assert "48 test rows, held out once instead of in folds, only" in reduction_note(plan, None, 48)


def test_one_split_keeps_the_validation_rows_of_the_folds_artifact(few: shorter_test.Divide) -> None:
    once, dealt = few(False, None)[0], few(True, None)[0]
    assert once.valid == dealt.valid, "by which the base was measured"
    assert {e.where for e in (*once.train, *once.test)} == {e.where for e in dealt.train}
    assert not {e.key for e in once.train} & {e.key for e in once.test}


def test_rows_are_halved_until_all_arms_fit_and_then_arms_are_left_out(many: shorter_test.Divide) -> None:
    found = [within(many, float(budget)) for budget in range(600, 50, -10)]
    whole = [len(parts.tested) for plan, parts in found if not out(plan)]
    assert whole == sorted(whole, reverse=True) and set(whole) == {100, 50}
    left = [len(parts.tested) for plan, parts in found if out(plan)]
    assert set(left) == {FAIR_ROWS} and len(whole) + len(left) == len(found), "not below FAIR_ROWS for another arm"
    for plan, _ in found[len(whole) :]:
        assert out(plan) == {"lora"}
        assert plan.arm("lora").skipped == "the budget is too short for it; raise --budget"
    for plan, parts in found:
        note = f"the budget leaves time for {len(parts.tested)} test rows only; raise --budget to test more"
        assert reduction_note(plan, None, len(parts.tested)) == (note if len(parts.tested) < 100 else "")
        assert plan.limit_test == (len(parts.tested) if len(parts.tested) < 100 else None)
        assert {e.where for e in parts.test} <= {e.where for e in many(True, None)[0].test}
    plan, parts = within(many, 300.0, step_seconds=100.0)
    assert out(plan) == {"lora"} and len(parts.tested) == FAIR_ROWS


def test_arms_are_not_left_out_of_folds_but_of_one_split(tmp_path: Path) -> None:
    tiny = cutting(tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(24, "?")))
    assert tiny(True, None)[0].folds and len(tiny(False, None)[0].tested) <= 10, "nothing between the two"
    plan, parts = within(tiny, 200.0, step_seconds=100.0)
    assert out(plan) == {"lora"} and not parts.folds


def test_fewer_rows_than_is_fair_are_tested_only_where_not_even_two_arms_fit(many: shorter_test.Divide) -> None:
    fewest = []
    for budget in range(60, 15, -1):
        try:
            plan, parts = within(many, float(budget))
        except TooShort:
            break
        assert out(plan) == {"lora"}
        fewest.append(len(parts.tested))
    assert set(fewest) == {50, 25, 12, 10} and fewest == sorted(fewest, reverse=True)


def test_a_limit_of_the_user_is_where_it_begins(many: shorter_test.Divide) -> None:
    plan, parts = within(many, 10_000, limit_test=30)
    assert len(parts.tested) == 30 and reduction_note(plan, 30, 30) == ""
    plan, parts = within(many, 10_000, limit_test=7)
    assert len(parts.tested) == 7 < FAIR_ROWS and reduction_note(plan, 7, 7) == ""
    plan, parts = within(many, 40.0, limit_test=7)
    assert len(parts.tested) == 7 and out(plan) == {"lora"}


def test_what_fits_in_no_way_is_refused_with_a_budget_that_is_enough(
    few: shorter_test.Divide, many: shorter_test.Divide
) -> None:
    for cut in (few, many):
        with assert_refused("evaluating zero_shot and nearest on 10 test rows takes about", "--budget 10s"):
            within(cut, 10.0)
        with pytest.raises(TooShort) as caught:
            within(cut, 10.0)
        plan, parts = within(cut, named(caught.value))
        assert out(plan) == {"lora"} and not parts.folds


def test_long_answers_are_timed_on_fewer_rows() -> None:
    slow = measured({"zero_shot": {"answer_seconds": 8.0}})
    rows = [planning.make_plan(given(*METHODS, speeds=speeds), budget=5000.0, spent=0.0).latency_rows
            for speeds in (slow, measured())]  # fmt: skip
    assert rows == [LATENCY_LEAST, LATENCY_ROWS]


@pytest.mark.usefixtures("one_core")
def test_a_comparison_without_time_for_folds(
    inside: list, asked: tuple, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shorter_test, "FOLDS_SHARE", 2.0)  # more than any arm trains
    data = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(45, "please"))
    asked = ("compare", data, *asked, "--methods", "nearest,rag,lora", "--documents", data, "--out", tmp_path / "out")
    told = command(*asked)
    assert told.status == 0 and "held out once instead of in folds" in told.err
    assert told.document["data"]["rows"]["folds"] == 0 and [a["n_test"] for a in told.document["arms"]] == [18, 18, 18]
    assert any("held out once" in note for note in told.document["data"]["notes"])
    assert "a row's own document is left out of its prompt" in told.err and "the answers themselves" not in told.err
    assert {path.name for path in (tmp_path / "out/split").iterdir()} == {"kept"}
    assert len((tmp_path / "out/split/kept/test.jsonl").read_text().splitlines()) == 18
    seconds = json.loads((tmp_path / "out/seconds.json").read_text())
    (tmp_path / "out/compare.json").unlink()
    monkeypatch.undo()
    again = command(*asked)
    assert again.status == 0 and [a["score"] for a in again.document["arms"]] == [
        a["score"] for a in told.document["arms"]
    ]
    assert again.document["seconds"] > seconds and again.document["data"]["rows"] == told.document["data"]["rows"]
