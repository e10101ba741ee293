"""benchmarks/sweep.py: the flags of a candidate, and the means it is chosen by."""

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
from load_script import ROOT, load_script

from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.json_files import write_json
from riyaz.results import COMPARE, FIT, ArmResult, Comparison, Fit

sys.path.insert(0, str(ROOT / "benchmarks"))  # where it finds accuracy.py, as a script does
sweep = load_script("benchmarks/sweep.py")
sys.path.pop(0)


def test_a_candidate_is_run_once_with_its_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "intents").mkdir()
    rows = tmp_path / "intents/train.jsonl"
    rows.write_text("1\n2\n3\n")
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> None:
        commands.append(command)
        out = Path(command[command.index("--out") + 1])
        write_json(ComparisonFolder(out).part("lora", FINAL) / FIT,
                   Fit({"learning_rate": 0.001, "steps": 9}, {}, 0, 0, 0, None, 0.5, [], 0, 7.4))  # fmt: skip
        write_json(out / COMPARE, Comparison([ArmResult("lora", "ok", score=0.25)], "lora", None, "undecided", ""))

    monkeypatch.setattr(sweep.subprocess, "run", run)
    args = argparse.Namespace(method="lora", model="tiny", out=tmp_path / "out", limit_test=20)
    args.out.mkdir()
    for _ in range(2):
        entry = sweep.one("epochs=4 learning-rate=1e-3", rows, rows, 2, 0, args)
    assert len(commands) == 1
    assert commands[0][-6:] == ["--limit-test", "20", "--epochs", "4", "--learning-rate", "1e-3"]
    assert (entry["set"], entry["valid"], entry["test"], entry["rate"], entry["seconds"]) == (
        "intents", 0.5, 0.25, 0.001, 7,
    )  # fmt: skip


def test_means_are_over_sets_and_seeds_and_leave_out_what_was_not_measured() -> None:
    entries = [{"set": name, "valid": value} for name, value in (("a", 0.2), ("a", 0.4), ("b", 0.9), ("b", None))]
    assert sweep.mean_of(entries, "valid") == pytest.approx(0.5)
    assert sweep.mean_of(entries, "valid", "a") == pytest.approx(0.3)
    assert str(sweep.mean_of(entries, "valid", "c")) == "nan"
