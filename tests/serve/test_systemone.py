"""POST /v1/systemone: the form of TypeSafe, llama.cpp and Ollama, with the answers of /v1/decisions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import Running, assert_error, running

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, WeightsPart
from riyaz.classifiers.linear import Document, LinearClassifier
from riyaz.data.questions import Choice, Question
from riyaz.data.task import Task
from riyaz.engine.parts import finished
from riyaz.predictor import deciding
from riyaz.serve.opening import Opener

STATE = "My card was charged twice, where is the refund?"
URGENT: dict[str, Any] = {"type": "noul", "instructions": "Is it urgent?"}
TEAM: dict[str, Any] = {
    "type": "choice", "instructions": "Which team?", "criteria": {"refund": "money back", "billing": None},
}  # fmt: skip
MOOD: dict[str, Any] = {"type": "score", "instructions": "How angry?", "criteria": ["calm", {"word": "cross"}, "wild"]}
ALL = {"urgent": URGENT, "team": TEAM, "mood": MOOD}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Running]:
    made = tmp_path_factory.mktemp("words")
    task = Task("closed", ("billing", "refund"), "accuracy", "Classify the text.", "")
    tensors = {"bias": np.float32([0, 1]), "words.idf": np.ones(1, np.float32), "words.weights": np.float32([[0, 3]])}
    classifier = LinearClassifier(Document(list(task.labels), 1.0, {"words": ["card"]}), tensors)
    (made / "files").mkdir()
    described = Artifact("linear", weights=WeightsPart("linear"), task=task)
    artifacts.write(made / "words", described, classifier.files(made / "files"))
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    opener.serve(str(made / "words"))
    with running(opener) as found:
        yield found


def asked(served: Running, questions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    response = served.post("/v1/systemone", {"model": "tiny", "state": STATE, "questions": questions, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_the_answers_are_those_of_the_same_questions_in_openais_form(served: Running) -> None:
    made = asked(served, ALL)
    choices = [{"value": "refund", "description": "money back"}, {"value": "billing"}]
    levels = [{"label": "calm"}, {"label": '{"word": "cross"}'}, {"label": "wild"}]
    same = [
        {"type": "predicate", "instructions": "Is it urgent?", "name": "urgent"},
        {"type": "choice", "instructions": "Which team?", "choices": choices, "name": "team"},
        {"type": "score", "instructions": "How angry?", "levels": levels, "name": "mood"},
    ]
    response = served.post("/v1/decisions", {"model": "tiny", "input": STATE, "questions": same}).json()
    urgent, team, mood = response["answers"]
    assert list(made["answers"]) == ["urgent", "team", "mood"] and made["model"] == "tiny"
    assert made["answers"]["urgent"] == {"type": "noul", "noul": urgent["probability"], "answered_by": "base"}
    assert made["answers"]["team"] == {
        "type": "choice", "choice": team["choice"], "confidence": team["confidence"], "answered_by": "base",
        "probabilities": {each["value"]: each["probability"] for each in team["probabilities"]},
    }  # fmt: skip
    assert made["answers"]["mood"] == {
        "type": "score", "score": mood["score"], "confidence": mood["confidence"], "answered_by": "base",
        "legend": {"0": "calm", "1": {"word": "cross"}, "2": "wild"},
        "probabilities": {str(each["value"]): each["probability"] for each in mood["probabilities"]},
    }  # fmt: skip
    assert made["usage"] == {"input_tokens": response["usage"]["input_tokens"], "output_tokens": 0}


def test_the_two_sides_of_a_noul_may_be_described(served: Running) -> None:
    criteria = {"true": "within the hour", "false": {"when": "later"}}
    made = asked(served, {"a": {**URGENT, "criteria": criteria}})["answers"]["a"]["noul"]
    choices = (Choice(True, "within the hour"), Choice(False, '{"when": "later"}'))
    question = Question("a", "predicate", "Is it urgent?", choices)
    conversation = [{"role": "user", "content": STATE}]
    (wanted,) = finished(deciding(served.state.opener.bases[0].plain, conversation, [question]))
    assert made == wanted.probability
    assert 0 <= asked(served, {"a": {**URGENT, "criteria": {"true": None}}})["answers"]["a"]["noul"] <= 1


def test_a_state_and_instructions_may_be_json(served: Running) -> None:
    written = asked(
        served, {"a": {**MOOD, "instructions": '{"ask": "How angry?"}'}}, state='{"n": 1, "a": ["é", null]}'
    )
    made = asked(served, {"a": {**MOOD, "instructions": {"ask": "How angry?"}}}, state={"n": 1, "a": ["é", None]})
    assert made["answers"] == written["answers"]
    listed = asked(served, {"a": URGENT}, state=[{"role": "user", "content": "hi"}])
    text = '[{"role": "user", "content": "hi"}]'
    assert listed["answers"] == asked(served, {"a": URGENT}, state=text)["answers"]


def test_an_artifact_answers_its_own_question_under_any_name(served: Running) -> None:
    made = asked(served, {"any": TEAM}, model="words")
    assert made["answers"]["any"]["choice"] == "refund" and made["answers"]["any"]["answered_by"] == "artifact"
    assert made["answers"]["any"]["confidence"] == made["answers"]["any"]["probabilities"]["refund"]
    body = {"model": "words", "state": STATE, "questions": {"any": TEAM, "urgent": URGENT}}
    found = assert_error(served.post("/v1/systemone", body), 400)
    assert found["param"] == "questions.urgent" and "ask another model" in found["message"]


def test_without_a_model_the_first_one_answers(served: Running) -> None:
    body = {"state": STATE, "questions": {"a": URGENT}}
    assert served.post("/v1/systemone", body).json()["model"] == "tiny"
    assert_error(served.post("/v1/systemone", {**body, "model": "jev-latest"}), 404)


def test_what_asks_for_nothing_changes_nothing(served: Running) -> None:
    body = {"model": "tiny", "state": STATE, "questions": {"a": {**URGENT, "weight": 1}}, "keep_alive": "5m",
            "images": [], "stream": False, "session_id": "s"}  # fmt: skip
    response = served.post("/v1/systemone", body)
    assert response.json()["answers"] == asked(served, {"a": URGENT})["answers"]
    assert response.headers["x-riyaz-ignored"] == "session_id,questions.weight"


PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"questions": {}}, "questions"), ({"questions": []}, "questions"), ({"questions": None}, "questions"),
        ({"questions": {str(i): URGENT for i in range(401)}}, "questions"), ({"questions": {"a": 3}}, "questions.a"),
        ({"state": None}, "state"), ({"state": ""}, "state"), ({"state": 3}, "state"),
        ({"state": [PICTURE]}, "state"), ({"state": {"messages": [PICTURE]}}, "state"),
        ({"images": ["data:image/png;base64,AA"]}, "images"), ({"files": ["x"]}, "files"), ({"stream": True}, "stream"),
        ({"questions": {"a": {"type": "noul"}}}, "questions.a.instructions"),
        ({"questions": {"a": {**URGENT, "instructions": ""}}}, "questions.a.instructions"),
        ({"questions": {"a": {**URGENT, "type": "predicate"}}}, "questions.a.type"),
        ({"questions": {"a": {**URGENT, "criteria": ["x"]}}}, "questions.a.criteria"),
        ({"questions": {"a": {**URGENT, "criteria": {"true": 3}}}}, "questions.a.criteria.true"),
        ({"questions": {"a": {**TEAM, "criteria": None}}}, "questions.a.criteria"),
        ({"questions": {"a": {**TEAM, "criteria": {"x": None}}}}, "questions.a.criteria"),
        ({"questions": {"a": {**TEAM, "criteria": ["x", "y"]}}}, "questions.a.criteria"),
        ({"questions": {"a": {**TEAM, "criteria": {str(i): None for i in range(256)}}}}, "questions.a.criteria"),
        ({"questions": {"a": {**TEAM, "criteria": {"x": "d" * 20_000, "y": None}}}}, "questions.a.criteria"),
        ({"questions": {"a": {**MOOD, "criteria": {"x": "y"}}}}, "questions.a.criteria"),
        ({"questions": {"a": {**MOOD, "criteria": ["x"]}}}, "questions.a.criteria"),
        ({"questions": {"a": {**MOOD, "criteria": ["x", "x"]}}}, "questions.a.criteria"),
        ({"questions": {"a": {**MOOD, "criteria": ["x", None]}}}, "questions.a.criteria.1"),
        ({"questions": {"\n": {**MOOD, "criteria": ["x"]}}}, "questions.0.criteria"),
        ({"state": "order " * 3000}, "state"), ({"keep_alive": []}, "keep_alive"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_the_server_lives_on(served: Running, change: dict, param: str) -> None:
    body = {"model": "tiny", "state": STATE, "questions": {"a": URGENT}, **change}
    found = assert_error(served.post("/v1/systemone", body), 400)
    assert found["param"] == param and len(found["message"]) < 300
    assert served.idle()


def test_an_image_is_refused_by_name(served: Running) -> None:
    body = {"model": "tiny", "state": [PICTURE], "questions": {"a": URGENT}}
    assert "image_url in message 0" in assert_error(served.post("/v1/systemone", body), 400)["message"]


def test_numbers_that_are_none_are_refused(served: Running) -> None:
    for state in ("NaN", '{"a": 1e999}'):
        text = f'{{"state": {state}, "questions": {{"a": {{"type": "noul", "instructions": "x"}}}}}}'
        headers = {"content-type": "application/json"}
        assert_error(served.http.post("/v1/systemone", content=text, headers=headers), 400)
