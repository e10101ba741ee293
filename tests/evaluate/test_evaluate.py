"""Judging: general text, drift and forgetting against a plain computation, checks that fail, and `evaluate`."""

import hashlib
import json
import pydoc_data.topics
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import tiny_llama
from conftest import Finished
from refusals import assert_refused
from small_llama import next_log_p
from tiny_comparison import command

from riyaz import drift, evaluate, hardware
from riyaz.artifact import Artifact, TextPart
from riyaz.config import DataConfig, Precision
from riyaz.data import Example
from riyaz.data.general_text import BLOCK as GENERAL_BLOCK
from riyaz.data.general_text import TOKENS as GENERAL_TOKENS
from riyaz.data.general_text import general_blocks, general_text
from riyaz.data.task import Task
from riyaz.drift import BaseFacts
from riyaz.engine.native import load as native_load
from riyaz.events import Event, Note, Progress, quiet
from riyaz.json_files import to_document
from riyaz.predictor import (
    ClosedPredictor,
    ModelPredictor,
    Prediction,
    Predictor,
    open_artifact,
    open_model,
    predictor_for,
)
from riyaz.results import Evaluation, Flips, Remeasured
from riyaz.scoring import answer_log_loss, answer_log_probabilities
from riyaz.target_scores import evaluate_target

LOAD_RUNNER = native_load.load_runner
pytestmark = pytest.mark.usefixtures("in_float32")
TASK = Task("closed", ("billing", "delivery", "refund"), "accuracy", "Classify the text. Answer with one label.", "")


@pytest.fixture(scope="module")
def plain(model_folder: Path) -> ModelPredictor:
    """The tiny model, told the task."""
    return predictor_for(replace(open_model(model_folder), text=TextPart(TASK.instruction), task=TASK))


def examples(count: int) -> tuple[Example, ...]:
    return tuple(
        Example(({"role": "user", "content": row["text"]},), (row["label"],), where=f"t.jsonl:{i}")
        for i, row in enumerate(tiny_comparison.closed_rows(count, "today"), 1)
    )


# general text


def test_general_text_is_pythons_own_unless_given(tmp_path: Path) -> None:
    text = general_text(None)
    assert len(text) > 100_000 and pydoc_data.topics.topics["if"] in text and text == general_text(None)
    (tmp_path / "own.txt").write_text("\ufeff" + "practice makes better. " * 100)
    assert general_text(str(tmp_path / "own.txt")).startswith("practice")


