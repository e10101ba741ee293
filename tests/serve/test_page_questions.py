"""The questions of the page's screen Decide: a model's own, whether others can be asked, and what to label next."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import Running, assert_error, running
from test_linear_classifier import classifier, written

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel
from riyaz.data.questions import Choice, Question, questions_of
from riyaz.data.task import Task
from riyaz.quality import label_next
from riyaz.quality.label_next import spread_texts
from riyaz.serve.opening import Opener
from riyaz.serve.page.place import Page
from riyaz.serve.page.questions import documents
from riyaz.sources import open_source

MOOD: dict[str, Any] = {
    "name": "mood", "type": "score", "instructions": "How content?", "column": "happy",
    "levels": [{"label": "low", "description": "angry"}, {"label": "high"}],
}  # fmt: skip
MIXED: dict[str, Any] = {
    "name": "mixed", "type": "choice", "instructions": "Which?", "choices": [{"value": "true"}, {"value": True}],
}  # fmt: skip
URGENT: dict[str, Any] = {"name": "urgent", "type": "predicate", "instructions": "Is it urgent?"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A folder with `words`, a classifier of a closed set, and `several`, an artifact that was trained on questions."""
    folder = tmp_path_factory.mktemp("questions")
    shutil.copytree(model_folder, folder / "tiny")
    written(folder / "made", classifier())
    (folder / "made/artifact").rename(folder / "words")
    base = BaseModel("tiny", str(model_folder), open_source(model_folder).sha256(), 1)
    task = Task("questions", (), "decisions", "Answer.", "", questions=questions_of([MOOD, MIXED, URGENT], "here"))
    artifacts.write(folder / "several", Artifact("zero_shot", base=base, task=task), {})
    return folder


@pytest.fixture(scope="module")
def served(place: Path, model_folder: Path) -> Iterator[Running]:
    opener, page = Opener("fp32"), Page.of(place)
    for target in (model_folder, place / "words", place / "several"):
        opener.serve(str(target))
    with running(opener, page=page) as found:
        found.http.headers["x-riyaz-token"] = page.token
        yield found


def own(served: Running, model: str) -> list[dict[str, Any]]:
    answer = served.http.get("/page/questions", params={"model": model})
    assert answer.status_code == 200 and answer.json()["model"] == model, answer.text
    found: list[dict[str, Any]] = answer.json()["questions"]
    return found


def test_an_artifact_offers_the_questions_of_its_training(served: Running, model_folder: Path) -> None:
    assert own(served, "several") == [MOOD, MIXED, URGENT]
    assert own(served, model_folder.name) == [], "a plain model was trained on none"


def test_a_closed_sets_one_question_has_the_name_of_its_column_and_is_answered_by_its_head(served: Running) -> None:
    (question,) = own(served, "words")
    assert question["name"] == "label" and question["type"] == "choice" and question["instructions"].strip()
    assert {each["value"] for each in question["choices"]} == set(classifier().document.labels)
    body = {"model": "words", "input": "the order", "questions": [question]}
    (answer,) = served.post("/v1/decisions", body).json()["answers"]
    assert answer["answered_by"] == "artifact" and answer["name"] == "label"


def test_a_question_without_instructions_is_asked_in_words() -> None:
    (written_out,) = documents((Question("", "choice", " ", tuple(map(Choice, "ab"))),))
    assert questions_of([written_out], "here")[0].instructions == "Which of these is it?"


def test_questions_are_given_back_as_a_file_writes_them(served: Running) -> None:
    sent = [MOOD, MIXED, {**URGENT, "column": ""}]
    assert served.post("/page/questions", {"questions": sent}).json() == {"questions": [MOOD, MIXED, URGENT]}


