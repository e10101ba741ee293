"""The comparison of two captures (tests/same.py) reports every difference and nothing else."""

import json
from pathlib import Path
from typing import Any

import same


def captured(folder: Path, **changes: Any) -> Path:
    """A small capture: a document, weights, predictions, words and progress."""
    document = {"arms": [{"method": "lora", "score": 0.5, "train_seconds": 3.0}], "command": f"riyaz {folder}"}
    files = {
        "run/compare.json": json.dumps(document),
        "run/model.safetensors": "weights",
        "run/predictions.jsonl": '{"prediction": "a"}\n',
        "run/report.html": "<p>words</p>",
        "run/events.jsonl": "{}",
    } | changes
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def compared(folder: Path, **changes: Any) -> tuple[list[str], list[str]]:
    """(differences, other words) of a capture and one with other files."""
    wrong, words, _ = same.compare(captured(folder / "old"), captured(folder / "new", **changes))
    return wrong, words


def test_two_equal_captures_have_one_hash_for_each_file_but_documents_that_name_the_folder(tmp_path: Path) -> None:
    wrong, words, hashes = same.compare(captured(tmp_path / "old"), captured(tmp_path / "new"))
    assert (wrong, words) == ([], [])
    assert list(hashes) == ["run/model.safetensors", "run/predictions.jsonl", "run/report.html"]


def test_ignored_keys_and_progress_are_ignored(tmp_path: Path) -> None:
    document = {"arms": [{"method": "lora", "score": 0.5, "train_seconds": 9.0}], "command": "another"}
    changes = {"run/compare.json": json.dumps(document), "run/events.jsonl": "other progress"}
    assert compared(tmp_path, **changes) == ([], [])


def test_another_score_weight_answer_or_file_is_one_line(tmp_path: Path) -> None:
    document = {"arms": [{"method": "lora", "score": 0.25, "steps": 4}], "command": ""}
    changes = {
        "run/compare.json": json.dumps(document),
        "run/model.safetensors": "weighty",
        "run/predictions.jsonl": '{"prediction":"a"}\n',
        "run/extra.gguf": "more",
    }
    wrong, words = compared(tmp_path, **changes)
    assert [line.partition(":")[0] for line in wrong] == [
        "run/extra.gguf", "run/compare.json", "run/compare.json", "run/model.safetensors", "run/predictions.jsonl",
    ]  # fmt: skip
    assert wrong[1:3] == [
        "run/compare.json: .arms[0].score 0.5 became 0.25",
        "run/compare.json: .arms[0].steps (missing) became 4",
    ]
    assert words == []


def test_other_words_are_no_difference(tmp_path: Path) -> None:
    wrong, words = compared(tmp_path, **{"run/report.html": "<p>other</p>"})
    assert (wrong, words) == ([], ["run/report.html: 2 lines with other words"])
