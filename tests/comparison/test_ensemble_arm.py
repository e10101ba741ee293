"""The arm `ensemble` in a comparison: its answers beside those of the two arms that it joins, its place in the order,
and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_bert
from planned import given, measured
from tiny_comparison import Told, closed_rows, command, write_rows

from riyaz.artifact import NAME, Artifact, resolve
from riyaz.comparison import plan as planning
from riyaz.comparison import run as comparison_run
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.shorter_test import plan_within
from riyaz.config import CompareConfig, DataConfig
from riyaz.data.formats import load
from riyaz.errors import RiyazError
from riyaz.methods import METHODS, ensemble, lora
from riyaz.methods.fitting import encoder_training
from riyaz.methods.fitting.base import Context, Fitted
from riyaz.methods.fitting.held_out import read_held_out, write_held_out
from riyaz.metrics.calibration import log_softmax
from riyaz.predictor import open_artifact
from riyaz.scoring import answer_log_loss

pytestmark = pytest.mark.usefixtures("inside", "in_float32")

PROBABILITY = 1e-4  # largest difference to the product of the two arms' probabilities, which are answered in batches
QUESTIONS = ["where is my refund please", "the card was declined", "my parcel is late today"]


@pytest.fixture
def compare(
    tmp_path: Path, own_store: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Told]:
    """A comparison of these methods with a tiny embedder as minilm, in tmp_path/out."""
    tiny_bert.keep(own_store)
    monkeypatch.setattr(encoder_training, "RATE", 1e-3)
    monkeypatch.setattr(encoder_training, "BATCH", 8)
    write_rows(tmp_path / "data/train.jsonl", closed_rows(45, "please"))
    write_rows(tmp_path / "data/test.jsonl", closed_rows(18, "today"))

    def run(methods: str, *more: str) -> Told:
        folders = (tmp_path / "data", "--model", model_folder, "--out", tmp_path / "out")
        return command("compare", *folders, "--budget", "3h", "--json", "--methods", methods, *more)

    return run


def test_its_probabilities_are_the_product_of_those_of_both_arms(
    compare: Callable[[str], Told], tmp_path: Path
) -> None:
    told = compare("encoder,lora,ensemble")
    assert told.status == 0, told.err
    arms = {arm["method"]: arm for arm in told.document["arms"]}
    assert arms["ensemble"]["status"] == "ok" and arms["ensemble"]["forgetting_nats"] is not None
    assert arms["ensemble"]["train_seconds"] == pytest.approx(
        arms["encoder"]["train_seconds"] + arms["lora"]["train_seconds"]
    )
    assert arms["ensemble"]["peak_rss_mb"] >= max(arms["encoder"]["peak_rss_mb"], arms["lora"]["peak_rss_mb"])
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    p = {}
    for method in ("encoder", "lora", "ensemble"):
        answers = open_artifact(tmp_path / "out" / method).answers(chats)
        p[method] = np.array([answer.probabilities for answer in answers], float)  # (3, L)
    made = Artifact.read(resolve(tmp_path / "out/ensemble"))
    own = Artifact.read(resolve(tmp_path / "out/lora")).temperature
    assert own and made.temperature and made.weights.beside == "encoder"
    whole = made.temperature * ensemble.SHARE / own  # what divides the mean of the log-probabilities
    joint = ensemble.SHARE * np.log(p["lora"]) + (1 - ensemble.SHARE) * np.log(np.maximum(p["encoder"], 1e-6))
    assert np.exp(log_softmax(joint / whole)) == pytest.approx(p["ensemble"], abs=PROBABILITY)
    assert np.abs(p["lora"] - p["encoder"]).max() > 0.01, "the parts differ"
    rows = [replace(row, where="") for row in load(tmp_path / "data/test.jsonl").examples]
    predictor = open_artifact(tmp_path / "out/ensemble")
    assert predictor.has_model
    served = [answer.probabilities for answer in predictor.answers([row.messages for row in rows])]
    right = [float(row[made.task.labels.index(each.answer)]) for row, each in zip(served, rows)]
    assert answer_log_loss(predictor, rows) == pytest.approx(-np.log(right).mean(), abs=PROBABILITY)
    checks = arms["ensemble"]["checks"]
    assert checks["reopened"]["after"] == pytest.approx(checks["reopened"]["before"], abs=PROBABILITY)
    assert "merged" not in checks and arms["ensemble"].get("merged_ms") is None
    card = command("card", tmp_path / "out/ensemble", "--out", tmp_path / "card.md")
    assert card.status == 0, card.err
    text = (tmp_path / "card.md").read_text()
    assert "library_name" not in text and "holds a fine-tuned minilm: Apache-2.0." in text
    exported = command("export", tmp_path / "out/ensemble", "--format", "peft", "--out", tmp_path / "peft")
    assert exported.status != 0 and "its answers are those of a LoRA and of encoder together" in exported.err
    assert not (tmp_path / "peft").exists()


def test_it_has_no_result_where_a_part_has_none(
    compare: Callable[[str], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(context: Context) -> Fitted:
        raise MemoryError

    monkeypatch.setitem(METHODS, "lora", replace(lora.METHOD, fit=failing))
    told = compare("encoder,lora,ensemble")
    arm = next(arm for arm in told.document["arms"] if arm["method"] == "ensemble")
    assert arm["status"] == "skipped" and arm["reason"] == "it joins encoder and lora; lora: out of memory"


def test_a_part_that_failed_a_check_is_not_joined(
    compare: Callable[[str], Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    def doubtful(context: Context) -> Fitted:
        fitted = lora.METHOD.fit(context)
        fitted.checks["loss_finite"] = {"ok": False}
        return fitted

    monkeypatch.setitem(METHODS, "lora", replace(lora.METHOD, fit=doubtful))
    told = compare("encoder,lora,ensemble")
    arm = next(arm for arm in told.document["arms"] if arm["method"] == "ensemble")
    assert arm["status"] == "skipped" and "lora: failed check: loss_finite" in arm["reason"]


def test_it_is_planned_only_with_its_parts() -> None:
    names = ("nearest", "encoder", "lora", "ensemble")
    speeds = measured({"lora": {"row_seconds": 90.0}})
    plan = planning.make_plan(given(*names, speeds=speeds), budget=600.0, spent=0.0)
    assert {arm.method for arm in plan.arms if arm.skipped} == {"lora", "ensemble"}


def test_a_part_that_cannot_be_measured_is_the_reason() -> None:
    speeds = replace(measured(), unable={"lora": "out of memory"})
    plan = planning.make_plan(given("nearest", "encoder", "lora", "ensemble", speeds=speeds), budget=6e3, spent=0.0)
    assert plan.arm("ensemble").skipped == "it joins encoder and lora; lora: out of memory"


def test_it_takes_no_part_without_its_parts(compare: Callable[[str], Told]) -> None:
    named = compare("nearest,lora,ensemble")
    assert named.status != 0 and "ensemble joins encoder and lora, and encoder does not run" in named.err
    assert named.line.endswith("name encoder too"), named.err


def test_adapt_runs_its_parts_and_keeps_it(compare: Callable[[str], Told], tmp_path: Path, model_folder: Path) -> None:
    out = tmp_path / "joint"
    told = command(
        "adapt", "ensemble", tmp_path / "data", "--model", model_folder, "--budget", "3h", "--out", out, "--json"
    )
    assert told.status == 0 and told.document["method"] == "ensemble", told.err
    assert Artifact.read(out).weights.beside == "encoder" and not (tmp_path / "joint.work").exists()


def test_adapt_runs_nothing_where_the_budget_is_too_short_for_it(
    compare: Callable[[str], Told], tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_it(*arguments: Any) -> tuple[ComparisonPlan, Any, Any]:
        plan, parts, report = plan_within(*arguments)
        return (
            replace(plan, arms=(*plan.arms[:2], replace(plan.arms[2], skipped="no time; raise --budget"))),
            parts,
            report,
        )

    monkeypatch.setattr(comparison_run, "plan_within", without_it)
    out = tmp_path / "joint"
    told = command("adapt", "ensemble", tmp_path / "data", "--model", model_folder, "--budget", "3m", "--out", out)
    assert told.status != 0 and "ensemble cannot run in 3m: no time; raise --budget" in told.err, told.err
    assert not out.exists() and not (tmp_path / "joint.work/arms").exists()


def test_adapt_names_no_option_that_it_does_not_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A method that was stopped at the end of the budget goes on with `riyaz compare --more` alone."""
    reason = f"it was stopped after 20m, when the budget was spent{planning.MORE}"
    arm = SimpleNamespace(status="skipped", reason=reason)
    monkeypatch.setattr(comparison_run, "compare", lambda *given, **named: SimpleNamespace(arms=[arm]))
    with pytest.raises(RiyazError) as caught:
        comparison_run.adapt("lora", tmp_path, DataConfig(), CompareConfig(out=tmp_path / "out"))
    assert str(caught.value) == (
        f"{tmp_path / 'out.work'}: lora skipped: it was stopped after 20m, when the budget was spent; "
        "remove it and run the command again with a longer --budget"
    )


def test_what_is_held_out_is_read_as_it_was_written(tmp_path: Path) -> None:
    scores = np.array([[1.0, 0.0, -2.0], [0.5, 0.5, 3.0]])
    write_held_out(tmp_path, [4, 1], scores, 2.0)
    read = read_held_out(tmp_path)
    assert sorted(read) == [1, 4] and np.exp(read[4]).sum() == pytest.approx(1)
    assert read[1] - read[1].max() == pytest.approx((scores[1] - 3.0) / 2.0)


def test_a_changed_part_is_refused(compare: Callable[[str], Told], tmp_path: Path) -> None:
    assert compare("encoder,lora,ensemble").status == 0
    path = resolve(tmp_path / "out/ensemble") / NAME
    document = json.loads(path.read_text())
    for changed in ({"beside": "copy"}, {"factor": 0.0}, {"label_head": False}):
        path.write_text(json.dumps(document | {"weights": document["weights"] | changed}))
        rows, answers = tmp_path / "data/test.jsonl", tmp_path / "answers.jsonl"
        told = command("run", tmp_path / "out/ensemble", rows, "--out", answers)
        assert told.status != 0 and "weights." in told.line, told.err
