"""Folders that riyaz 0.1.0 wrote open today and give what the code of 0.1.0 gave; those of a newer riyaz are refused.

`make_old.py` has made the folders of `v0_1/` and `expected.json` with that code.
"""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_comparison import Told, command

from riyaz.errors import RiyazError
from riyaz.results import Comparison, Limits

OLD = Path(__file__).parent / "v0_1"
EXPECTED: dict[str, Any] = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))
MADE_IN = "/tmp/riyaz-0.1-formats"  # as in make_old.py
MOST_BYTES = 500_000
NEWER = "made by a newer riyaz (format 9, this one reads 1)"

COMPARE = (
    "train.jsonl", "--test", "test.jsonl", "--model", "tiny", "--methods", "nearest,zero_shot,few_shot", "--precision",
    "fp32", "--threads", "1", "--seed", "0", "--quiet",
)  # fmt: skip
TERNARIZE = ("small", "text.txt", "--steps", "6", "--learning-rate", "0.001", "--group", "16", "--quiet")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the folders, a store that has the tiny model, and torch on one thread, as they were made with."""
    work = tmp_path_factory.mktemp("old") / "v0_1"
    shutil.copytree(OLD, work)
    for path in work.rglob("*.json"):  # as if the folders lay where they were made
        path.write_text(path.read_text(encoding="utf-8").replace(MADE_IN, str(work)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIYAZ_HOME", str(work / "home"))
        patch.setenv("RIYAZ_NATIVE", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(work)
        torch.set_num_threads(1)
        assert command("pull", "./tiny").status == 0
        yield work


def test_the_folders_are_small_and_hold_no_code() -> None:
    files = [path for path in OLD.rglob("*") if path.is_file()]
    assert len(files) > 40 and sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert not [path for path in files if path.suffix in (".pkl", ".pt", ".pth", ".bin")]
    assert EXPECTED["version"] == "0.1.0"


@pytest.mark.parametrize("name", list(EXPECTED["answers"]))
def test_an_artifact_answers_as_then(old: Path, tmp_path: Path, name: str) -> None:
    rows, out = "questions-test.jsonl" if name == "rag" else "test.jsonl", tmp_path / "answers.jsonl"
    told = command("run", name, rows, "--out", out, "--quiet", "--precision", "fp32")
    assert told.status == 0, told.err
    answers = [json.loads(line)["prediction"] for line in out.read_text().splitlines()]
    assert answers == EXPECTED["answers"][name]


@pytest.mark.parametrize("name", list(EXPECTED["scores"]))
def test_an_artifact_has_the_score_of_then(old: Path, name: str) -> None:
    rows = "questions-test.jsonl" if name == "rag" else "test.jsonl"
    told = command("evaluate", name, "--test", rows, "--precision", "fp32", "--json")
    assert told.status == 0, told.err
    assert told.document["score"] == pytest.approx(EXPECTED["scores"][name])


def test_a_comparison_is_reported_and_its_pick_answers(old: Path) -> None:
    told = command("report", "comparison", "--json")
    assert told.status == 0, told.err
    comparison = Comparison.read(old / "comparison/compare.json")
    report = (old / "comparison/report.md").read_text(encoding="utf-8")
    assert comparison.pick == "nearest" and all(arm.method in report for arm in comparison.arms)
    told = command("evaluate", "comparison", "--test", "test.jsonl", "--json")
    assert told.document["score"] == comparison.arm("nearest").score  # type: ignore[union-attr]


def test_a_stopped_comparison_goes_on_and_repeats_no_finished_arm(old: Path) -> None:
    """It was stopped after few_shot was fitted and before it was evaluated."""
    folder = old / "stopped-comparison"
    fitted = {name: (folder / f"arms/{name}/kept/fit.json").read_bytes() for name in EXPECTED["comparison"]}
    told = command("compare", *COMPARE, "--out", folder)
    assert told.status == 2 and "another comparison (other replay)" in told.line, "its default was 0 then"
    told = command("compare", *COMPARE, "--replay", "0", "--out", folder, "--json")
    assert told.status == 0, told.err
    assert {name: (folder / f"arms/{name}/kept/fit.json").read_bytes() for name in fitted} == fitted
    scores = {arm["method"]: arm["score"] for arm in told.document["arms"]}
    assert scores == pytest.approx(EXPECTED["comparison"])
    assert command("verify", folder).status == 0


@pytest.mark.parametrize("name", list(EXPECTED["likeliest"]))
def test_a_ternary_or_quantized_model_has_the_probabilities_of_then(old: Path, name: str) -> None:
    told = command("predict", "the baker sees", "--model", name, "--top", "5", "--precision", "fp32", "--json")
    assert told.status == 0, told.err
    tokens, probabilities = zip(*EXPECTED["likeliest"][name])
    assert [row["token"] for row in told.document["before"]] == [*tokens]
    assert [row["probability"] for row in told.document["before"]] == pytest.approx(probabilities, rel=1e-4)


def test_a_stopped_ternarize_goes_on_from_its_checkpoint_to_the_same_loss(old: Path) -> None:
    told = command("ternarize", *TERNARIZE, "--out", "ternarizing", "--resume", "--json")
    assert told.status == 0, told.err
    assert told.document["loss"] == pytest.approx(EXPECTED["ternary_loss"], abs=1e-3)
    assert told.document["loss_rounded"] - told.document["loss"] > 0.01, "it was trained"


def test_limits_are_read_and_those_of_a_newer_riyaz_are_refused(tmp_path: Path) -> None:
    limits = Limits.read(OLD / "limits/limits.json")
    assert [suite.name for suite in limits.suites] == ["fragile"]
    shutil.copy(OLD / "limits/limits.json", tmp_path)
    raised(tmp_path / "limits.json", "schema")
    with pytest.raises(RiyazError, match=r"made by a newer riyaz .*update riyaz"):
        Limits.read(tmp_path / "limits.json")


@pytest.mark.parametrize("question", list(EXPECTED["found"]))
def test_a_collection_finds_what_it_found(old: Path, question: str) -> None:
    told = command("rag", "ask", "rag/collection.sqlite", question, "--json")
    assert told.status == 0, told.err
    made = [[each[key] for key in ("doc_id", "start", "end", "score")] for each in told.document["passages"]]
    assert [each[:3] for each in made] == [each[:3] for each in EXPECTED["found"][question]]
    assert [each[3] for each in made] == pytest.approx([each[3] for each in EXPECTED["found"][question]])


def test_a_collection_is_sound(old: Path) -> None:
    assert command("rag", "verify", "rag/collection.sqlite").status == 0


def test_a_stopped_pretraining_goes_on_from_its_checkpoint_to_the_same_weights(old: Path) -> None:
    from safetensors.numpy import load_file

    lines = (old / "pretraining/metrics.jsonl").read_bytes().splitlines()
    told = command("pretrain", "text.txt", "--out", "pretraining", "--resume", "--quiet", "--json")
    assert told.status == 0, told.err
    after = (old / "pretraining/metrics.jsonl").read_bytes().splitlines()
    assert len(after) == 6 and after[:4] == lines[:4], "the first steps were trained again"
    assert told.document["result"]["valid_loss"] == pytest.approx(EXPECTED["loss"]["valid_loss"], abs=1e-5)
    assert load_file(old / "pretraining/model.safetensors")


def raised(path: Path, key: str) -> None:
    """The JSON document with a number that no riyaz knows yet."""
    path.write_text(json.dumps({**json.loads(path.read_text()), key: 9}))


def refused(told: Told) -> None:
    assert told.status == 2 and NEWER in told.line and told.line.endswith("update riyaz"), told.err


@pytest.mark.parametrize(
    ("file", "key", "arguments"),
    [
        ("nearest/riyaz.json", "format", ("evaluate", "nearest", "--test", "test.jsonl")),
        ("comparison/compare.json", "schema", ("report", "comparison")),
        ("pretraining/run.json", "schema", ("pretrain", "text.txt", "--out", "pretraining", "--resume")),
        ("pretraining/plan.json", "format", ("pretrain", "text.txt", "--out", "pretraining", "--resume")),
        ("pretraining/work/train/step-000004/MANIFEST.json", "format",
         ("pretrain", "text.txt", "--out", "pretraining", "--resume")),
    ],
)  # fmt: skip
def test_a_folder_of_a_newer_riyaz_is_refused_in_one_line(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, key: str, arguments: tuple[str, ...]
) -> None:
    shutil.copytree(OLD, tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    raised(Path(file), key)
    refused(command(*arguments))


def test_a_collection_of_a_newer_riyaz_is_refused_in_one_line(old: Path, tmp_path: Path) -> None:
    newer = shutil.copy(OLD / "rag/collection.sqlite", tmp_path / "collection.sqlite")
    with sqlite3.connect(newer) as database:
        database.execute("UPDATE meta SET value = '9' WHERE key = 'version'")
    refused(command("rag", "ask", newer, "when does it open?"))
