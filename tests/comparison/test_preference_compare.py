"""A comparison on pairs of answers: every arm is judged by them, and two methods learn from both answers."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison

from riyaz.adapters import peft
from riyaz.artifact import Artifact
from riyaz.data.formats import load
from riyaz.families import describe
from riyaz.predictor import open_artifact
from riyaz.preferences import dpo as preferences_dpo
from riyaz.results import LEARNED, Learned
from riyaz.scoring import answer_pairs, preferred
from riyaz.sources import open_source

METHODS = ("zero_shot", "lora", "dpo", "orpo", "kto")
TRAINED_ON_PAIRS = METHODS[2:]


def pair_rows(count: int, ending: str) -> list[dict[str, Any]]:
    """Questions with two answers, of which the base finds the worse one likelier."""
    return [
        {"prompt": f"where is order {n} {ending}", "chosen": f"money payment {n} the the refund",
         "rejected": f"the order {n} did arrive, thank you"}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, home: Path, asked: tuple) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pairs")
    tiny_comparison.write_rows(folder / "data/train.jsonl", pair_rows(60, "please"))
    tiny_comparison.write_rows(folder / "data/test.jsonl", pair_rows(20, "today"))
    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch)
        told = tiny_comparison.command(
            "compare", folder / "data", *asked, "--methods", ",".join(METHODS), "--learning-rate",
            "lora=1e-2,dpo=1e-2,orpo=1e-2,kto=1e-2", "--out", folder / "out",
        )  # fmt: skip
    assert told.status == 0, told.err
    return folder, told.document


def test_every_arm_is_judged_by_the_pairs(judged: tuple[Path, dict[str, Any]]) -> None:
    _, document = judged
    arms = {arm["method"]: arm for arm in document["arms"]}
    assert [arm["status"] for arm in document["arms"]] == ["ok"] * 5 and {
        arm["metric"] for arm in document["arms"]
    } == {"preferred"}
    assert document.get("floor") is None
    assert arms["zero_shot"]["score"] < 0.2 and min(arms[name]["score"] for name in TRAINED_ON_PAIRS) > 0.8
    assert "reward" not in arms["zero_shot"]["extras"], "the base has no reward over itself"
    assert min(arms[name]["extras"]["reward"] for name in TRAINED_ON_PAIRS) > 0.9


def test_what_pairs_have_trained_is_a_lora_that_is_served_as_it_was_measured(
    judged: tuple[Path, dict[str, Any]], model_folder: Path
) -> None:
    folder, document = judged
    arms = {arm["method"]: arm for arm in document["arms"]}
    for name in TRAINED_ON_PAIRS:
        artifact = folder / f"out/arms/{name}/kept/artifact"
        assert Artifact.read(artifact).weights.kind == "lora"
        assert peft.read(artifact, describe(open_source(model_folder))).pairs
        answers = [json.loads(line) for line in (artifact.parent / "predictions.jsonl").read_text().splitlines()]
        assert sum(row["score"] for row in answers) / len(answers) == pytest.approx(arms[name]["score"])
        predictor = open_artifact(artifact)
        assert predictor.has_model
        rows = load(folder / "data/test.jsonl").examples
        assert preferred(answer_pairs(predictor, rows)).mean() == pytest.approx(arms[name]["score"])


def test_the_better_answer_is_recorded_at_every_validation(judged: tuple[Path, dict[str, Any]]) -> None:
    folder, document = judged
    arms = {arm["method"]: arm for arm in document["arms"]}
    for name in TRAINED_ON_PAIRS:
        kept = folder / f"out/arms/{name}/kept"
        lines = Learned.read(kept / LEARNED)
        validated = [entry["step"] for entry in arms[name]["curve"] if "valid_loss" in entry]
        assert [line.step for line in lines] == [0, *validated] and len(validated) > 1
        for line in lines:
            answer = "".join(each.text for each in line.text[line.answer :])
            assert "money payment" in answer and "did arrive" not in answer
        loss = [sum(each.nats or 0 for each in line.text[line.answer :]) for line in (lines[0], lines[-1])]
        assert loss[1] < loss[0] or name != "orpo", "only ORPO asks that the better answer itself becomes likelier"


@pytest.mark.slow
def test_one_method_on_pairs_by_hand(tmp_path: Path, home: Path, asked: tuple) -> None:
    path = tiny_comparison.write_rows(tmp_path / "votes.jsonl", pair_rows(40, "please"))
    made: list[tuple[float, bool]] = []

    def noted(beta: float, normalised: bool) -> Any:
        made.append((beta, normalised))
        return preferences_dpo(beta, normalised)

    with tiny_comparison.small_machine(home) as patch:
        tiny_comparison.workers_inside(patch)
        patch.setattr("riyaz.preferences.dpo", noted)
        told = tiny_comparison.command(
            "adapt", "dpo", path, *asked, "--length-normalised", "--beta", "0.3", "--out", tmp_path / "out"
        )
    assert told.status == 0, told.err
    assert told.document["method"] == "dpo" and Artifact.read(tmp_path / "out").method == "dpo"
    assert set(made) == {(0.3, True)} and "dpo by hand: beta 0.3, length normalised" in told.err


@pytest.mark.parametrize(("rows", "words"), [
    (tiny_comparison.free_rows(40), "dpo learns from pairs of answers"),
    (pair_rows(12, "please"), "12 rows"),
])  # fmt: skip
def test_rows_that_dpo_cannot_learn_from(
    rows: list[dict[str, Any]], words: str, tmp_path: Path, home: Path, asked: tuple
) -> None:
    path = tiny_comparison.write_rows(tmp_path / "rows.jsonl", rows)
    with tiny_comparison.small_machine(home):
        told = tiny_comparison.command("adapt", "dpo", path, *asked, "--out", tmp_path / "out")
    assert told.status != 0 and words in told.line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_pairs_nothing_is_said_of_these_methods(tmp_path: Path, home: Path, asked: tuple) -> None:
    path = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.free_rows(40))
    with tiny_comparison.small_machine(home):
        told = tiny_comparison.command("compare", path, *asked, "--out", tmp_path / "out", "--dry-run")
    assert told.status == 0 and "dpo" not in told.err and "orpo" not in told.err
