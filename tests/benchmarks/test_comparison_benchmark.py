"""benchmarks/comparison.py: the commands of riyaz, what the peer is given, and the last line of a run with both."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
from load_script import load_script
from script_here import run_here

from riyaz.config import CompareConfig
from riyaz.metrics.paired import paired_test

FOLDER = Path(__file__).parents[2] / "benchmarks"
LABELS = ("billing", "delivery", "refund")


@pytest.fixture(scope="module")
def comparison() -> ModuleType:
    return load_script("benchmarks/comparison.py")


def arm(scores: list[int], seconds: float, memory: float = 100.0) -> dict[str, Any]:
    return {"scores": [float(score) for score in scores], "seconds": seconds, "rss_mb": memory, "chosen": {}}


def test_one_command_gives_each_method_that_trains_its_learning_rate(comparison: ModuleType) -> None:
    args = argparse.Namespace(train="a", test="b", model="m", limit_train=40, limit_test=20, epochs=3)

    def given(*methods: str) -> dict[str, str]:
        words = comparison.command_of(methods, args, Path("out"))
        return {word: words[i + 1] for i, word in enumerate(words[:-1]) if word.startswith("--")}

    words = given(*comparison.METHODS)
    assert words["--methods"] == "zero_shot,few_shot,prompt_tuning,lora,full"
    assert CompareConfig(learning_rate=words["--learning-rate"]).learning_rate == comparison.RATES
    assert (words["--epochs"], words["--batch-size"]) == ("3", "8")
    assert given("few_shot", "full")["--learning-rate"] == "full=5e-05"
    assert not {"--learning-rate", "--epochs"} & given("zero_shot").keys(), "no method that runs would take them"


def test_the_summary_takes_each_arm_of_the_peer_at_its_faster_type(comparison: ModuleType) -> None:
    ours = {"lora": arm([1, 1, 1, 0], 10.0), "full": arm([1, 0, 1, 0], 30.0)}
    theirs = {
        "float32": {"lora": arm([1, 0, 1, 0], 100.0, 400.0), "full": arm([1, 0, 1, 0], 200.0)},
        "bfloat16": {"lora": arm([1, 0, 0, 0], 300.0), "full": arm([0, 0, 1, 0], 100.0)},
    }
    table = comparison.summary(ours, 50.0, theirs)
    assert table["peer_seconds"] == {"float32": 300.0, "bfloat16": 400.0, "best": 200.0}
    assert table["ratio_total"] == {"float32": 6.0, "bfloat16": 8.0, "best": 4.0}
    row = table["arms"]["lora"]["float32"]
    assert (row["accuracy"], row["difference"], row["ratio_seconds"], row["ratio_rss"]) == (0.5, 25.0, 10.0, 0.25)
    bounds = [paired_test(np.array(a), np.array(b)).low for a, b in (
        ([1, 1, 1, 0], [1, 0, 1, 0]), ([1, 0, 1, 0], [1, 0, 1, 0]), ([1, 1, 1, 0], [1, 0, 0, 0]),
        ([1, 0, 1, 0], [0, 0, 1, 0]),
    )]  # fmt: skip
    assert table["lowest"] == round(100 * min(bounds), 1)
    assert "ratio_total" not in comparison.summary(ours, 50.0, {})


def test_the_peer_pads_rows_and_labels_answers_only() -> None:
    peer = load_script("benchmarks/comparison_peer.py")
    tokenizer = type("", (), {"pad_token_id": 9})
    batch = peer.padded(tokenizer, [([1, 2, 3, 4], 2), ([5, 6], 1)])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [5, 6, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 3, 4], [-100, 6, -100, -100]]


@pytest.mark.slow
def test_both_sides_run_and_the_last_line_is_the_table(
    inside: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Riyaz's command and the peer's arms in this process; they have processes of their own."""
    ran = []

    def run(command: list[str], **options: Any) -> Any:
        if command[1] == "-m":
            assert "riyaz.cli.main" in command and tiny_comparison.command(*command[3:]).status == 0
            return None
        ran.append(command[2])
        return run_here(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    model = tiny_llama.write_hf_folder(tmp_path / "model")
    for name, count in (("train", 40), ("test", 16)):
        rows = [{"text": f"{name} {i}: where is it?", "label": LABELS[i % 3]} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    command = [sys.executable, FOLDER / "comparison.py", "--peer", "--model", model, "--train", train,
               "--test", test, "--limit-train", "32", "--limit-test", "12", "--epochs", "1",
               "--only", "few_shot", "--only", "lora", "--type", "float32"]  # fmt: skip
    lines = run_here(command).stdout.splitlines()
    table = json.loads(lines[-1])
    assert lines[0].startswith("estimate: ") and set(table["arms"]) == {"few_shot", "lora"} == set(ran)
    assert ("fit", "lora", "kept") in inside
    for sides in table["arms"].values():
        assert sides["riyaz"]["seconds"] > 0 and sides["float32"]["seconds"] > 0 and sides["float32"]["rss_mb"] > 0
    assert table["ratio_total"].keys() == {"float32", "best"}