@pytest.mark.parametrize(
    ("questions", "says"),
    [
        ([], "has 0 questions"), ([URGENT] * 401, "400"), ("x", "questions"), ([1], "questions.0: is 1, not an object"),
        ([{**URGENT, "name": ""}], "questions.0: has no name"), ([URGENT, URGENT], "the name 'urgent' twice"),
        ([{**URGENT, "instructions": " "}], "questions.0.instructions: is missing or empty"),
        ([{**MOOD, "levels": MOOD["levels"][:1]}], "questions.0.levels: has 1 levels"),
        ([{**MIXED, "choices": [{"value": True}, {"value": True}]}], "twice"),
        ([{**MOOD, "type": "rank"}], "questions.0.type: is 'rank'"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line(served: Running, questions: Any, says: str) -> None:
    assert says in assert_error(served.post("/page/questions", {"questions": questions}), 400)["message"]


def test_the_models_that_are_not_there(served: Running) -> None:
    for query in ("", "?model=absent", "?model=../words"):
        assert_error(served.http.get(f"/page/questions{query}"), 404)
    for path in ("questions", "label-next"):
        assert_error(served.http.get(f"/page/{path}?model=words", headers={"x-riyaz-token": "wrong"}), 401)


TEXTS = ["my card is lost", "my card is gone", "where is the parcel", "the parcel has not come", "a refund please"]


def test_the_next_rows_are_unsure_and_differ(served: Running) -> None:
    body = {"texts": TEXTS, "unsure": [0.9, 0.89, 0.8, 0.2, 0.1], "count": 2}
    assert served.post("/page/label-next", body).json() == {"places": [0, 2]}, "not 1, which says the same as 0"
    every = served.post("/page/label-next", {**body, "count": None}).json()["places"]
    assert sorted(every) == [0, 1, 2, 3, 4] and every[:2] == [0, 2]
    assert served.post("/page/label-next", {"texts": [" "], "unsure": [0]}).json() == {"places": [0]}
    same = served.post("/page/label-next", {"texts": ["", "", "a"], "unsure": [0, 1, 1]})
    assert same.status_code == 200 and sorted(same.json()["places"]) == [0, 1, 2]
    sent = json.dumps({"texts": ["half a letter \ud83d"], "unsure": [1]})
    told = served.http.post("/page/label-next", content=sent, headers={"content-type": "application/json"})
    assert told.json() == {"places": [0]}


@pytest.mark.parametrize(
    "body",
    [
        {"texts": [], "unsure": []}, {"texts": ["a"], "unsure": []}, {"texts": ["a"], "unsure": [2]},
        {"texts": ["a"], "unsure": ["x"]}, {"texts": ["a"], "unsure": [0.5, 0.5]},
        {"texts": ["a" * 2001], "unsure": [1]}, {"texts": ["a"] * 501, "unsure": [1] * 501},
        {"texts": ["a"], "unsure": [1], "count": 0},
    ],
)  # fmt: skip
def test_rows_that_cannot_be_chosen_from_are_refused(served: Running, body: dict[str, Any]) -> None:
    assert_error(served.post("/page/label-next", body), 400)


def test_the_choice_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rule on the same vectors as `riyaz data --unlabelled`."""
    monkeypatch.setattr(label_next, "pulled_embedder", lambda: None)
    unsure = np.linspace(0.2, 1, len(TEXTS))
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        label_next, "spread_choice", lambda vectors, each, count: seen.extend((vectors, each)) or [count]
    )
    assert spread_texts(TEXTS, unsure.tolist(), 3) == [3]
    assert seen[0].shape[0] == len(TEXTS) and np.array_equal(seen[1], unsure)


@pytest.mark.slow
def test_a_comparison_takes_the_questions(served: Running, place: Path) -> None:
    (place / "rows.csv").write_text("text,urgent\n" + "".join(f"the card {n} is lost,{n % 2}\n" for n in range(40)))
    (place / "q.json").write_text('{"questions": [{"name": "urgent", "type": "predicate", "instructions": "Is it?"}]}')
    body = {"data": "rows.csv", "questions": "q.json", "model": "tiny", "methods": ["nearest"]}
    planned = served.post("/page/plan", body)
    assert planned.status_code == 200, planned.text
    assert "--questions ./q.json" in planned.json()["command"]
    assert planned.json()["plan"]["task"] == "questions"
    for wrong in ("absent.json", "../q.json", "--json"):
        assert_error(served.post("/page/plan", {**body, "questions": wrong}), 404)
