"""`riyaz card`: what was measured, "not measured" elsewhere, and metadata that the hub reads."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import Finished
from huggingface_hub import ModelCard
from tiny_comparison import closed_rows, command, write_rows

from riyaz.card import card
from riyaz.errors import RiyazError
from riyaz.metrics.intervals import wilson
from riyaz.results import ADAPTED


def test_an_arm_has_its_scores_and_costs(quick: Finished) -> None:
    text, arm = card(str(quick.out / "lora"), use="Sort <questions>."), quick.arm("lora")
    data = ModelCard(text).data
    assert data.library_name == "peft" and data.pipeline_tag == "text-classification" and "riyaz" in data.tags
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", round(arm["score"], 4))
    assert result.dataset_name == "test.jsonl"
    assert f"| all | {arm['n_test']} | {arm['score']:.3f} |" in text and "| odd |" in text
    odd = arm["slices"]["odd"]
    low, high = wilson(odd["score"] * odd["n"], odd["n"])
    assert f"| odd | {odd['n']} | {odd['score']:.3f} | {low:.3f} to {high:.3f} |" in text
    assert "Sort &lt;questions>." in text and quick.document["data"]["files"]["train"]["sha256"] in text
    assert "rose by" in text and "Bias, hallucination, context and fragility: not measured." in text
    assert "not known to riyaz" in text  # the licence of the tests' model


def test_an_artifact_alone_says_what_was_not_measured(quick: Finished, tmp_path: Path) -> None:
    folder = shutil.copytree(quick.artifact("zero_shot"), tmp_path / "mine")
    text = card(str(folder))
    assert "# mine" in text and "## Intended use\n\nNot stated." in text
    for part in ("Scores", "Costs", "Forgetting"):
        assert f"## {part}\n\nNot measured." in text
    assert "Rows and slices: not measured" in text and not ModelCard(text).data.eval_results


def test_an_artifact_of_adapt_keeps_what_was_measured(quick: Finished, tmp_path: Path) -> None:
    folder, arm = shutil.copytree(quick.artifact("lora"), tmp_path / "mine"), quick.arm("lora")
    shutil.copy(quick.out / "compare.json", folder / ADAPTED)
    text = card(str(folder))
    assert f"| all | {arm['n_test']} | {arm['score']:.3f} |" in text
    assert f"all answers: ECE {arm['calibration']['ece']:.3f}" in text and "| mean confidence |" in text
    assert len(re.findall(r"^\| [01]\.\d{3} \| [01]\.\d{3} \| \d+ \|$", text, re.MULTILINE)) == len(
        arm["calibration"]["bins"]
    )


def test_limits_are_in_the_card_and_their_gaps_too(quick: Finished, tmp_path: Path) -> None:
    folder = shutil.copytree(quick.artifact("nearest"), tmp_path / "mine")
    rows = write_rows(tmp_path / "rows.jsonl", closed_rows(24, "now"))
    assert command("limits", folder, "--suite", "cost", "--rows", rows).status == 0
    text = card(str(folder))
    assert "### Cost" in text and "It cannot see: This machine" in text
    assert "Bias, Hallucination, Context, How fragile: not measured." in text
    assert str(tmp_path) not in text  # no path of this machine
    assert "There is no base model" in text


def test_the_command_writes_a_file_or_one_line(quick: Finished, model_folder: Path, tmp_path: Path) -> None:
    told = command("card", quick.out / "zero_shot", "--out", tmp_path / "CARD.md")
    assert told.status == 0 and (tmp_path / "CARD.md").read_text().startswith("---\n")
    for target, out, says in (
        (model_folder, tmp_path / "CARD.md", "is no artifact"),
        (quick.out / "zero_shot", tmp_path, "is a folder"),
        (quick.out / "zero_shot", tmp_path / "none" / "CARD.md", "the folder does not exist"),
    ):
        told = command("card", target, "--out", out)
        assert told.status == 2 and says in told.line
    with pytest.raises(RiyazError, match="has no arm"):
        card(str(quick.out / "shoes"))


def test_an_export_begins_with_the_card(quick: Finished, tmp_path: Path) -> None:
    told = command("export", quick.out / "lora", "--format", "peft", "--out", tmp_path / "peft", "--use", "Sorting.")
    assert told.status == 0, told.err
    text = (tmp_path / "peft" / "README.md").read_text()
    assert text.startswith("---\n") and "Sorting." in text and "## This folder" in text and "## Use" in text
    assert ModelCard(text).data.library_name == "peft"
