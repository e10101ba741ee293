"""Rows that say of one answer whether it is good: their forms, what is refused, and the task that they make."""

import json
from pathlib import Path
from typing import Any

import pytest
from refusals import assert_refused

from riyaz.data import Example
from riyaz.data.formats import load
from riyaz.data.judging import accepted_rows
from riyaz.data.task import detect


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


FORMS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "q", "completion": "a"},
    "responses": {"prompt": "q", "response": "a"},
    "messages": {"prompt": [user("q")], "completion": [said("a")]},
    "messages and texts": {"prompt": [user("q")], "completion": "a"},
}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def many(count: int = 30, **labels: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"q {n}", "completion": "yes" if n % 3 else "no", "label": n % 2 == 0} | labels
            for n in range(count)]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("label", "good"), [
    (True, True), (False, False), (1, True), (0, False), (1.0, True), ("True", True), ("false", False),
    (" up ", True), ("Down", False), ("1", True),
])  # fmt: skip
def test_every_form_gives_a_prompt_and_one_answer(form: str, label: Any, good: bool, tmp_path: Path) -> None:
    path = written(tmp_path, {**FORMS[form], "label": label})
    data = load(path)
    (example,) = data.examples
    assert (example.messages, example.answers, example.desirable) == ((user("q"),), ("a",), good)
    assert example.slice == ("thumbs up" if good else "thumbs down") and not data.unused_columns
    assert Example.from_record(example.to_record()) == example
    assert load(path, like=data.reading).examples == (example,)


def test_a_slice_of_the_rows_stays(tmp_path: Path) -> None:
    (example,) = load(written(tmp_path, {**FORMS["texts"], "label": True, "slice": "x"})).examples
    assert example.slice == "x"


@pytest.mark.parametrize(("row", "words"), [
    ({"prompt": "q", "completion": "a"}, "the row has no 'label'"),
    ({"prompt": "q", "completion": "a", "label": None}, "the row has no 'label'"),
    ({"prompt": "q", "completion": "a", "label": "maybe"}, "'label' holds 'maybe', not true or false"),
    ({"prompt": "q", "completion": "a", "label": 2}, "'label' holds '2', not true or false"),
    ({"prompt": "q", "completion": " ", "label": True}, "the row has no 'completion'"),
    ({"prompt": "q", "completion": None, "label": True}, "the row has no 'completion'"),
    ({"prompt": " ", "completion": "a", "label": True}, "the row has no 'prompt'"),
    ({"prompt": [user("q")], "completion": [user("r")], "label": True}, "no assistant turn"),
])  # fmt: skip
def test_a_row_without_an_answer_or_a_thumb_is_refused(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    rows = [{**FORMS["texts"], "label": good} for good in (True, False)]
    with assert_refused("rows.jsonl:3", words):
        load(written(tmp_path, *rows, row))


def test_digits_beside_other_numbers_are_labels_of_another_kind(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {n}", "completion": "a", "label": n % 3} for n in range(9)]
    assert load(written(tmp_path, *rows)).unused_columns == ("label",)


def test_numbers_beside_a_missing_one_are_thumbs(tmp_path: Path) -> None:
    rows = [{**FORMS["texts"], "label": label} for label in (1.0, float("nan"), 0.0)]  # as pandas writes them
    with assert_refused("rows.jsonl:2", "the row has no 'label'"):
        load(written(tmp_path, *rows))


def test_the_task_is_judged_by_thumbs(tmp_path: Path) -> None:
    task = detect(load(written(tmp_path, *many())))
    assert (task.kind, task.metric, task.labels) == ("free", "thumbs", ()), "answers that repeat are no labels here"
    plain = [{"prompt": f"q {n}", "completion": f"the answer {n}"} for n in range(30)]
    with assert_refused("rows.jsonl:1", "the row has no thumb, by which thumbs judges", "a column `label`"):
        detect(load(written(tmp_path, *plain)), metric="thumbs")


@pytest.mark.parametrize(("label", "words"), [(True, "is true in all 30 rows"), ("down", "is false in all 30 rows")])
def test_thumbs_of_one_kind_are_refused_and_can_be_imitated(label: Any, words: str, tmp_path: Path) -> None:
    path = written(tmp_path, *many(label=label))
    with assert_refused("rows.jsonl: 'label'", words, "nothing to tell apart", "--answer-column completion"):
        detect(load(path))
    assert detect(load(path, answer_column="completion")).metric != "thumbs"


def test_bad_answers_are_not_imitated(tmp_path: Path) -> None:
    rows = load(written(tmp_path, *many(9))).examples
    assert [row.desirable for row in accepted_rows(rows)] == [True] * 5
    assert accepted_rows(rows[1:2]) == rows[1:2], "there is no other"
