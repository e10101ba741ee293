"""Rows with a better and a worse answer: their forms, what is refused, and the task that they make."""

import json
from pathlib import Path
from typing import Any

import pytest
from refusals import assert_refused

from riyaz.data import Example
from riyaz.data.formats import load
from riyaz.data.task import detect
from riyaz.serve.page import votes


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


FORMS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "messages": {"prompt": [user("q")], "chosen": [said("good")], "rejected": [said("bad")]},
    "messages and texts": {"prompt": [user("q")], "chosen": "good", "rejected": "bad"},
    "whole conversations": {"chosen": [user("q"), said("good")], "rejected": [user("q"), said("bad")]},
    "OpenAI": {
        "input": {"messages": [user("q")]}, "preferred_output": [said("good")], "non_preferred_output": [said("bad")],
    },
}  # fmt: skip


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_a_prompt_and_two_answers(form: str, tmp_path: Path) -> None:
    (example,) = load(written(tmp_path, FORMS[form])).examples
    assert (example.messages, example.answers, example.rejected) == ((user("q"),), ("good",), "bad")
    assert Example.from_record(example.to_record()) == example
    again = load(written(tmp_path, FORMS[form]), like=load(written(tmp_path, FORMS[form])).reading)
    assert again.examples == (example,)


def test_earlier_turns_and_a_system_turn_are_the_prompts(tmp_path: Path) -> None:
    before = [{"role": "system", "content": "s"}, user("one"), said("two"), user("three")]
    row = {"chosen": [*before, said("good")], "rejected": [*before, said("bad")], "slice": "x"}
    (example,) = load(written(tmp_path, row)).examples
    assert list(example.messages) == before and example.slice == "x" and example.turn == 2


@pytest.mark.parametrize(("row", "words"), [
    ({"chosen": [user("q"), said("good")], "rejected": [user("other"), said("bad")]}, "answer different prompts"),
    ({"prompt": "q", "chosen": " good", "rejected": "good "}, "are the same answer"),
    ({"prompt": "q", "chosen": "good", "rejected": None}, "the row has no 'rejected'"),
    ({"prompt": "q", "chosen": " ", "rejected": "bad"}, "the row has no 'chosen'"),
    ({"prompt": " ", "chosen": "good", "rejected": "bad"}, "the row has no 'prompt'"),
    ({"prompt": "q", "chosen": {"a": 1}, "rejected": "bad"}, "chosen"),
])  # fmt: skip
def test_a_row_without_two_different_answers_to_one_prompt_is_refused(
    row: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with assert_refused("rows.jsonl:2", words):
        load(written(tmp_path, FORMS["texts"], row))


def test_votes_are_rows_and_ties_are_left_out(tmp_path: Path) -> None:
    body = {"prompt": "q", "a": {"model": "m", "text": "one"}, "b": {"model": "n", "text": "two"}}
    rows = [votes.row_of({**body, "choice": choice}) for choice in ("a", "b", "tie")]
    data = load(written(tmp_path, *rows), skip_incomplete=True)
    assert [(each.answer, each.rejected) for each in data.examples] == [("one", "two"), ("two", "one")]
    assert data.incomplete == 1


def test_the_task_is_judged_by_pairs(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {n}", "chosen": "yes" if n % 2 else "no", "rejected": "maybe"} for n in range(30)]
    task = detect(load(written(tmp_path, *rows)))
    assert (task.kind, task.metric, task.labels) == ("free", "preferred", ()), "answers that repeat are no labels here"
    assert detect(load(written(tmp_path, *rows)), metric="chrf", kind="free").metric == "chrf"
    plain = [{"prompt": f"q {n}", "completion": f"the answer {n}"} for n in range(30)]
    with assert_refused("rows.jsonl:1", "no rejected answer"):
        detect(load(written(tmp_path, *plain)), metric="preferred")
