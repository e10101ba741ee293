"""The arm `encoder` in a comparison: its place in the plan, its row, and the note where minilm is missing."""

import json
from pathlib import Path

import pytest
import tiny_bert
from tiny_comparison import closed_rows, command, write_rows

from riyaz.methods.fitting import encoder_training

pytestmark = pytest.mark.usefixtures("inside", "in_float32")


@pytest.fixture
def arguments(tmp_path: Path, own_store: Path, model_folder: Path) -> tuple[object, ...]:
    write_rows(tmp_path / "data/train.jsonl", closed_rows(45, "please"))
    write_rows(tmp_path / "data/test.jsonl", closed_rows(18, "today"))
    return (
        "compare",
        tmp_path / "data",
        "--model",
        model_folder,
        "--budget",
        "3h",
        "--out",
        tmp_path / "out",
        "--json",
    )


def test_it_is_planned_trained_and_evaluated(
    tmp_path: Path, own_store: Path, arguments: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bert.keep(own_store)
    monkeypatch.setattr(encoder_training, "RATE", 1e-3)
    monkeypatch.setattr(encoder_training, "BATCH", 8)
    told = command(*arguments, "--methods", "nearest,encoder")
    assert told.status == 0, told.err
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    planned = next(arm for arm in plan["arms"] if arm["method"] == "encoder")
    assert planned["seconds"]["fit"] > 0 and planned["steps"] == 0 and plan["estimate"]["disk_mb"] > 5
    arm = next(arm for arm in told.document["arms"] if arm["method"] == "encoder")
    assert arm["status"] == "ok" and arm["score"] > 0.8 and arm["checks"]["vectors_equal"]["ok"]
    assert arm["train_seconds"] > 0 and arm["search_seconds"] > 0
    predictions = [json.loads(line) for line in (tmp_path / "out/arms/encoder/kept/predictions.jsonl").open()]
    assert len(predictions) == 18 and all(0 < row["confidence"] <= 1 and row["runner_up"] for row in predictions)


def test_without_minilm_it_takes_no_part_and_a_note_says_why(arguments: tuple[object, ...]) -> None:
    told = command(*arguments, "--dry-run")
    assert told.status == 0, told.err
    assert "encoder trains minilm, which has not been pulled yet (`riyaz pull minilm`): left out" in told.err
    named = command(*arguments, "--methods", "nearest,encoder")
    assert named.status != 0 and named.line.endswith("run `riyaz pull minilm`"), named.err
