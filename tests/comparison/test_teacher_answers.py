"""A teacher's answers: which are known already, how its labels become those of the rows, and its score where there are
folds."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_comparison
from fake_endpoint import fake_endpoint
from fit_context import TASK, examples
from refusals import assert_refused

from riyaz.artifact import Artifact
from riyaz.comparison import measure, prompts, teach
from riyaz.comparison.fit_part import learned_rows
from riyaz.comparison.folder import ComparisonFolder
from riyaz.config import DataConfig
from riyaz.data import Example
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.events import quiet
from riyaz.json_files import write_lines
from riyaz.methods import METHODS
from riyaz.methods.fitting.taught import answered_rows
from riyaz.results import Answer, ArmResult
from riyaz.sources import open_source
from riyaz.teacher import endpoint, outputs
from riyaz.teacher.model import among
from riyaz.teacher.outputs import Output, of_label, prompt_key

ADDRESS = "http://localhost:8000/v1"
ROWS = {prompt_key(row.messages): row for row in examples(6, "now")}


def by_model(predictor: Any, path: Path, task: Task) -> dict[str, Output]:
    entry = {"path": str(path), "sha256": "0"}
    return teach.by_model(predictor, entry, task, ROWS, math.inf, quiet)


def test_texts_of_another_length_are_not_taken_from_an_earlier_command(
    own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int | None] = []

    def answered(predictor: Any, task: Task, rows: list[Example]) -> list[Output]:
        limits.append(task.max_new_tokens)
        return [Output(f"text of {task.max_new_tokens}") for _ in rows]

    monkeypatch.setattr(teach, "answered", answered)
    model, task = SimpleNamespace(served="fp32", task=None), Task("free", (), "rouge_l", "Help.", "")
    for limit in (5, 5, 50):
        made = by_model(model, tmp_path / "model", replace(task, max_new_tokens=limit))
        assert {output.text for output in made.values()} == {f"text of {limit}"}
    assert limits == [5, 50]


def test_rows_of_fewer_labels_find_what_an_artifact_has_answered(
    own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where prompts were answered, and no answer was one of its labels."""
    own = replace(TASK, labels=("a", "b", "c"))
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    counts: list[int] = []

    def answered(predictor: Any, task: Task, rows: list[Example]) -> list[Output]:
        assert task.labels == own.labels
        counts.append(len(rows))
        return [Output(own.labels[place % 3], of_label(np.log(p[place % 3]))) for place in range(len(rows))]

    monkeypatch.setattr(teach, "answered", answered)
    (tmp_path / "riyaz.json").write_text("{}")
    artifact = SimpleNamespace(served=None, task=own)
    assert [each.text for each in by_model(artifact, tmp_path, own).values()] == ["a", "b", "c"] * 2
    fewer = by_model(artifact, tmp_path, replace(TASK, labels=("b", "a")))
    assert counts == [6], "nothing is answered again"
    assert [each.text for each in fewer.values()] == ["a", "b", ""] * 2
    softs = np.exp([each.soft.log_p[0] for each in fewer.values() if each.soft is not None])
    assert softs[:3] == pytest.approx(np.array([[1 / 3, 2 / 3], [8 / 9, 1 / 9], [0.5, 0.5]]), abs=1e-4)


def test_labels_that_differ_in_case_keep_their_probability() -> None:
    output = among(replace(TASK, labels=("Refund", "billing")), ("refund", "billing"),
                   Output("refund", of_label(np.log([0.9, 0.1]))))  # fmt: skip
    assert output.text == "Refund" and output.soft is not None
    assert np.exp(output.soft.log_p[0]) == pytest.approx([0.9, 0.1], abs=1e-4)


def test_the_task_of_prompts_has_the_users_limit_and_no_labels_that_nobody_knows() -> None:
    task = prompts._task(ADDRESS, DataConfig(max_new_tokens=12))
    assert (task.kind, task.max_new_tokens) == ("free", 12), "as the comparison then asks again for what it lacks"
    with assert_refused("which labels there are", "--task", "--rows"):
        prompts._task(ADDRESS, DataConfig(task="closed"))


