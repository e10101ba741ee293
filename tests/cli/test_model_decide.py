"""`Model.decide`: typed questions in Python, in every form in which they may be given, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from refusals import assert_refused
from test_linear_classifier import classifier, written

import riyaz
from riyaz.data.questions import Question, question_of
from riyaz.library.model import Model

URGENT = {"name": "urgent", "type": "predicate", "instructions": "Is it urgent?"}
MOOD = {
    "name": "mood",
    "type": "score",
    "instructions": "How content?",
    "levels": [{"label": "low"}, {"label": "high"}],
}
TOPIC = {
    "name": "topic", "type": "choice", "instructions": "What is it about?",
    "choices": [{"value": "refund"}, {"value": "delivery"}, {"value": "billing"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return riyaz.open(written(tmp_path_factory.mktemp("linear"), classifier()))


@pytest.fixture(scope="module")
def tiny(model_folder: Path) -> Model:
    return riyaz.open(model_folder)


def test_an_artifact_decides_its_own_question(linear: Model) -> None:
    answers = linear.decide("my card")
    label = answers["label"]
    assert [*answers] == ["label"] and label is not None and label.trained and label.score is None
    assert label.answer == "billing" and label.confidence == max(label.probabilities.values())
    (p,) = classifier().probabilities(["my card"]).tolist()
    assert label.probabilities == dict(zip(["billing", "delivery", "refund"], p))
    assert isinstance(label, riyaz.Decision) and "question" not in repr(label)


def test_a_list_of_texts_gives_a_list(linear: Model) -> None:
    several = linear.decide(["my card", "the order", [{"role": "user", "content": "money"}]])
    assert [each["label"].answer for each in several if each["label"]] == ["billing", "delivery", "refund"]
    assert several[0] == linear.decide([{"role": "user", "content": "my card"}]) == linear.decide("my card")
    assert linear.decide([]) == []


def test_questions_are_dictionaries_questions_a_document_or_a_path(tiny: Model, tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps({"questions": [URGENT, MOOD, TOPIC]}))
    asked = [question_of(each, "") for each in (URGENT, MOOD, TOPIC)]
    forms: list[Any] = [[URGENT, MOOD, TOPIC], asked, {"questions": [URGENT, MOOD, TOPIC]}, tmp_path / "q.json"]
    first, *others = [tiny.decide("where is my order?", form) for form in forms]
    assert all(each == first for each in others)
    urgent, mood, topic = (first[name] for name in ("urgent", "mood", "topic"))
    assert urgent and mood and topic and not urgent.trained
    assert urgent.answer is (urgent.probabilities[True] >= 0.5) and [*urgent.probabilities] == [True, False]
    assert mood.score == pytest.approx(mood.probabilities["high"], abs=1e-6) and topic.score is None
    for each in urgent, mood, topic:
        assert sum(each.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert each.confidence == max(each.probabilities.values())


def test_a_question_that_nothing_answers_is_none(linear: Model) -> None:
    answers = linear.decide("my card", [TOPIC, URGENT])
    assert answers["urgent"] is None and answers["topic"] is not None and answers["topic"].answer == "billing"
    with assert_refused("was trained on none of these questions", "leave out questions to ask its own"):
        linear.decide("my card", [URGENT])


def test_wrong_questions_and_texts_are_one_line(linear: Model, tiny: Model) -> None:
    for questions, what in (
        ([], "questions: has 0 questions; give 1 to 400"),
        ([TOPIC, TOPIC], "questions: has the name 'topic' twice"),
        ([{**URGENT, "instructions": ""}], "questions.0.instructions: is missing or empty"),
        ([{**TOPIC, "choices": [{"value": "a"}]}], "questions.0.choices: has 1 choices"),
        ([{"type": "predicate", "instructions": "So?"}], "questions.0: has no name"),
        (7, "questions: is 7, not a list"),
        ("no/such.json", "no/such.json: no such file"),
    ):
        with assert_refused(what):
            linear.decide("my card", questions)  # type: ignore[arg-type]
    with assert_refused("was not trained on questions", "give some with questions"):
        tiny.decide("my card")
    with assert_refused("text: the message is empty"):
        linear.decide(" ")
    with assert_refused("text row 2: the message is empty"):
        linear.decide(["a", ""])
    with assert_refused("the prompt has", "does not fit the context of 1024"):
        tiny.decide("the order " * 2000, [URGENT])


def test_a_question_object_is_asked_as_it_is(linear: Model) -> None:
    (own,) = [each.question for each in linear.decide("my card").values() if each]
    assert isinstance(own, Question) and own.name == "label" and own.labels == ("billing", "delivery", "refund")
