"""What a language model adds to the best arm without one, and how the reports say it."""

from dataclasses import replace
from pathlib import Path

import fake_page
import numpy as np
import pytest

from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.worth import worth
from riyaz.json_files import from_json, write_lines
from riyaz.report.comparison import html, markdown
from riyaz.report.comparison.worth import worth_lines
from riyaz.results import PREDICTIONS, About, Answer, ArmResult, Comparison, SliceLead, Worth

PLAIN = About("", "", 0, "o", "copy", language_model=False)
MODEL = About("", "", 1, "o", "lora")


def folder(path: Path, labels: list[str], names: list[str | None]) -> ComparisonFolder:
    run = ComparisonFolder(path).part("lora", FINAL)
    run.mkdir(parents=True)
    rows = [Answer(f"t:{i:03d}", "q", [label], "a", 1.0, slice=names[i]) for i, label in enumerate(labels)]
    write_lines(run / PREDICTIONS, rows)
    return ComparisonFolder(path)


def arms() -> list[ArmResult]:
    return [
        ArmResult("nearest", "ok", ms_per_answer=1.0, serve_rss_mb=100.0, about=PLAIN),
        ArmResult("lora", "ok", ms_per_answer=51.0, serve_rss_mb=350.0, about=MODEL),
        ArmResult("full", "ok", ms_per_answer=50.0, serve_rss_mb=400.0, about=MODEL),
    ]


def test_the_best_arm_of_each_kind_is_compared_and_leads_where_it_is_beyond_chance(tmp_path: Path) -> None:
    labels = ["a"] * 40 + ["b"] * 40 + ["rare"] * 3
    plain = np.array([0.0] * 40 + [1.0] * 40 + [1.0] * 3)
    lora = np.array([1.0] * 30 + [0.0] * 10 + [1.0] * 43)
    scores = {"nearest": plain, "lora": lora, "full": np.zeros(83)}
    result = worth(folder(tmp_path, labels, [None] * 83), arms(), scores, [FINAL], True, 0)
    assert result is not None and (result.model, result.plain) == ("lora", "nearest")
    assert result.difference == 30 / 83 and result.p_value < 1e-6 and result.low < 30 / 83 < result.high
    assert (result.more_ms, result.more_mb) == (50.0, 250.0)
    assert [(lead.name, lead.n, lead.lead) for lead in result.slices] == [("a", 40, 0.75)]
    unlabelled = worth(folder(tmp_path / "free", labels, [None] * 83), arms(), scores, [FINAL], False, 0)
    assert unlabelled is not None and unlabelled.slices == []


@pytest.mark.parametrize(("labels", "named"), [(2, ["label 00"]), (60, [])])
def test_with_many_slices_a_lead_by_chance_is_not_named(tmp_path: Path, labels: int, named: list[str]) -> None:
    """Seven rows won and none lost: p .016, beyond chance for one of two labels, by chance for one of 60."""
    rows = [f"label {i // 10:02d}" for i in range(10 * labels)]
    scores = {"nearest": np.r_[np.zeros(7), np.ones(len(rows) - 7)], "lora": np.ones(len(rows))}
    result = worth(folder(tmp_path, rows, [None] * len(rows)), arms()[:2], scores, [FINAL], True, 0)
    assert result is not None and [lead.name for lead in result.slices] == named


def test_a_slice_with_the_name_of_a_label_is_another_test(tmp_path: Path) -> None:
    scores = {"nearest": np.r_[np.zeros(30), np.ones(50)], "lora": np.ones(80)}
    made = folder(tmp_path, ["a"] * 40 + ["b"] * 40, ["a"] * 30 + [None] * 50)
    result = worth(made, arms()[:2], scores, [FINAL], True, 0)
    assert result is not None and sorted((lead.name, lead.n) for lead in result.slices) == [("a", 30), ("a", 40)]


def test_without_an_arm_of_one_kind_there_is_nothing_to_say(tmp_path: Path) -> None:
    made = folder(tmp_path, ["a"] * 10, [None] * 10)
    for left in (arms()[:1], arms()[1:]):
        assert worth(made, left, {arm.method: np.ones(10) for arm in left}, [FINAL], True, 0) is None
    old = [replace(arm, about=None) for arm in arms()]  # written by 0.1
    assert worth(made, old, {arm.method: np.ones(10) for arm in old}, [FINAL], True, 0) is None


def lines(difference: float, p_value: float, slices: list[SliceLead] | None = None, pick: str = "lora") -> list[str]:
    compared = from_json(Comparison, fake_page.rich(), "test")
    found = Worth("lora", "nearest", difference, difference - 0.02, difference + 0.02, p_value, 50.0, 250.0,
                  slices or [])  # fmt: skip
    picked = [replace(arm, about=PLAIN if arm.method == "nearest" else MODEL) for arm in compared.arms]
    return worth_lines(replace(compared, arms=picked, pick=pick, worth=found))


def test_the_sentences() -> None:
    (pays, where) = lines(0.05, 0.001, [SliceLead("rare", 20, 0.3, 0.1, 0.5, 0.001)])
    assert pays.startswith("A language model pays here where its cost does: lora, the best of them, has +5.0 points of")
    assert pays.endswith("50.0 ms more an answer and 250 MB more of memory: 10.0 ms a point.")
    assert where == "lora leads nearest beyond chance on: rare +30.0 points (+10.0 to +50.0, 20 rows)."
    assert lines(0.05, 0.3)[0].startswith("Whether a language model pays here is open")
    loses = lines(-0.1, 0.001, pick="nearest")
    assert loses[0].startswith("A language model does not pay here: lora, the best of them, has -10.0 points")
    assert loses[1] == "On no slice or label lora leads nearest beyond chance."
    assert loses[2].startswith("A language model could still add what nearest cannot do: answers in its own words")


def test_every_report_has_them() -> None:
    compared = from_json(Comparison, fake_page.rich(), "test")
    found = Worth("lora", "nearest", 0.05, 0.03, 0.07, 0.001, 50.0, 250.0)
    said = replace(compared, worth=found)
    assert "When a language model pays" in markdown.render(said) and "ms a point" in html.render(said, {})
    assert "When a language model pays" not in markdown.render(compared)
