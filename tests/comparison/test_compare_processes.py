"""The one comparison of the session whose arms ran in processes of their own: what only processes can show."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_comparison
from conftest import Finished
from tiny_comparison import METHODS, command, files

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_core")]  # a dozen processes that import torch


def test_every_arm_is_finished_and_every_check_held(finished: Finished) -> None:
    assert [(arm["method"], arm["status"], arm["reason"]) for arm in finished.document["arms"]] == [
        (method, "ok", "") for method in METHODS
    ]
    assert all(check["ok"] for arm in finished.document["arms"] for check in arm["checks"].values())


def test_peak_memory_is_each_arms_own(finished: Finished) -> None:
    peak = {arm["method"]: arm["peak_rss_mb"] for arm in finished.document["arms"]}
    assert peak["nearest"] < 0.6 * peak["lora"], "no model and no torch"
    assert len(set(peak.values())) == len(METHODS)
    for method in METHODS:
        part = finished.out / "arms" / method / "kept"
        fit, result = (json.loads((part / name).read_text()) for name in ("fit.json", "result.json"))
        assert peak[method] == max(fit["peak_rss_mb"], result["peak_rss_mb"])
        assert finished.arm(method)["serve_rss_mb"] == result["serve_rss_mb"] <= result["peak_rss_mb"]
    lora = json.loads((finished.out / "arms/lora/kept/result.json").read_text())
    assert lora["serve_rss_mb"] < lora["peak_rss_mb"], "the merged copy of the check is not part of serving"


def test_an_arms_events_say_the_memory_of_its_process(finished: Finished) -> None:
    told = [json.loads(line) for line in (finished.out / "events.jsonl").read_text().splitlines()]
    for method in METHODS:
        peaks = [each["memory_mb"] for each in told if each.get("method") == method and each.get("memory_mb")]
        assert 0 < max(peaks) <= finished.arm(method)["peak_rss_mb"] + 1


def test_the_folder_holds_what_its_reader_is_told_and_nothing_else(finished: Finished) -> None:
    # without more seeds of a close call, and the shorter runs of a busy machine
    found = {name for name in files(finished.out) if "/seed-" not in name and not name.endswith("/pace.json")}
    common = {"fit.json", "result.json", "predictions.jsonl", "log.txt"}
    common |= {"artifact/riyaz.json", "artifact/training_rows.txt"}
    trained = {"search.json", "learned.jsonl", "held_out.safetensors", "artifact/labels.safetensors"}
    adapter = trained | {"artifact/adapter_config.json", "artifact/adapter_model.safetensors"}
    own: dict[str, set[str]] = {
        "nearest": {"artifact/examples.jsonl", "artifact/examples_index.json"},
        "linear": {"artifact/classifier.json", "artifact/classifier.safetensors"},
        "zero_shot": set(), "instruct": set(), "few_shot": {"artifact/examples.jsonl"},
        "prompt_tuning": adapter,
        "lora": adapter,
        "full": trained | {f"artifact/{name}" for name in (
            "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
            "chat_template.jinja")},
    }  # fmt: skip
    expected = {
        "settings.json", "measured.json", "plan.json", "base.json", "base_kl.safetensors", "measure.log",
        "problems.json", "events.jsonl", "compare.json", "report.html", "report.md", "seconds.json", ".lock",
        *(f"split/kept/{rows}.jsonl" for rows in ("train", "valid", "test")),
    }  # fmt: skip
    for method in METHODS:
        assert {name.removeprefix(f"arms/{method}/kept/") for name in found if f"arms/{method}/" in name} == (
            common | own[method]
        )
        expected |= {f"arms/{method}/kept/{name}" for name in common | own[method]}
    assert found == expected


def test_the_same_plan_gives_the_same_bits(finished: Finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another folder, and no processes: equal weights, equal predictions."""
    inside = tiny_comparison.workers_inside(monkeypatch, as_processes=True)
    for name in ("settings.json", "plan.json", "measured.json", "base.json", "base_kl.safetensors"):
        shutil.copy(finished.out / name, tmp_path)
    again = command(*finished.arguments, "--out", tmp_path, "--json")
    assert again.status == 0 and "measure" not in {work for work, *_ in inside}
    for method, weights in (("lora", "adapter_model.safetensors"), ("full", "model.safetensors")):
        here, there = tmp_path / f"arms/{method}/kept/artifact" / weights, finished.artifact(method) / weights
        assert here.read_bytes() == there.read_bytes()
    for method in METHODS:
        part = f"arms/{method}/kept/predictions.jsonl"
        assert (tmp_path / part).read_bytes() == (finished.out / part).read_bytes()
    scores = [[arm["score"] for arm in document["arms"]] for document in (again.document, finished.document)]
    assert scores[0] == scores[1]
