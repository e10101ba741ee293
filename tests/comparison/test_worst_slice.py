"""The pick's worst slice: its interval, and the warning where another arm is better there by more than chance."""

from dataclasses import replace
from pathlib import Path

import fake_page
import numpy as np

from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.worst_slice import worst_slice
from riyaz.json_files import from_json, write_lines
from riyaz.metrics.intervals import wilson
from riyaz.report.comparison import extra_findings, html, markdown
from riyaz.results import PREDICTIONS, Answer, Comparison, WorstSlice


def folder(path: Path, slices: list[str | None], points: np.ndarray) -> ComparisonFolder:
    made = ComparisonFolder(path)
    run = made.part("lora", FINAL)
    run.mkdir(parents=True)
    rows = [Answer(f"t:{i:03d}", "q", ["a"], "a", float(points[i]), slice=name) for i, name in enumerate(slices)]
    write_lines(run / PREDICTIONS, rows[::-1])  # the order of the file does not matter
    return made


def test_the_worst_slice_has_its_own_interval_and_a_better_arm(tmp_path: Path) -> None:
    slices: list[str | None] = ["easy"] * 40 + ["rare"] * 20 + ["tiny"] * 2 + [None] * 3
    lora = np.array([1.0] * 40 + [0.0] * 14 + [1.0] * 6 + [0.0] * 5)
    full = np.array([0.0] * 40 + [1.0] * 20 + [0.0] * 5)
    found = worst_slice(folder(tmp_path, slices, lora), "lora", {"lora": lora, "full": full}, [FINAL], 0)
    assert found is not None and (found.name, found.n, found.score) == ("rare", 20, 0.3)
    assert (found.ci_low, found.ci_high) == wilson(6, 20)
    assert found.better == "full" and found.lead == 0.7 and (found.p_value or 1) < 0.001


def test_no_arm_is_named_by_chance(tmp_path: Path) -> None:
    slices: list[str | None] = ["easy"] * 40 + ["rare"] * 20
    lora = np.array([1.0] * 40 + [0.0] * 10 + [1.0] * 10)
    scores = {"lora": lora} | {f"arm{i}": np.roll(lora, i) for i in range(3)}
    scores["a little"] = np.array([1.0] * 40 + [0.0] * 6 + [1.0] * 14)
    found = worst_slice(folder(tmp_path, slices, lora), "lora", scores, [FINAL], 0)
    assert found is not None and found.better is None


def test_without_slices_or_pick_there_is_none(tmp_path: Path) -> None:
    points = np.ones(30)
    made = folder(tmp_path, [None] * 30, points)
    assert worst_slice(made, "lora", {"lora": points}, [FINAL], 0) is None
    even = folder(tmp_path / "even", ["a"] * 15 + ["b"] * 15, points)
    assert worst_slice(even, "lora", {"lora": points}, [FINAL], 0) is None  # all alike
    assert worst_slice(made, None, {"lora": points}, [FINAL], 0) is None


def test_the_reports_say_it() -> None:
    compared = from_json(Comparison, fake_page.rich(), "test")
    assert compared.pick is not None
    worst = WorstSlice("rare", 20, 0.3, 0.15, 0.52, "full", 0.7, 0.4, 0.9, 0.0001)
    warned = replace(compared, worst_slice=worst)
    line = extra_findings.worst_slice_line(warned)
    assert line.startswith(f"Warning: {compared.pick} scores lowest on rare: 0.300 (0.150 to 0.520) on 20 rows")
    assert "full is better by more than chance" in line
    assert line in markdown.render(warned) and line in html.render(warned, {})
    calm = replace(compared, worst_slice=WorstSlice("rare", 20, 0.3, 0.15, 0.52))
    assert extra_findings.worst_slice_line(calm).endswith("no other method is better there beyond chance.")
    assert extra_findings.worst_slice_line(compared) == ""
