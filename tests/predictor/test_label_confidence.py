"""How sure a closed set's answers are: probabilities of all labels, the same number wherever an answer is asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_llama import label_log_probabilities

from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.metrics.calibration import probabilities
from riyaz.predictor import ClosedPredictor, CopyPredictor, Prediction, closed, open_model, predictor_for
from riyaz.predictor.prediction import label_prediction
from riyaz.retrieval.lexical import BM25

TASK = Task("closed", ("billing", "delivery", "refund", "delivery delay"), "accuracy", "Classify the text.", "")
QUESTIONS = [[{"role": "user", "content": text}] for text in ("where is it?", "\n\nwho pays?", "", "my refund, now")]


@pytest.fixture(scope="module")
def classifier(model_folder: Path) -> ClosedPredictor:
    model = open_model(model_folder)
    made = predictor_for(replace(model, text=TextPart(TASK.instruction), task=TASK), temperature=1.5)
    assert isinstance(made, ClosedPredictor)
    return made


@pytest.mark.parametrize("calibrated", [False, True])
def test_confidence_is_the_softmax_over_all_labels(
    classifier: ClosedPredictor, calibrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed, "WITHIN", np.inf)
    predictor = replace(classifier, calibrated=calibrated)
    scores = label_log_probabilities(predictor, QUESTIONS) + predictor.offsets
    for row, wanted, made in zip(scores, probabilities(scores, 1.5), predictor.answers(QUESTIONS)):
        best, second = np.argsort(-row)[:2]
        assert (made.text, made.runner_up) == (TASK.labels[best], TASK.labels[second])
        assert made.confidence == pytest.approx(wanted[best], abs=1e-4)
        assert made.probabilities == pytest.approx(wanted, abs=1e-4)
        assert made.log_probability == pytest.approx(row[best] - predictor.offsets[best], abs=1e-4)


@pytest.mark.parametrize("within", [0.5, 3.0])
def test_what_is_far_from_the_best_is_estimated_alike_alone_and_among_others(
    classifier: ClosedPredictor, within: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed, "WITHIN", within)
    exact, scores = label_log_probabilities(classifier, QUESTIONS), classifier.label_scores(QUESTIONS * 8)
    for question, wanted, row in zip(QUESTIONS, exact, scores):
        near = wanted >= min(wanted.max() - within, np.sort(wanted)[-2])
        assert row[near] == pytest.approx(wanted[near], abs=1e-3)
        assert (row[~near] < row[near].min()).all()
        assert classifier.label_scores([question])[0] == pytest.approx(row, abs=1e-3)


def test_an_answer_is_as_sure_alone_as_among_others(classifier: ClosedPredictor) -> None:
    together = classifier.answers(QUESTIONS * 8)
    for question, one in zip(QUESTIONS, together):
        (alone,) = classifier.answers([question])
        assert alone == replace(one, log_probability=alone.log_probability, confidence=alone.confidence)
        assert alone.confidence == pytest.approx(one.confidence, abs=2e-4)
    assert classifier.answers([]) == []


def test_without_a_temperature_nothing_is_said_of_confidence(classifier: ClosedPredictor) -> None:
    (made,) = replace(classifier, temperature=None).answers(QUESTIONS[:1])
    assert (made.confidence, made.runner_up, made.probabilities) == (None, None, None)


def test_a_single_label_is_certain_and_has_no_runner_up() -> None:
    made = label_prediction(("only",), np.array([-3.0]), np.array([1.0], np.float32))
    assert (made.text, made.confidence, made.runner_up) == ("only", 1.0, None)


def test_a_copied_label_is_as_likely_as_its_nearest_example_is_near() -> None:
    texts = {"my refund is late": "refund", "the refund": "refund", "a late parcel": "delivery", "my bill": "billing"}
    examples = tuple(
        Example(({"role": "user", "content": text},), (label,), where=f"r:{i}")
        for i, (text, label) in enumerate(texts.items())
    )
    predictor = CopyPredictor(examples=examples, task=TASK, temperature=0.5)
    question = [{"role": "user", "content": "is my refund late?"}]
    (made,), (scores,) = predictor.answers([question]), predictor.label_scores([question])
    near = BM25(list(texts)).scores("is my refund late?")
    assert scores == pytest.approx([near[3], near[2], near[0], 0])  # a label without an example has 0
    assert made.text == predictor.answer(question) == "refund"
    assert made.confidence == pytest.approx(probabilities(scores[None], 0.5)[0, 2], abs=1e-4)
    assert made.runner_up == TASK.labels[np.argsort(-scores)[1]]
    (unknown,) = predictor.answers([[{"role": "user", "content": "?"}]])
    assert unknown.text == predictor.answer([{"role": "user", "content": "?"}]) == "refund"  # all are equally near
    assert unknown.confidence == 0.25 and unknown.runner_up == "billing"
    assert replace(predictor, temperature=None).answers([question]) == [Prediction("refund")]
