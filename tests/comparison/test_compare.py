"""A whole comparison and variants of it, with workers inside the test's own process."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
from conftest import Finished
from fit_context import TASK
from small_llama import next_log_p
from tiny_comparison import ARM_KEYS, METHODS, command, files, strict

from riyaz import evaluate, hardware
from riyaz.artifact import COLLECTION
from riyaz.comparison import dividing, processes, worker
from riyaz.comparison.folder import ComparisonFolder
from riyaz.errors import RiyazError
from riyaz.events import quiet
from riyaz.predictor import open_artifact
from riyaz.retrieval.collection import Collection

pytestmark = pytest.mark.usefixtures("one_core")
KEYS = {
    "arms", "pick", "runner_up", "decision", "reason", "rows_needed", "estimate_seconds", "seconds", "data", "model",
    "hardware", "command", "versions",
}  # fmt: skip
ENGINES_APART = 0.01  # nats per token: training rounds to bf16 in other places than the engine that serves


# all five arms on a closed set


def test_the_document_has_every_key_and_is_the_file(quick: Finished) -> None:
    document = quick.document
    assert document == strict((quick.out / "compare.json").read_text())
    assert quick.told.out.count("\n") == 1, "with --json stdout is the document"
    assert set(document) >= KEYS and len(document["pairs"]) == math.comb(len(METHODS), 2)
    assert [arm["method"] for arm in document["arms"]] == list(METHODS)
    for arm in document["arms"]:
        assert set(arm) >= ARM_KEYS, arm["method"]
    assert document["pick"] in METHODS and document["runner_up"] in METHODS
    assert document["decision"] in ("certified", "undecided", "tie") and document["reason"].endswith(".")
    assert 0 < document["estimate_seconds"] < 3 * 3600 and document["seconds"] > 0
    assert document["model"]["parameters"] > 100_000 and document["model"]["name"] == "tiny"
    assert document["hardware"]["cores"] >= 1 and document["versions"]["torch"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", document["date"])
    assert document["floor"]["answer"] in tiny_comparison.CLOSED and document["floor"]["score"] == pytest.approx(1 / 3)
    assert document["data"]["rows"]["test"] == 18 and document["data"]["metric"] == "accuracy"


def test_every_arm_is_finished_with_costs_and_scores(quick: Finished) -> None:
    for arm in quick.document["arms"]:
        assert (arm["status"], arm["reason"], arm["metric"], arm["n_test"]) == ("ok", "", "accuracy", 18)
        assert 0 <= arm["ci_low"] <= arm["score"] <= arm["ci_high"] <= 1
        assert 0 <= arm["extras"]["macro_f1"] <= 1
        assert arm["eval_seconds"] > 0 and arm["ms_per_answer"] > 0 and arm["artifact_mb"] > 0
        learns = arm["method"] in ("prompt_tuning", "lora", "full")
        assert (arm.get("steps"), arm.get("recipe_steps")) == ((tiny_comparison.STEPS,) * 2 if learns else (None, None))
        fits = learns or arm["method"] == "linear"
        assert (arm["train_seconds"] > 0) == (arm["trainable_params"] > 0) == fits
        assert arm["search_seconds"] > 0, "of choosing texts or an index too"
        assert (arm["prompt_tokens"] == 0) == (arm["method"] in ("nearest", "linear"))
    assert quick.arm("nearest")["score"] == 1.0, "the nearest prompt differs in its last words only"
    assert quick.arm("few_shot")["prompt_tokens"] > quick.arm("lora")["prompt_tokens"] + 8
    lora, full = (quick.arm(method)["trainable_params"] for method in ("lora", "full"))
    head = len(TASK.labels) * 64  # of the labels, beside the model
    assert head < lora < full == quick.document["model"]["parameters"] + head


def test_the_cpu_time_that_an_arm_waited_for_is_the_mean_over_its_processes(quick: Finished) -> None:
    for arm in quick.document["arms"]:
        part = quick.artifact(arm["method"]).parent
        fit, result = (strict((part / name).read_text()) for name in ("fit.json", "result.json"))
        parts = [(fit.get("cpu_waited"), fit["seconds"]), (result.get("cpu_waited"), result["eval_seconds"])]
        counted = [(share, seconds) for share, seconds in parts if share is not None]
        if hardware.cpu_time() is None:
            assert not counted and "cpu_waited" not in arm
        elif counted:
            expected = sum(share * seconds for share, seconds in counted) / sum(seconds for _, seconds in counted)
            assert 0 <= arm["cpu_waited"] < 1 and arm["cpu_waited"] == pytest.approx(expected)


def test_an_arm_knows_the_latency_that_was_planned_for_it(quick: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: dict[str, float] = {}
    monkeypatch.setattr(evaluate, "evaluate_artifact", lambda *_, expected_ms, **__: planned.update(ms=expected_ms))
    measured = json.loads((quick.out / "measured.json").read_text())
    worker.evaluate(ComparisonFolder(quick.out), "lora", "kept")
    assert planned == {"ms": pytest.approx(1000 * measured["predict"]["lora"]["answer_seconds"])}


def test_scores_are_those_of_the_predictions(quick: Finished) -> None:
    for arm in quick.document["arms"]:
        lines = (quick.artifact(arm["method"]).parent / "predictions.jsonl").read_text().splitlines()
        rows = [strict(line) for line in lines]
        assert [row["where"] for row in rows] == [f"test.jsonl:{i}" for i in range(1, 19)]
        assert all(row["score"] == (row["prediction"] == row["answers"][0]) for row in rows)
        assert arm["score"] == pytest.approx(np.mean([row["score"] for row in rows]))
        for name in ("even", "odd"):
            scores = [row["score"] for row in rows if row["slice"] == name]
            assert arm["slices"][name] == {"score": pytest.approx(np.mean(scores)), "n": 9}


def test_every_check_was_made_and_held(quick: Finished) -> None:
    names = {arm["method"]: set(arm["checks"]) for arm in quick.document["arms"]}
    assert all(check["ok"] for arm in quick.document["arms"] for check in arm["checks"].values())
    rows = {"ends_with_eos", "one_bos", "prompt_is_prefix", "answer_as_template", "has_label", "fits_context"}
    both = rows | {"step0_loss", "loss_finite", "weights_moved", "reopened"}
    assert names["full"] == both and names["lora"] == both | {"merged"}
    assert names["nearest"] == names["zero_shot"] == names["few_shot"] == {"reopened"}


def test_text_arms_forget_nothing_and_nearest_has_no_distribution(quick: Finished) -> None:
    for method in ("nearest", "zero_shot", "few_shot"):
        assert quick.arm(method)["forgetting_nats"] == 0
    assert quick.arm("nearest")["kl_task"] is None
    for method in ("lora", "full"):
        assert quick.arm(method)["forgetting_nats"] != 0 and quick.arm(method)["kl_task"] > 0.05
    assert all(quick.arm(method)["kl_task"] >= 0 for method in METHODS[2:])


def test_every_artifact_opens_and_answers(quick: Finished) -> None:
    for method in METHODS:
        first = json.loads((quick.artifact(method).parent / "predictions.jsonl").read_text().splitlines()[0])
        predictor = open_artifact(quick.artifact(method))
        assert predictor.answer([{"role": "user", "content": first["prompt"]}]) == first["prediction"]


def test_the_lora_folder_opens_in_peft_with_equal_logits(quick: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tiny_comparison.serve_in_float32(monkeypatch)
    ours = open_artifact(quick.artifact("lora"))
    assert ours.has_model and ours.tokenizer is not None
    base = AutoModelForCausalLM.from_pretrained(quick.arguments[3], dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, quick.artifact("lora"))
    ids = ours.tokenizer.encode("where is my refund and the order")
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0, -1].log_softmax(0).numpy()
    assert np.abs(next_log_p(ours.lm, ids, ours.adapter) - expected).max() < 1e-3
    assert np.abs(next_log_p(ours.lm, ids) - expected).max() > 1e-2, "and the adapter matters"


def test_the_same_command_again_does_nothing_again(quick: Finished, inside: list, tmp_path: Path) -> None:
    shutil.copytree(quick.out, tmp_path / "out")
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files(tmp_path / "out")}
    again = command(*quick.arguments, "--out", tmp_path / "out", "--json")
    assert again.document == quick.document and inside == []
    changed = {name for name, time in before.items() if (tmp_path / "out" / name).stat().st_mtime_ns != time}
    assert changed <= {"report.html", "report.md", ".lock"}


# variants


@pytest.mark.parametrize(
    ("rows", "metric", "second"),
    [
        (tiny_comparison.short_rows(60), "exact_match", {"token_f1"}),
        (tiny_comparison.free_rows(60), "rouge_l", {"chrf", "length_ratio", "answer_log_probability"}),
    ],
    ids=["short", "free"],
)
def test_tasks_without_labels(inside: list, asked: tuple, tmp_path: Path, rows: list, metric: str, second: set) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", rows[:45])
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", rows[45:51])
    methods = ("nearest", "zero_shot", "lora")
    told = command("compare", tmp_path / "data", *asked, "--methods", ",".join(methods), "--out", tmp_path / "out")
    arms = {arm["method"]: arm for arm in told.document["arms"]}
    assert told.status == 0 and tuple(arms) == methods
    for arm in arms.values():
        assert (arm["status"], arm["metric"], arm["n_test"]) == ("ok", metric, 6)
        assert 0 <= arm["ci_low"] <= arm["score"] <= arm["ci_high"] <= 1
        assert set(arm["extras"]) == second - ({"answer_log_probability"} if arm["method"] == "nearest" else set())
        assert all(check["ok"] for check in arm["checks"].values())
    if metric == "rouge_l":
        gains = [arms[method]["extras"]["answer_log_probability"] for method in ("lora", "zero_shot")]
        assert gains[0] > gains[1] + 1, "a few steps on sentences all alike are learned"


def test_labels_as_short_answers_scored_by_their_words(inside: list, asked: tuple, tmp_path: Path) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    (tmp_path / "data/riyaz.toml").write_text('task = "short"\nmetric = "token_f1"\n')
    told = command("compare", tmp_path / "data", *asked, "--methods", "nearest,zero_shot", "--out", tmp_path / "out")
    data = told.document["data"]
    assert told.status == 0 and (data["task"], data["why"]) == ("short", "it was given")
    for arm in told.document["arms"]:
        assert (arm["status"], arm["metric"], set(arm["extras"])) == ("ok", "token_f1", {"exact_match"})
        task = open_artifact(tmp_path / f"out/arms/{arm['method']}/kept/artifact").task
        assert task is not None and (task.kind, task.metric, task.labels) == ("short", "token_f1", ())
    assert "token F1" in (tmp_path / "out/report.md").read_text() and "token F1" in told.err


def test_documents_that_are_the_training_rows(inside: list, asked: tuple, tmp_path: Path) -> None:
    rows = [{"question": f"where is order {i}?", "answer": f"order {i} is on the way"} for i in range(60)]
    train = tiny_comparison.write_rows(tmp_path / "data/train.jsonl", rows[:45])
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", rows[45:])
    asked = (*asked, "--methods", "rag,rag_lora", "--documents", train, "--out", tmp_path / "out")
    told = command("compare", tmp_path / "data", *asked)
    note = "the documents hold rows of the data: a row's own document is left out of its prompt"
    assert told.status == 0 and note in told.err and note in told.document["data"]["notes"]
    for arm in told.document["arms"]:
        assert arm["status"] == "ok" and arm["checks"]["reopened"]["ok"], arm
        assert arm["checks"]["reopened"]["after"] == pytest.approx(
            arm["checks"]["reopened"]["before"], abs=ENGINES_APART
        )


def test_documents_around_the_results_are_the_same_when_these_are_there(
    inside: list, asked: tuple, tmp_path: Path
) -> None:
    rows, home = tiny_comparison.page_rows("now", "today", "please"), tiny_comparison.write_pages(tmp_path / "home")
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", rows[:-6])
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", rows[-6:])
    asked = ("compare", tmp_path / "data", *asked, "--methods", "rag", "--documents", home, "--out", home / "out")
    first = command(*asked)
    assert first.status == 0 and (home / "out/report.md").exists() and "results of riyaz" not in first.err
    again = command(*asked)
    assert again.status == 0 and "left out, results of riyaz: out" in again.err
    assert again.document["arms"] == first.document["arms"] and again.document["data"] == first.document["data"]
    indexed = Collection.open(home / "out" / COLLECTION).documents
    assert [document.doc_id for document in indexed] == sorted(tiny_comparison.PAGES)


def test_few_rows_without_a_test_are_judged_in_nested_folds(inside: list, asked: tuple, tmp_path: Path) -> None:
    data = tiny_comparison.write_rows(tmp_path / "rows.jsonl", tiny_comparison.closed_rows(45, "please"))
    told = command("compare", data, *asked, "--methods", "nearest,zero_shot", "--out", tmp_path / "out")
    parts = [*(f"fold-{i}" for i in range(1, 6)), "kept"]
    assert told.status == 0 and told.document["data"]["rows"]["folds"] == 5
    wheres: dict[str, list[str]] = {}
    for part in parts:
        rows = {
            which: [json.loads(line)["where"] for line in (tmp_path / f"out/split/{part}/{which}.jsonl").open()]
            for which in ("train", "valid", "test")
        }
        wheres[part] = rows["test"]
        assert len({*rows["train"], *rows["valid"], *rows["test"]}) == sum(map(len, rows.values())) == 45
    assert sorted(where for part in parts for where in wheres[part]) == sorted(f"rows.jsonl:{i}" for i in range(1, 46))
    assert wheres["kept"] == [] and told.document["floor"]["score"] == pytest.approx(1 / 3), "on the rows of all folds"
    for arm in told.document["arms"]:
        assert (arm["status"], arm["n_test"], set(arm["slices"])) == ("ok", 45, {"even", "odd"})
        assert arm["ms_per_answer"] > 0 and arm["forgetting_nats"] is not None, "the kept artifact's"
        assert {path.name for path in (tmp_path / f"out/arms/{arm['method']}").iterdir()} == set(parts)
        assert open_artifact(tmp_path / f"out/arms/{arm['method']}/kept/artifact").task is not None
    assert told.document["arms"][0]["score"] == 1.0
    assert inside.count(("fit", "zero_shot", "fold-3")) == 1 and len(inside) == 1 + 2 * 2 * 6


def test_a_plan_without_room_skips_and_cuts(
    inside: list, monkeypatch: pytest.MonkeyPatch, quick: Finished, tmp_path: Path
) -> None:
    """Speeds as of a slow machine: one arm trains less than its recipe, the other not at all."""
    measured = json.loads((quick.out / "measured.json").read_text())
    measured["arms"]["lora"] |= {"step_seconds": 400.0, "validate_seconds": 0.0, "build_seconds": 0.0}
    measured["arms"]["full"] |= {"step_seconds": 90_000.0}
    for name in ("settings.json", "base.json", "base_kl.safetensors"):
        shutil.copy(quick.out / name, tmp_path)
    for method in METHODS[:-2]:  # the others are finished
        shutil.copytree(quick.out / "arms" / method, tmp_path / "arms" / method)
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    tiny_comparison.shorten_recipes(monkeypatch, steps=100)
    told = command(*quick.arguments, "--out", tmp_path, "--json")
    lora, full = told.document["arms"][-2:]
    assert lora["status"] == "cut" and 8 <= lora["chosen"]["steps"] < 100
    assert lora["reason"] == f"trained {lora['chosen']['steps']} of 100 steps"
    assert full["status"] == "skipped" and "raise --budget" in full["reason"] and full["score"] is None
    assert set(full) >= ARM_KEYS and not (tmp_path / "arms/full").exists()


def test_the_opening_of_an_arm_is_trained_in_a_process_of_its_own(
    inside: list, quick: Finished, tmp_path: Path
) -> None:
    shutil.copytree(quick.out, tmp_path / "out", ignore=shutil.ignore_patterns("arms"))
    search = tmp_path / "out/arms/lora/kept/search.json"
    reason = processes.run_worker(["open", str(tmp_path / "out"), "lora", "kept"], tmp_path / "log.txt", quiet)
    assert reason == "" and search.exists(), reason


@pytest.mark.parametrize(("methods", "places"), [("nearest,lora", 1024), ("nearest,prompt_tuning", 1004)])
def test_rows_leave_room_for_the_vectors_of_a_soft_prompt(
    quick: Finished, monkeypatch: pytest.MonkeyPatch, methods: str, places: int
) -> None:
    def look(split: Any, task: Any, tokenizer: Any, context: int) -> None:
        raise RiyazError(f"rows may have {context} tokens")

    monkeypatch.setattr(dividing, "without_too_long", look)
    told = command(*quick.arguments, "--methods", methods, "--dry-run")
    assert f"rows may have {places} tokens" in told.line


def test_limits_keep_arms_out_of_the_pick(inside: list, asked: tuple, tmp_path: Path) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    base = ("compare", tmp_path / "data", *asked, "--methods", "nearest,zero_shot")
    for again in "123":  # a busy machine may be several times as slow in one of the two runs as in the other
        every = command(*base, "--out", tmp_path / f"every{again}").document
        quick, slow = sorted(arm["ms_per_answer"] for arm in every["arms"])
        between = f"{(quick * slow) ** 0.5:.3g}"
        some = command(*base, "--max-ms", between, "--out", tmp_path / f"some{again}").document
        left_out = f"--max-ms {between} leaves out zero_shot (" in some["reason"]
        if left_out:
            break
    assert left_out and some["pick"] == "nearest"
    none = command(*base, "--max-ms", "0", "--max-rss-mb", "1", "--out", tmp_path / "none").document
    assert none["pick"] is None and "No method is within the limits" in none["reason"]


def test_a_dry_run_prints_the_plan_and_keeps_what_it_measured(quick: Finished, inside: list, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = command(*quick.arguments, "--dry-run", "--json", "--out", out)
    assert told.status == 0 and (out / "measured.json").exists() and not (out / "plan.json").exists()
    document, plan = told.document, json.loads((quick.out / "plan.json").read_text())
    assert {arm["method"]: arm["steps"] for arm in document["plan"]["arms"]} == {
        arm["method"]: arm["steps"] for arm in plan["arms"]
    }
    assert {"seconds", "peak_rss_mb", "disk_mb"} <= set(document["estimate"])
    other = [argument if argument != "3h" else "2h" for argument in quick.arguments]
    assert command(*other, "--dry-run", "--out", out).status == 0
    assert [work for work, *_ in inside] == ["measure"], "once, also for another budget"
    assert "estimate: " in told.err and all(f"\n{method} " in told.err for method in METHODS), told.err


def test_a_dry_run_of_a_finished_comparison_takes_nothing_away(quick: Finished, inside: list, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(quick.out, out)
    (out / "mine.txt").write_text("not riyaz's")
    files = {path for path in out.rglob("*") if path.is_file()}
    assert command(*quick.arguments, "--dry-run", "--out", out).status == 0 and inside == []
    other = command(*quick.arguments, "--seed", "9", "--out", out)
    assert other.status == 2 and files <= {path for path in out.rglob("*") if path.is_file()}
    settings = json.loads((out / "settings.json").read_text())
    for name in ("task", "skip_incomplete", "columns"):  # as if riyaz had not had these options
        del settings["reading"][name]
    (out / "settings.json").write_text(json.dumps(settings))
    assert command(*quick.arguments, "--out", out).status == 0 and inside == []


def test_adapt_leaves_one_artifact(inside: list, asked: tuple, tmp_path: Path) -> None:
    tiny_comparison.write_rows(tmp_path / "data/train.jsonl", tiny_comparison.closed_rows(45, "please"))
    tiny_comparison.write_rows(tmp_path / "data/test.jsonl", tiny_comparison.closed_rows(9, "today"))
    told = command("adapt", "zero_shot", tmp_path / "data", *asked, "--out", tmp_path / "mine")
    assert told.status == 0 and told.document["method"] == "zero_shot" and "pick" not in told.err
    score = f"accuracy {told.document['score']:.3f} ({told.document['ci_low']:.3f}–{told.document['ci_high']:.3f})"
    assert told.err.splitlines()[-5:] == [
        f"the artifact of zero_shot is in {tmp_path / 'mine'}: {score} on 9 test rows",
        "",
        "next",
        f"  answer rows  riyaz run {tmp_path / 'mine'} QUESTIONS.jsonl --out answers.jsonl",
        f"  chat         riyaz chat {tmp_path / 'mine'}",
    ]
    assert open_artifact(tmp_path / "mine").task is not None
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "data"}
    again = command("adapt", "zero_shot", tmp_path / "data", *asked, "--out", tmp_path / "mine")
    assert again.status == 2 and "already exists" in again.line