def test_general_text_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    with assert_refused("absent.txt", "cannot be read as text", "--general"):
        general_text(str(tmp_path / "absent.txt"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 3000)
    with assert_refused("binary", "cannot be read as text"):
        general_text(str(tmp_path / "binary"))
    (tmp_path / "short.txt").write_text("too little")
    with assert_refused("short.txt", "10 characters are too few"):
        general_text(str(tmp_path / "short.txt"))


@pytest.mark.parametrize("length", [2, 100, GENERAL_BLOCK, GENERAL_BLOCK + 1, 5000, 200_000])
def test_general_blocks_are_spread_over_the_text(length: int) -> None:
    blocks = general_blocks(range(length))
    assert sum(map(len, blocks)) <= GENERAL_TOKENS and len({len(block) for block in blocks}) == 1
    assert blocks[0][0] == 0 and (blocks[-1][-1] == length - 1 or len(blocks) == 1)
    assert all(block == list(range(block[0], block[0] + len(block))) for block in blocks)
    assert sum(map(len, blocks)) >= min(length, GENERAL_TOKENS) * 0.5


def test_general_nats_are_those_of_reading_token_by_token(
    plain: ModelPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.txt").write_text(tiny_llama.CORPUS)
    monkeypatch.setattr("riyaz.data.general_text.BLOCK", 8)
    monkeypatch.setattr("riyaz.data.general_text.TOKENS", 24)
    blocks = general_blocks(plain.tokenizer.encode(tiny_llama.CORPUS))
    assert [len(block) for block in blocks] == [8, 8, 8]
    steps = [(block[:i], block[i]) for block in blocks for i in range(1, 8)]
    expected = -np.mean([next_log_p(plain.lm, before)[token] for before, token in steps])
    assert drift.general_nats(plain, str(tmp_path / "own.txt")) == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr(plain.tokenizer, "beginning", (3,))  # a model that never read a text without its BOS
    expected = -np.mean([next_log_p(plain.lm, [3, *before])[token] for before, token in steps])
    assert drift.general_nats(plain, str(tmp_path / "own.txt")) == pytest.approx(expected, abs=1e-4)


# against the base


def test_drift_is_the_divergence_of_the_whole_distribution(
    plain: ModelPredictor, quick: Finished, tmp_path: Path
) -> None:
    rows = examples(6)
    BaseFacts.measure(plain, rows, None, tmp_path)
    base = BaseFacts.read(tmp_path)
    assert base.general_nats > 3 and len(base.answers) == 6
    same, known = drift.against_base("none", plain, base, rows, None)
    wanted = answer_log_probabilities(plain, rows)
    assert [part.tolist() for part in known] == [pytest.approx(part.tolist(), abs=1e-5) for part in wanted]
    assert same["forgetting_nats"] == 0 and same["kl_task"] == pytest.approx(0, abs=1e-6)
    adapted = open_artifact(quick.artifact("lora"))
    assert adapted.has_model
    found = drift.against_base("lora", adapted, base, rows, None)[0]
    expected = []
    for row in rows:
        ids = plain.tokenizer.render(plain.conversations([row.messages]))[0]
        answer = plain.tokenizer.answer_ids([row.answer])[0]
        for i in range(len(answer)):
            p = next_log_p(plain.lm, [*ids, *answer[:i]]).astype(np.float64)
            q = next_log_p(adapted.lm, [*ids, *answer[:i]], adapted.adapter)
            expected.append((np.exp(p) * (p - q)).sum())
    assert found["kl_task"] == pytest.approx(np.mean(expected), rel=1e-3) and found["kl_task"] > 0.05
    general = [drift.general_nats(predictor, None) for predictor in (adapted, replace(adapted, adapter=None))]
    assert found["forgetting_nats"] == pytest.approx(general[0] - general[1], abs=1e-4) and general[0] != general[1]
    blocks = [[part.nats for part in drift.block_losses(each, general_text(None))] for each in (adapted, plain)]
    differences = np.array(blocks[0]) - np.array(blocks[1])  # blocks of equal length
    assert len(differences) == 8 and [part.nats for part in base.blocks] == pytest.approx(blocks[1])
    assert found["forgetting_se"] == pytest.approx(differences.std(ddof=1) / 8**0.5, rel=1e-3)
    assert "forgetting_se" not in same
    other = replace(base, blocks=())  # of another general text
    assert drift.against_base("lora", adapted, other, rows, None)[0] == {**found, "forgetting_se": None}


def test_facts_hold_the_loss_of_every_block(tmp_path: Path, plain: ModelPredictor) -> None:
    BaseFacts.measure(plain, examples(2), None, tmp_path)
    document = json.loads((tmp_path / "base.json").read_text())
    assert document["blocks"][0].keys() == {"nats", "tokens"}
    assert len(BaseFacts.read(tmp_path).blocks) == len(document["blocks"])


def test_a_copying_artifact_has_no_distribution(quick: Finished) -> None:
    nearest = open_artifact(quick.artifact("nearest"))
    base = BaseFacts(1.0, ())
    found = drift.against_base("copy", nearest, base, examples(2), None)
    assert found == ({"forgetting_nats": 0.0, "kl_task": None}, [])


def test_a_long_answer_is_compared_on_its_beginning(plain: ModelPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "KL_TOKENS", 5)
    long = tuple(replace(row, answers=("where is my refund and the order",)) for row in examples(3))
    assert [part.shape for part in drift.distributions(plain, long)] == [(5, 512)]
    assert len(drift.distributions(plain, examples(3))) < 3
    base = BaseFacts(1.0, tuple(drift.distributions(plain, long)))
    assert drift.against_base("none", plain, base, long, None)[1] == [], "its answer is not read whole"


# checks of an artifact


SOME = (np.full((1, 512), -np.log(512.0)),)


def judged(folder: Path, out: Path, **more: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    rows = examples(6)
    settings: dict[str, Any] = {
        "base": BaseFacts(4.0, SOME),
        "kl_rows": rows[:2],
        "latency_rows": 2,
        "retrieval_rows": 4,
        "general": None,
        "listen": quiet,
    }
    return evaluate.evaluate_artifact(folder, rows, rows, out, **settings | more)


def test_an_artifact_that_is_not_what_was_fitted_is_seen(quick: Finished, tmp_path: Path) -> None:
    folder = shutil.copytree(quick.artifact("zero_shot"), tmp_path / "artifact")
    document = json.loads((folder / "riyaz.json").read_text())
    predictor = open_artifact(folder)
    assert predictor.has_model
    document["validation"]["answer_log_loss"] = answer_log_loss(predictor, examples(6))
    (folder / "riyaz.json").write_text(json.dumps(document))
    held = evaluate._reopened(Artifact.read(folder), predictor, examples(6))
    assert held["ok"] and held["before"] == pytest.approx(held["after"])
    read = answer_log_probabilities(predictor, examples(6))
    for count in (0, 2, 6):  # rows that were read before
        again = evaluate._reopened(Artifact.read(folder), predictor, examples(6), known=read[:count])
        assert again["after"] == pytest.approx(held["after"], abs=1e-5)
    worse = evaluate._reopened(Artifact.read(folder), predictor, examples(6), known=[part - 9 for part in read])
    assert worse["after"] == pytest.approx(held["after"] + 9, abs=1e-5), "they are not read again"
    document["text"]["instruction"] = "Something else altogether, which changes what the model says."
    (folder / "riyaz.json").write_text(json.dumps(document))
    other = evaluate._reopened(Artifact.read(folder), open_artifact(folder), examples(6))
    assert not other["ok"] and other["before"] == held["before"]


def test_merging_that_changes_the_answers_is_seen(
    quick: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = judged(quick.artifact("lora"), tmp_path / "held")
    held = lora.checks["merged"]
    assert held["ok"] and held["apart"] == pytest.approx(held["merged"], abs=0.01)
    assert lora.merged_ms is not None and lora.merged_ms > 0
    assert lora.merged is not None and [each.precision for each in lora.merged] == ["beside", "auto", "int8", "int4"]
    beside, own, *smaller = lora.merged
    assert (beside.worse_by, beside.nats, own.nats) == (0.0, held["apart"], held["merged"])
    assert own.ms_per_answer == lora.merged_ms and own.mb >= smaller[0].mb > smaller[1].mb > 0
    assert judged(quick.artifact("lora"), tmp_path / "int8", precision="int8").merged is None, "the user's is kept"
    assert judged(quick.artifact("zero_shot"), tmp_path / "plain").merged_ms is None
    whole = evaluate.open_artifact

    def broken(folder: Path, precision: Precision = "auto", merged: bool = False) -> Predictor:
        opened = whole(folder, precision=precision, merged=merged)
        return replace(opened, text=TextPart("Something else altogether.")) if merged else opened

    monkeypatch.setattr(evaluate, "open_artifact", broken)
    assert not judged(quick.artifact("lora"), tmp_path / "broken").checks["merged"]["ok"]


def test_a_folds_artifact_is_only_asked_for_its_answers(quick: Finished, tmp_path: Path) -> None:
    result = judged(quick.artifact("lora"), tmp_path, base=None)
    assert set(result.checks) == {"reopened"}
    assert (result.ms_per_answer, result.prompt_tokens, result.forgetting_nats, result.kl_task) == (None,) * 4
    assert (tmp_path / "predictions.jsonl").read_text().count("\n") == 6
    assert json.loads((tmp_path / "result.json").read_text()) == to_document(result)


def test_without_test_rows_the_costs_come_from_validation(quick: Finished, tmp_path: Path) -> None:
    rows = examples(3)
    result = evaluate.evaluate_artifact(
        quick.artifact("nearest"), (), rows, tmp_path, base=BaseFacts(4.0, ()), kl_rows=rows, latency_rows=2,
        retrieval_rows=4, general=None, listen=quiet,
    )  # fmt: skip
    assert (tmp_path / "predictions.jsonl").read_text() == "" and result.ms_per_answer > 0


# latency on a busy machine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The milliseconds that the answers of each measurement take, taken from the list in turn."""
    medians: list[float] = []
    whole = evaluate.answers_alone

    def timed(predictor: Predictor, rows: Any, *arguments: Any, **more: Any) -> tuple[list[Prediction], list[float]]:
        answers, times = whole(predictor, rows, *arguments, **more)
        return answers, [medians.pop(0)] * len(times)

    monkeypatch.setattr(evaluate, "answers_alone", timed)
    return medians


@pytest.mark.parametrize(
    ("times", "ms", "again"),
    [
        ([299.0], 299.0, None),
        ([24_402.0, 151.0], 151.0, Remeasured(planned=100.0, first=24_402.0, again=151.0)),
        ([400.0, 500.0], 400.0, Remeasured(planned=100.0, first=400.0, again=500.0)),
        ([20.0], 20.0, None),  # an answer cannot be measured too quick
    ],
)
def test_a_latency_far_above_the_planned_one_is_measured_again(
    quick: Finished, tmp_path: Path, clock: list[float], times: list[float], ms: float, again: Remeasured | None
) -> None:
    clock += times
    found = judged(quick.artifact("zero_shot"), tmp_path, expected_ms=100.0)
    assert (found.ms_per_answer, found.remeasured, clock) == (ms, again, [])
    assert Evaluation.read(tmp_path / "result.json") == found
    assert again is None or again.far == (ms > 300)


def test_a_latency_is_measured_once_where_none_was_planned_and_where_nothing_is_computed(
    quick: Finished, tmp_path: Path, clock: list[float]
) -> None:
    clock += [9000.0, 9000.0]
    assert judged(quick.artifact("zero_shot"), tmp_path / "model").remeasured is None
    copied = judged(quick.artifact("nearest"), tmp_path / "copied", base=BaseFacts(4.0, ()), expected_ms=1.0)
    assert copied.remeasured is None and copied.ms_per_answer == 9000 and clock == []


def test_the_share_of_cpu_time_that_was_not_had_is_kept(
    quick: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = iter([hardware.CpuTime(ran=10.0, waited=1.0), hardware.CpuTime(ran=71.0, waited=40.0)])
    monkeypatch.setattr(hardware, "cpu_time", lambda: next(clocks))
    found = judged(quick.artifact("nearest"), tmp_path / "busy", base=BaseFacts(4.0, ()))
    assert found.cpu_waited == pytest.approx(0.39) and Evaluation.read(tmp_path / "busy/result.json") == found
    monkeypatch.setattr(hardware, "cpu_time", lambda: None)
    found = judged(quick.artifact("nearest"), tmp_path / "unknown", base=BaseFacts(4.0, ()))
    assert found.cpu_waited is None
    assert "cpu_waited" not in json.loads((tmp_path / "unknown/result.json").read_text())


# alone and in a batch


@pytest.fixture
def flipping(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Alone, the rows whose places are in the list get another answer than in a batch."""
    alone: list[str] = []
    whole = ClosedPredictor.answers

    def answers(self: ClosedPredictor, conversations: list, where: list = [], **more: Any) -> list[Prediction]:  # noqa: B006
        found = whole(self, conversations, where, **more)
        flipped = len(where) == 1 and where[0] in alone
        return [replace(each, text="billing" if each.text != "billing" else "refund") if flipped else each
                for each in found]  # fmt: skip

    monkeypatch.setattr(ClosedPredictor, "answers", answers)
    return alone


def said(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_answers_alone_are_compared_with_those_of_the_batch(
    quick: Finished, tmp_path: Path, flipping: list[str]
) -> None:
    same = judged(quick.artifact("lora"), tmp_path / "same")
    assert same.batch_flips == Flips(rows=2, answers=0, scores=0) and not same.alone
    flipping += ["t.jsonl:2", "t.jsonl:3"]  # the second is not among the rows answered alone
    found = judged(quick.artifact("lora"), tmp_path / "other")
    changes = said(tmp_path / "same")[1]["answers"] == ["billing"] or said(tmp_path / "same")[1]["score"] == 1.0
    assert found.batch_flips == Flips(rows=2, answers=1, scores=int(changes))
    assert said(tmp_path / "other") == said(tmp_path / "same"), "the scored answers are those of the batch"
    assert Evaluation.read(tmp_path / "other/result.json") == found
    assert judged(quick.artifact("nearest"), tmp_path / "copied", base=BaseFacts(4.0, ())).batch_flips is None


def test_all_rows_answered_alone_take_the_place_of_the_batch(
    quick: Finished, tmp_path: Path, flipping: list[str]
) -> None:
    before = judged(quick.artifact("lora"), tmp_path)
    rows = said(tmp_path)
    flipping += ["t.jsonl:2", "t.jsonl:3"]
    events: list[Event] = []
    found = evaluate.answer_alone(quick.artifact("lora"), examples(6), tmp_path, events.append)
    assert found == Evaluation.read(tmp_path / "result.json") and found.alone
    assert found.calibration != before.calibration, "that of the answers as they now are"
    same = {"batch_flips": before.batch_flips, "calibration": before.calibration}
    assert replace(found, alone=False, **same) == before
    after = said(tmp_path)
    differing = [i for i, (a, b) in enumerate(zip(rows, after)) if a["prediction"] != b["prediction"]]
    scored = sum(a["score"] != b["score"] for a, b in zip(rows, after))
    assert differing == [1, 2] and found.batch_flips == Flips(rows=6, answers=2, scores=scored)
    assert [row["score"] for row in after] == [float(row["prediction"] == row["answers"][0]) for row in after]
    assert {key: value for key, value in after[0].items() if key != "log_probability"} == {
        key: value for key, value in rows[0].items() if key != "log_probability"
    }
    assert events[-1] == Progress("evaluate", 6, 6)
    flipping.clear()  # a second time answers nothing
    assert evaluate.answer_alone(quick.artifact("lora"), examples(6), tmp_path, quiet) == found
    assert said(tmp_path) == after


def test_flips_are_counted_once_where_a_process_was_killed_before_its_end(
    quick: Finished, tmp_path: Path, flipping: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(quick.artifact("lora"), tmp_path)
    flipping += ["t.jsonl:3"]
    whole = evaluate.write_json

    def killed(path: Path, value: Evaluation, **more: Any) -> None:
        if value.alone:
            raise KeyboardInterrupt
        whole(path, value, **more)

    monkeypatch.setattr(evaluate, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate.answer_alone(quick.artifact("lora"), examples(6), tmp_path, quiet)
    monkeypatch.setattr(evaluate, "write_json", whole)
    found = evaluate.answer_alone(quick.artifact("lora"), examples(6), tmp_path, quiet)
    assert found.alone and found.batch_flips is not None and found.batch_flips.answers == 1


def test_other_rows_than_those_answered_are_refused(quick: Finished, tmp_path: Path) -> None:
    judged(quick.artifact("lora"), tmp_path)
    with assert_refused("predictions.jsonl", "its rows are not the test rows"):
        evaluate.answer_alone(quick.artifact("lora"), examples(5), tmp_path, quiet)


# evaluate MODEL|ARTIFACT


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    return tiny_comparison.write_rows(tmp_path / "test.jsonl", tiny_comparison.closed_rows(18, "today"))


@pytest.mark.parametrize("method", tiny_comparison.METHODS)
def test_an_artifact_scores_as_in_its_comparison(
    quick: Finished, closed: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_load, "load_runner", LOAD_RUNNER)  # as it was compared
    events: list[Event] = []
    document = evaluate_target(str(quick.artifact(method)), closed, DataConfig(), listen=events.append)
    arm = quick.arm(method)
    for key in ("score", "metric", "n_test", "slices", "ci_low", "ci_high", "extras"):
        assert to_document(document)[key] == (pytest.approx(arm[key]) if isinstance(arm[key], float) else arm[key]), key
    assert document.prompt_tokens == arm["prompt_tokens"] and document.ms_per_answer > 0
    assert document.test.sha256 == hashlib.sha256(closed.read_bytes()).hexdigest()
    assert events[-1] == Progress("evaluate", 18, 18)


@pytest.mark.parametrize(
    ("rows", "kind", "metric", "extras"),
    [
        (tiny_comparison.closed_rows(18, "today"), "closed", "accuracy", {"macro_f1"}),
        (tiny_comparison.short_rows(8), "short", "exact_match", {"token_f1"}),
        (tiny_comparison.free_rows(8), "free", "rouge_l", {"chrf", "length_ratio", "answer_log_probability"}),
    ],
    ids=["closed", "short", "free"],
)
def test_a_plain_model_is_told_the_task_of_the_file(
    model_folder: Path, tmp_path: Path, rows: list, kind: str, metric: str, extras: set
) -> None:
    test = tiny_comparison.write_rows(tmp_path / "test.jsonl", rows)
    document = evaluate_target(str(model_folder), test, DataConfig(), listen=quiet)
    assert (document.task, document.metric, set(document.extras)) == (kind, metric, extras)
    assert 0 <= document.ci_low <= document.score <= document.ci_high <= 1
    assert document.n_test == len(rows)
    own = evaluate_target(str(model_folder), test, DataConfig(instruction="Where? " * 9), limit=3, listen=quiet)
    assert own.n_test == 3 and own.prompt_tokens > document.prompt_tokens
    assert (own.task, own.instruction) == (kind, "Where? " * 9), "the task is that of the whole file"
    free = evaluate_target(str(model_folder), test, DataConfig(task="free", metric="chrf"), limit=3, listen=quiet)
    extras = {"rouge_l", "length_ratio", "answer_log_probability"}
    assert (free.task, free.metric, set(free.extras)) == ("free", "chrf", extras)


def test_another_metric_may_judge_an_artifact_but_not_another_instruction(quick: Finished, closed: Path) -> None:
    folder = str(quick.artifact("nearest"))
    document = evaluate_target(folder, closed, DataConfig(metric="exact_match"), listen=quiet)
    assert (document.metric, document.score) == ("exact_match", 1.0) and "token_f1" in document.extras
    with assert_refused("--metric", "token_f1 does not score a closed set of labels", "accuracy, exact_match"):
        evaluate_target(folder, closed, DataConfig(metric="token_f1"), listen=quiet)
    with assert_refused(folder, "made for the task closed", "leave out --task"):
        evaluate_target(folder, closed, DataConfig(task="free"), listen=quiet)
    with assert_refused(folder, "made with the instruction", "leave out --instruction"):
        evaluate_target(folder, closed, DataConfig(instruction="Sort it."), listen=quiet)


def test_rows_that_the_artifact_was_trained_on_are_counted(quick: Finished, closed: Path, tmp_path: Path) -> None:
    parts = [(quick.out / f"split/kept/{part}.jsonl").read_text().splitlines() for part in ("train", "valid")]
    first = [json.loads(part[0]) for part in parts]
    own = [{"text": f"  {row['messages'][-1]['content'].upper()}", "label": row["answers"][0]} for row in first]
    test = tiny_comparison.write_rows(tmp_path / "known.jsonl", [*own, *tiny_comparison.closed_rows(6, "today")])
    events: list[Event] = []
    folder = quick.artifact("nearest")
    assert evaluate_target(str(folder), test, DataConfig(), listen=events.append).trained_rows == 2
    note = "2 of 8 rows were among the rows this artifact was trained on: their score says little"
    assert events[0] == Note(note)
    events.clear()
    assert evaluate_target(str(folder), closed, DataConfig(), listen=events.append).trained_rows == 0
    assert not any(isinstance(event, Note) for event in events)
    rows = (folder / "training_rows.txt").read_text().splitlines()
    assert rows == sorted(set(rows)) and len(rows) == sum(map(len, parts)) and {len(row) for row in rows} == {16}


def test_labels_that_the_artifact_does_not_have(quick: Finished, tmp_path: Path) -> None:
    rows = tiny_comparison.closed_rows(6, "today")
    some = tiny_comparison.write_rows(tmp_path / "some.jsonl", [*rows, {**rows[0], "text": "sing", "label": "music"}])
    events: list[Event] = []
    folder = str(quick.artifact("nearest"))
    document = evaluate_target(folder, some, DataConfig(), listen=events.append)
    assert document.score == pytest.approx(6 / 7)
    assert events[0] == Note("1 of 7 rows have a label that the artifact does not know")
    other = tiny_comparison.write_rows(tmp_path / "other.jsonl", [{**row, "label": f"{row['label']}s"} for row in rows])
    with assert_refused("other.jsonl:1", "no row has one of the artifact's labels", "'billings'"):
        evaluate_target(folder, other, DataConfig(), listen=quiet)


def test_evaluate_on_the_command_line(quick: Finished, closed: Path) -> None:
    told = command("evaluate", quick.artifact("nearest"), "--test", closed, "--limit", 9, "--json")
    assert told.status == 0 and (told.document["score"], told.document["n_test"]) == (1.0, 9)
    assert told.out.count("\n") == 1 and "accuracy        1.000" in told.err
    assert "slice           even" in told.err and "ms per answer" in told.err
    for arguments, said in [
        (("absent", "--test", closed), "absent"),
        ((quick.artifact("nearest"), "--test", "absent.jsonl"), "absent.jsonl: no such file"),
        ((quick.artifact("nearest"), "--test", closed, "--limit", 0), "--limit: 0 rows are too few"),
    ]:
        told = command("evaluate", *arguments)
        assert told.status == 2 and said in told.line
