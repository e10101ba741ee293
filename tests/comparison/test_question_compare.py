"""A whole comparison of methods on rows that answer three typed questions, and what is done with its artifacts."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
from conftest import Finished
from rich.console import Console
from tiny_comparison import command, strict

from riyaz.comparison.folder import ComparisonFolder
from riyaz.predictor import open_artifact
from riyaz.report.comparison import terminal
from riyaz.results import Comparison

METHODS = ("nearest", "linear", "zero_shot", "prompt_tuning", "lora", "full")  # without minilm and documents
TYPES = {"urgent": "predicate", "team": "choice", "mood": "score"}
QUESTIONS = [
    {"name": "urgent", "type": "predicate", "instructions": "Is it urgent?"},
    {"name": "team", "type": "choice", "instructions": "Who answers?", "column": "label",
     "choices": [{"value": "billing", "description": "invoices"}, {"value": "delivery"}, {"value": "refund"}]},
    {"name": "mood", "type": "score", "instructions": "How content is the writer?",
     "levels": [{"label": "1"}, {"label": "2"}, {"label": "3"}]},
]  # fmt: skip


def rows(count: int, ending: str) -> list[dict[str, Any]]:
    """Rows whose words say every answer, some of which are missing."""
    made: list[dict[str, Any]] = []
    for i, row in enumerate(tiny_comparison.closed_rows(count, ending)):
        urgent, mood = (i // 3) % 2 == 0, i % 3
        text = f"{row['text']} {'at once' if urgent else 'some time'} {('awful', 'fine', 'lovely')[mood]}"
        made.append(row | {"text": text, "urgent": None if i % 5 == 2 else urgent, "mood": mood + 1})
        if i % 7 == 3:
            made[-1]["label"] = None
    return made


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, home: Path, model_folder: Path) -> Finished:
    """The comparison, with workers inside this process; nobody writes into it."""
    folder = tmp_path_factory.mktemp("questions")
    tiny_comparison.write_rows(folder / "data/train.jsonl", rows(45, "please"))
    tiny_comparison.write_rows(folder / "data/test.jsonl", rows(18, "today"))
    (folder / "q.json").write_text(json.dumps({"questions": QUESTIONS}))
    arguments = ("compare", folder / "data", "--questions", folder / "q.json", "--model", model_folder,
                 "--budget", "3h", "--seed", 3)  # fmt: skip
    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch)
        told = command(*arguments, "--out", folder / "out", "--json")
    assert told.status == 0, told.err
    return Finished(arguments, folder / "out", told, told.document)


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    return tiny_comparison.write_rows(tmp_path / "new.jsonl", [{"text": row["text"]} for row in rows(4, "tomorrow")])


def test_an_arms_score_is_the_mean_over_its_questions(compared: Finished) -> None:
    document = compared.document
    assert [arm["method"] for arm in document["arms"]] == list(METHODS) and document["data"]["metric"] == "decisions"
    for arm in document["arms"]:
        assert (arm["status"], arm["metric"], arm["n_test"]) == ("ok", "decisions", 18), arm["reason"]
        assert {each["name"]: (each["type"], each["n"]) for each in arm["questions"]} == {
            "urgent": ("predicate", 14), "team": ("choice", 15), "mood": ("score", 18),
        }  # fmt: skip
        assert arm["score"] == pytest.approx(np.mean([each["score"] for each in arm["questions"]]))
        assert 0 <= arm["ci_low"] <= arm["score"] <= arm["ci_high"] <= 1
        for each in arm["questions"]:
            assert 0 <= each["ci_low"] <= each["score"] <= each["ci_high"] <= 1 and 0 <= each["auroc"] <= 1
            assert 0 <= each["calibration"]["ece"] <= 1 and each["calibration"]["log_loss"] > 0
        assert set(arm["slices"]) == {"even", "odd"} and all(check["ok"] for check in arm["checks"].values())
    assert compared.arm("linear")["score"] > 0.9 > document["floor"]["score"] > 0.3
    assert set(json.loads(document["floor"]["answer"])) == set(TYPES)
    assert len(document["pairs"]) == math.comb(len(METHODS), 2) and document["pick"] in ("nearest", "linear")
    assert all(-1 <= pair["low"] <= pair["high"] <= 1 for pair in document["pairs"])


def test_missing_answers_and_left_out_methods_are_noted(compared: Finished) -> None:
    assert "train.jsonl: 9 of 45 rows have no answer to 'urgent'" in compared.told.err
    assert "few_shot answers no typed questions, which these rows do: left out" in compared.told.err
    for method in ("few_shot", "rag", "ensemble"):
        told = command(*compared.arguments, "--out", compared.out.parent / "named", "--methods", f"lora,{method}",
                       "--documents", compared.out.parent / "data")  # fmt: skip
        assert told.status == 2 and f"{method} answers no typed questions" in told.line


def test_predictions_hold_every_answer_and_give_the_scores(compared: Finished) -> None:
    for arm in compared.document["arms"]:
        path = compared.artifact(arm["method"]).parent / "predictions.jsonl"
        lines = [strict(line) for line in path.read_text().splitlines()]
        for place, each in enumerate(arm["questions"]):
            known = [line["decided"][place] for line in lines if line["decided"][place]["right"] is not None]
            assert len(known) == each["n"] and each["score"] == pytest.approx(np.mean([one["points"] for one in known]))
            assert all(sum(one["probabilities"]) == pytest.approx(1, abs=1e-4) for one in known)
        assert all(0 <= line["score"] <= 1 for line in lines), "of a row by itself"
        assert all(set(json.loads(line["prediction"])) == set(TYPES) for line in lines)
        predictor = open_artifact(compared.artifact(arm["method"]))
        assert predictor.answer([{"role": "user", "content": lines[0]["prompt"]}]) == lines[0]["prediction"]


def test_the_reports_go_question_by_question(compared: Finished) -> None:
    page, text = ((compared.out / f"report.{kind}").read_text() for kind in ("html", "md"))
    for report in (page, text):
        assert "Question by question" in report and "AUROC" in report
        assert all(name in report for name in TYPES)
    assert "typed questions" in page
    shown = io.StringIO()
    terminal.print_comparison(Comparison.read(compared.out / "compare.json"), Console(file=shown, width=200))
    assert all(f"question  {name}  {compared.document['pick']}" in shown.getvalue() for name in TYPES)


def test_the_same_command_continues_and_other_questions_are_refused(
    compared: Finished, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIYAZ_HOME", str(home))
    told = command(*compared.arguments, "--out", compared.out, "--dry-run")
    assert told.status == 0, told.err
    settings = ComparisonFolder(compared.out).settings()
    assert [question.column for question in settings.task.questions] == ["urgent", "label", "mood"]
    turned = [*QUESTIONS[:2], QUESTIONS[2] | {"instructions": "How cross is the writer?"}]
    (tmp_path / "other.json").write_text(json.dumps({"questions": turned}))
    arguments = [tmp_path / "other.json" if str(each).endswith("q.json") else each for each in compared.arguments]
    told = command(*arguments, "--out", compared.out, "--dry-run")
    assert told.status == 2 and "this folder holds another comparison" in told.line and "methods" not in told.line


@pytest.mark.parametrize("method", ["linear", "lora", "zero_shot"])
def test_an_artifact_is_evaluated_and_answers_files(
    method: str, compared: Finished, tmp_path: Path, unlabelled: Path
) -> None:
    artifact, arm = compared.artifact(method), compared.arm(method)
    told = command("evaluate", artifact, "--test", compared.out.parent / "data/test.jsonl", "--json")
    assert told.status == 0, told.err
    assert told.document["score"] == pytest.approx(arm["score"]) and told.document["metric"] == "decisions"
    for suffix in ("jsonl", "csv"):
        told = command("run", artifact, unlabelled, "--out", tmp_path / f"answers.{suffix}")
        assert told.status == 0, told.err
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and all(set(json.loads(line["prediction"])) == set(TYPES) for line in lines)
    told = command("evaluate", artifact, "--test", unlabelled)
    assert told.status == 2 and "there is no column 'urgent' for the question 'urgent'" in told.line


def test_a_card_is_written_and_limits_are_refused(compared: Finished, tmp_path: Path) -> None:
    for method in ("linear", "lora"):
        told = command("card", compared.artifact(method), "--out", tmp_path / "CARD.md")
        assert told.status == 0, told.err
        assert "urgent" in (tmp_path / "CARD.md").read_text()
        told = command("limits", compared.artifact(method))
        assert told.status == 2 and "answers several questions" in told.line


@pytest.mark.parametrize("method", METHODS)
def test_no_export_loses_the_questions(method: str, compared: Finished, tmp_path: Path) -> None:
    for kind in ("hf", "gguf", "peft", "gguf-lora", "mlx", "numpy"):
        told = command("export", compared.artifact(method), "--format", kind, "--out", tmp_path / kind)
        assert told.status == 2 and told.line, (kind, told)
        assert not (tmp_path / kind).exists()
        if method in ("linear", "prompt_tuning", "lora", "full"):
            assert "answers several questions, each by a head of its own" in told.line


def test_one_question_is_compared_with_the_options_of_a_folder(model_folder: Path, tmp_path: Path, inside: Any) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/riyaz.toml").write_text('questions = "one.json"\n')
    (tmp_path / "data/one.json").write_text(json.dumps({"questions": QUESTIONS[2:]}))
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", rows(45, "please"))
    told = command("compare", tmp_path / "data", "--model", model_folder, "--methods", "nearest,zero_shot",
                   "--budget", "3h", "--out", tmp_path / "out", "--json")  # fmt: skip
    assert told.status == 0, told.err
    for arm in told.document["arms"]:
        (each,) = arm["questions"]
        assert (each["name"], each["n"], arm["n_test"]) == ("mood", 45, 45), "over five folds"
        assert each["score"] == pytest.approx(arm["score"])
