"""`riyaz compare --limits`: which arms are measured, in what order and time, and that the reports show it."""

import shutil
from pathlib import Path

import pytest
import tiny_comparison
from conftest import Finished

from riyaz.comparison import limit_runs, processes
from riyaz.comparison.folder import ComparisonFolder
from riyaz.events import Event, Note
from riyaz.limits import cost, run
from riyaz.results import COMPARE, Comparison, Limits

pytestmark = pytest.mark.usefixtures("one_core")


def copied(quick: Finished, tmp_path: Path) -> tuple[ComparisonFolder, Comparison]:
    folder = ComparisonFolder(shutil.copytree(quick.out, tmp_path / "out"))
    return folder, Comparison.read(folder.path / COMPARE)


def test_a_finished_comparison_gets_its_limits_later(
    quick: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = copied(quick, tmp_path)
    done = tiny_comparison.workers_inside(monkeypatch)
    monkeypatch.setattr(run, "MODULES", dict.fromkeys(run.SUITES, cost))
    arguments = [*quick.arguments, "--out", folder.path, "--limits"]
    assert tiny_comparison.command(*arguments).status == 0
    measured = [work[1] for work in done if work[0] == "limits"]
    assert measured == [arm.method for arm in limit_runs.in_order(before)] and measured[0] == before.pick
    kept = Limits.read(folder.part(measured[0], "kept") / "artifact" / "limits.json")
    assert kept.suites[0].parts and kept.command == f"riyaz compare --limits ({measured[0]})"
    assert "What it cannot do" in (folder.path / "report.html").read_text(encoding="utf-8")
    done.clear()
    assert tiny_comparison.command(*arguments).status == 0 and not done  # nothing is measured twice


def test_the_pick_is_measured_first_and_the_rest_is_said(
    quick: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, comparison = copied(quick, tmp_path)
    asked, events = [], list[Event]()
    count = len(limit_runs.in_order(comparison))
    left = iter([30.0 * count, 10.0 * (count - 1)])

    def measured(arguments: list[str], *_: object) -> str:
        asked.append(arguments)
        return "it broke"

    monkeypatch.setattr(processes, "run_worker", measured)
    limit_runs.measure(folder, comparison, lambda: next(left), events.append)
    assert [each[0] for each in asked] == ["limits"] and asked[0][2:] == [comparison.pick, "30"]
    notes = [each.text for each in events if isinstance(each, Note)]
    assert notes[0] == f"the limits of {comparison.pick} were not measured: it broke"
    assert notes[1].startswith("no time left for the limits of ")


def test_the_time_of_the_limits_is_told_with_the_plan(quick: Finished, tmp_path: Path) -> None:
    arguments = [*quick.arguments, "--out", tmp_path / "new", "--limits", "--dry-run"]
    told = tiny_comparison.command(*arguments, "--methods", "nearest,zero_shot")
    assert told.status == 0, told.err
    assert "a fifth of the budget is kept" in told.err
