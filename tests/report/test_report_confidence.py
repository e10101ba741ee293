"""How sure answers are, in the reports: the table, the line and the pictures; and results from before there was any."""

import re
from dataclasses import replace

import numpy as np
import pytest
from fake_comparison import comparison, typed

from riyaz.json_files import from_json, to_document
from riyaz.metrics.calibration import expected_calibration_error
from riyaz.report.comparison import confidence, confidence_pictures, html, markdown
from riyaz.results import Answer, ArmResult, Comparison
from riyaz.scoring import calibration_of


def answers(power: float = 1.0) -> list[Answer]:
    """Answers of which one with confidence c is right with probability c ** power."""
    generator = np.random.default_rng(0)
    sure = generator.beta(3, 2, 300)
    right = generator.random(300) < sure**power
    return [
        Answer(f"test:{row}", "question", ["a"], "a" if hit else "b", float(hit), confidence=float(p), runner_up="b",
               right_probability=float(p if hit else 1 - p), brier=float(2 * (1 - p if hit else p) ** 2))
        for row, (p, hit) in enumerate(zip(sure, right))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Comparison:
    """A comparison with a calibrated arm, one that is too sure, and others without confidences."""
    known = {"lora": calibration_of(answers()), "few_shot": calibration_of(answers(3.0))}
    plain = typed(comparison())
    return replace(plain, arms=[replace(arm, calibration=known.get(arm.method)) for arm in plain.arms])


def test_calibration_is_that_of_the_rows() -> None:
    rows = answers()
    made = calibration_of(rows)
    assert made is not None and made.rows == 300 and sum(count for _, _, count in made.bins) == 300
    sure, right = np.array([row.confidence for row in rows], float), np.array([row.score == 1 for row in rows])
    assert made.ece == expected_calibration_error(sure, right)
    assert made.log_loss == pytest.approx(-np.mean(np.log([row.right_probability or 0.0 for row in rows])))
    assert made.brier == pytest.approx(np.mean([row.brier or 0.0 for row in rows]))
    assert made.risk[-1] == (1.0, pytest.approx(1 - right.mean()))
    assert calibration_of([*rows, replace(rows[0], confidence=None)]) is None and calibration_of([]) is None
    unknown = calibration_of([replace(row, brier=None, right_probability=None) for row in rows])
    assert unknown is not None and unknown.ece == made.ece and unknown.brier is None and unknown.log_loss is None


def test_what_is_beyond_chance_is_said_with_its_band(made: Comparison) -> None:
    line = confidence.line(made.ranked)
    assert re.fullmatch(r"lora 0\.0\d\d, few_shot 0\.3\d\d \(0\.0\d\d to 0\.1\d\d by chance\)", line), line
    assert confidence.line(typed(comparison()).ranked) == ""


def test_the_table_is_in_both_reports(made: Comparison) -> None:
    titles, rows = confidence.table(made.ranked)
    assert [row[0] for row in rows] == ["lora", "few_shot"] and all(len(row) == len(titles) for row in rows)
    text, page = markdown.render(made), html.render(made, {})
    for cell in {cell for row in rows for cell in row}:
        assert cell in text and cell in page
    assert "## How sure the answers are" in text and "15 bins of equal mass" in page
    assert "How sure" not in markdown.render(typed(comparison())) and 'id="sure"' not in html.render(
        typed(comparison()), {}
    )


def test_there_is_a_curve_and_a_panel_for_each_calibrated_method(made: Comparison) -> None:
    for draw in (confidence_pictures.risk, confidence_pictures.reliability):
        drawn = str(draw(made.ranked, "lora", 520, "x"))
        assert drawn.count(">lora<") == drawn.count(">few_shot<") == 1 and ">nearest<" not in drawn
        assert draw(typed(comparison()).ranked, "lora", 520, "x") is None


def test_results_without_confidences_open_and_those_with_them_come_back(made: Comparison) -> None:
    old = from_json(ArmResult, comparison()["arms"][0], "compare.json")
    assert old.calibration is None and "calibration" not in to_document(old)
    assert from_json(Comparison, to_document(made), "compare.json") == made
    row = {"where": "t:1", "prompt": "q", "answers": ["a"], "prediction": "a", "score": 1.0}
    assert from_json(Answer, row, "t").confidence is None
