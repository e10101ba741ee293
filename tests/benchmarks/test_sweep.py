"""benchmarks/sweep.py: the flags of a candidate, and the means it is chosen by."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from load_script import ROOT, load_script

sys.path.insert(0, str(ROOT / "benchmarks"))  # where it finds accuracy.py, as a script does
sweep = load_script("benchmarks/sweep.py")
sys.path.pop(0)


def test_a_candidate_is_run_once_with_its_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "intents").mkdir()
    rows = tmp_path / "intents/train.jsonl"
    rows.write_text("1\n2\n3\n")
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        curve = [{"step": 8, "loss": 1.0}, {"step": 9, "loss": 0.9, "valid_loss": 1.2, "valid_accuracy": 0.5}]
        arm = {"chosen": {"learning_rate": 0.001, "steps": 9}, "curve": curve, "score": 0.25, "forgetting_nats": None,
               "train_seconds": 5.0, "search_seconds": 2.4}  # fmt: skip
        return subprocess.CompletedProcess(command, 0, f"its line\n{json.dumps(arm)}\n")

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
