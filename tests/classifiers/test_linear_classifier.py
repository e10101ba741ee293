"""A classifier's artifact: opened, its answers, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fit_context import TASK
from refusals import assert_refused
from tiny_embedder import BagEmbedder
from tiny_linear import LABELS, classifier, written

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact
from riyaz.classifiers.linear import LinearClassifier
from riyaz.classifiers.terms import known_terms, piece_terms, term_entries, term_rows, vocabulary, word_terms
from riyaz.engine import opening
from riyaz.predictor import open_artifact, open_on, source_for
from riyaz.sources import safetensors


def test_an_artifact_answers_with_its_confidence(tmp_path: Path) -> None:
    made = classifier()
    opened = open_artifact(written(tmp_path, made))
    assert not opened.has_model and opened.has_labels and opened.from_set and opened.answers_are == "chosen from labels"
    texts = ["my card", "the order, the order and the money", ""]
    answers = opened.answers([[{"role": "user", "content": text}] for text in texts])
    assert [answer.text for answer in answers] == ["billing", "delivery", "billing"]
    sure, torn, blank = answers
    assert sure.confidence == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=5e-5), "4 / temperature 2"
    assert torn.runner_up == "refund" and blank.confidence == pytest.approx(1 / 3, abs=5e-5)
    for answer, row in zip(answers, made.probabilities(texts)):
        assert answer.probabilities is not None and answer.probabilities.dtype == np.float32
        np.testing.assert_array_equal(answer.probabilities, row)
        assert answer.probabilities.sum() == pytest.approx(1)
        assert answer.log_probability is None
    assert "".join(opened.stream([{"role": "user", "content": "money"}])) == "refund"


def test_it_needs_no_base_and_is_opened_beside_one(tmp_path: Path) -> None:
    folder = written(tmp_path, classifier())
    assert source_for(folder) is None
    predictor, adapter = open_on(None, folder, "intents")
    assert adapter is None and predictor.answer([{"role": "user", "content": "order"}]) == "delivery"


def test_it_is_answered_with_its_own_embedder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = BagEmbedder("bag"), BagEmbedder("another")
    folder = written(tmp_path, classifier(own))
    monkeypatch.setattr(opening, "open_embedder", lambda name: own)
    assert open_artifact(folder).answer([{"role": "user", "content": "money"}]) == "refund"
    monkeypatch.setattr(opening, "open_embedder", lambda name: other)
    with assert_refused(f"was made with the vectors of bag ({own.sha256[:12]}), not ({other.sha256[:12]})"):
        open_artifact(folder)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"bias": np.zeros(2, np.float32)}, "bias is F32 (2,), not F32 (3,)"),
        ({"words.weights": np.zeros((3, LABELS))}, "words.weights is F64 (3, 3), not F32 (3, 3)"),
        ({"words.idf": np.array([1, np.nan, 1], np.float32)}, "words.idf holds NaN or an infinity"),
        ({"more": np.zeros(1, np.float32)}, "the tensor more is unknown"),
        ({"bias": None}, "the tensor bias is missing"),
    ],
)
def test_damaged_tensors_are_one_line(tmp_path: Path, change: dict[str, np.ndarray | None], line: str) -> None:
    tensors = {name: value for name, value in {**classifier().tensors, **change}.items() if value is not None}
    path = tmp_path / artifacts.CLASSIFIER_WEIGHTS
    files = classifier().files(tmp_path)
    (tmp_path / artifacts.CLASSIFIER).write_bytes(files[artifacts.CLASSIFIER])  # type: ignore[arg-type]
    safetensors.write(path, tensors)
    with assert_refused(line):
        LinearClassifier.read(tmp_path, TASK.labels)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"temperature": 0.0}, "the temperature is 0.0"),
        ({"terms": {"rhymes": []}}, "unknown terms 'rhymes'"),
        ({"labels": ["delivery", "billing", "refund"]}, "its labels are not those of the task"),
        ({"terms": {"words": "card"}}, "terms"),
    ],
)
def test_a_damaged_description_is_one_line(tmp_path: Path, change: dict[str, object], line: str) -> None:
    classifier().files(tmp_path)
    document = {"labels": list(TASK.labels), "temperature": 1.0, "terms": {}, "embedder": None} | change
    (tmp_path / artifacts.CLASSIFIER).write_text(json.dumps(document))
    with assert_refused(line):
        LinearClassifier.read(tmp_path, TASK.labels)


def test_an_artifact_needs_its_files_and_its_labels(tmp_path: Path) -> None:
    folder = written(tmp_path, classifier())
    files = {artifacts.CLASSIFIER: folder / artifacts.CLASSIFIER}
    artifact = Artifact.read(folder)
    artifacts.write(tmp_path / "less", artifact, files)
    with assert_refused("lists no 'classifier.safetensors', which its parts need"):
        open_artifact(tmp_path / "less")
    one = replace(artifact, task=replace(TASK, labels=("billing",)))
    artifacts.write(tmp_path / "one", one, classifier().files(tmp_path))
    with assert_refused("names fewer than two labels"):
        open_artifact(tmp_path / "one")


def test_terms_are_found_in_every_script() -> None:
    assert word_terms("My CARD, again") == ["my", "card", "again", "my card", "card again"]
    assert word_terms("カード決済") == [*"カード決済", *("カ ー", "ー ド", "ド 決", "決 済")]
    assert "картой" in word_terms("Где расчёт картой?") and "カード" in piece_terms("カード決済")
    assert {" m", "my", "y "} <= set(piece_terms("My")) and word_terms("") == piece_terms("  ") == []


def test_terms_times_weights_are_those_of_scipy_bit_by_bit() -> None:
    texts = ["my card, my card", "", "the order of a card and the money", "none of these"]
    terms, idf = vocabulary("words", texts[:3], known_terms("words", texts[:3]), 100)
    places = {term: i for i, term in enumerate(terms)}
    weights = np.random.default_rng(0).standard_normal((len(terms), 5)).astype(np.float32)
    entries = term_entries("words", texts, places, idf)
    np.testing.assert_array_equal(entries.times(weights), term_rows("words", texts, places, idf) @ weights)
    assert term_entries("words", [], places, idf).times(weights).shape == (0, 5)


def test_the_commonest_terms_are_kept() -> None:
    terms, idf = vocabulary("words", ["a b b d", "b c c", "c b d"], {"a", "b", "c"}, 2)
    assert terms == ["b", "c"] and idf.tolist() == pytest.approx([1.0, 1 + np.log(4 / 3)])