def test_a_teacher_answers_the_prompts_of_bad_answers_too(tmp_path: Path) -> None:
    rows = [replace(row, desirable=place % 2 == 0) for place, row in enumerate(examples(4, "now"))]
    assert len(learned_rows(rows, METHODS["distil"])) == 4 and len(learned_rows(rows, METHODS["lora"])) == 2
    outputs.write(tmp_path, {prompt_key(row.messages): Output("thanks") for row in rows})
    assert [(row.answer, row.desirable) for row in answered_rows(tmp_path, rows)] == [("thanks", True)] * 4
    plain = [replace(row, desirable=None) for row in rows]
    assert {row.desirable for row in answered_rows(tmp_path, plain)} == {None}


def test_a_teacher_has_a_score_where_rows_are_tested_in_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, folder = examples(8, "now"), ComparisonFolder(tmp_path)
    folds = tuple(Split(rows[:4], rows[4:6], rows[start : start + 4]) for start in (0, 4))
    assert folder.save_split(Split(rows[:6], rows[6:], (), folds)) == ["fold-1", "fold-2", "kept"]
    monkeypatch.setattr(teach, "answers_alone", lambda predictor, rows: ([], [2.0] * len(rows)))
    monkeypatch.setattr(teach, "predict", lambda predictor, rows: rows)
    monkeypatch.setattr(teach, "score", lambda task, made, rows: SimpleNamespace(
        each=[float(row.where != rows[0].where) for row in rows]))  # fmt: skip
    ms, scores = teach._judged(folder, SimpleNamespace(), TASK)  # type: ignore[arg-type]
    assert ms == 2.0 and sum(scores.values()) == 7 and len(scores) == 8
    for part, points in (("fold-1", (1, 1, 0, 0)), ("fold-2", (1, 1, 1, 0))):
        path = folder.part("distil", part)
        path.mkdir(parents=True)
        tested = folder.rows(part, "test")
        write_lines(path / "predictions.jsonl", (
            vars(Answer(row.where, row.prompt, [row.answer], "x", float(point)))
            for row, point in zip(tested, points)
        ))  # fmt: skip
    arm = ArmResult("distil", "ok", about=METHODS["distil"].about, metric="accuracy")
    known = teach._of_arm(folder, arm, "T", teach.Lesson(8, 8, True, 1.0, ms, scores))
    assert known is not None and (known.rows, known.score, known.student) == (8, 7 / 8, 5 / 8)
    assert known.difference == pytest.approx(-2 / 8)


def test_a_student_of_long_answers_writes_as_long_ones_and_keeps_no_accepted_answer(
    tmp_path: Path, asked: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(endpoint.KEY, raising=False)
    after, limits = measure._after_training, list[int]()
    monkeypatch.setattr(
        measure, "_after_training", lambda known, limit, context: limits.append(limit) or after(known, limit, context)
    )
    rows = tiny_comparison.write_rows(tmp_path / "rows.jsonl", [
        {"instruction": f"please help with order {n}", "response": "hidden gold" if n % 2 else "hidden silver"}
        for n in range(30)
    ])  # fmt: skip
    long = "where is the order of the card and when does it arrive at the desk on the third floor please"
    with fake_endpoint(lambda handler: handler.answer(long)) as fake, tiny_comparison.small_machine(tmp_path) as patch:
        tiny_comparison.workers_inside(patch)
        told = tiny_comparison.command(
            "adapt", "distil", rows, *asked, "--teacher", fake.address, "--teacher-model", "m", "--task", "free",
            "--metric", "rouge_l", "--out", tmp_path / "out",
        )  # fmt: skip
    assert told.status == 0, told.err
    text = (tmp_path / "out/riyaz.json").read_text()
    assert "hidden" not in text, "answers that the student must not see"
    made = Artifact.read(tmp_path / "out")
    assert made.text.common == (long,)
    (needed,) = open_source(str(asked[1])).tokenizer().answer_ids([long])
    assert made.max_new_tokens >= len(needed), "its answers are not cut where accepted ones end"
    assert limits == [made.max_new_tokens], "nor is their time estimated"
