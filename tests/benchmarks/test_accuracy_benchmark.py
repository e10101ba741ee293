"""benchmarks/accuracy.py: which rows are trained on, and what choosing costs on rows that did not choose."""

from pathlib import Path

import numpy as np
import pytest
from load_script import load_script

from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.json_files import write_lines
from riyaz.results import PREDICTIONS, Answer, ArmResult, Comparison, Data

accuracy = load_script("benchmarks/accuracy.py")


def compared(path: Path, scores: dict[str, np.ndarray]) -> Comparison:
    for name, points in scores.items():
        run = ComparisonFolder(path).part(name, FINAL)
        run.mkdir(parents=True)
        rows = [Answer(f"t:{i:03d}", "q", ["a"], "a", float(point)) for i, point in enumerate(points)]
        write_lines(run / PREDICTIONS, rows)
    arms = [
        ArmResult(name, "ok", score=float(points.mean()), n_test=len(points), ms_per_answer=float(place))
        for place, (name, points) in enumerate(scores.items())
    ]
    return Comparison(arms, "cheap", None, "undecided", "", data=Data(rows={"train": 10}))


def test_the_rows_are_the_first_of_a_seeded_order(tmp_path: Path) -> None:
    rows, table = tmp_path / "rows.jsonl", tmp_path / "rows.csv"
    rows.write_text("".join(f"{i}\n" for i in range(50)))
    table.write_text("text,label\n" + "".join(f"{i},a\n" for i in range(50)))
    drawn = accuracy.drawn_lines(rows, 10, 1)
    assert drawn == accuracy.drawn_lines(rows, 20, 1)[:10] != accuracy.drawn_lines(rows, 10, 2)
    assert sorted(accuracy.drawn_lines(rows, None, 3)) == sorted(f"{i}\n" for i in range(50))
    assert accuracy.drawn_lines(table, 5, 0)[0] == "text,label\n" and len(accuracy.drawn_lines(table, 5, 0)) == 6


def test_regret_is_nothing_where_one_arm_is_best_on_every_row(tmp_path: Path) -> None:
    best, worse = np.ones(400), np.zeros(400)
    result = compared(tmp_path, {"cheap": best, "dear": worse})
    assert accuracy.regret(ComparisonFolder(tmp_path), result, 0) == 0.0


def test_regret_is_the_lead_of_the_better_arm_over_the_cheaper_one_that_the_margin_allows(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).random(6000)
    dear = (draws < 0.9).astype(float)
    cheap = np.where(draws < 0.003, 0.0, dear)  # .3 points below, within the margin of a point
    result = compared(tmp_path, {"cheap": cheap, "dear": dear})
    lost = accuracy.regret(ComparisonFolder(tmp_path), result, 0)
    assert lost == pytest.approx(float((dear - cheap).mean()), abs=0.002) and lost > 0


def test_the_interval_of_a_mean() -> None:
    mean, low, high = accuracy.interval_of([0.0, 1.0, 2.0, 3.0])
    assert mean == 1.5 and low == pytest.approx(1.5 - 3.1824463 * np.sqrt(5 / 3) / 2) and high == pytest.approx(3 - low)
    assert accuracy.interval_of([0.5]) == (0.5, 0.5, 0.5)
