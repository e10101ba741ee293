"""nearest: words, vectors or both, chosen on rows that the other rows answer; its files, its confidence, its time."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fit_context import TASK, examples, fit_context
from tiny_embedder import BagEmbedder

from riyaz import artifact
from riyaz.artifact import EXAMPLES_INDEX, EXAMPLES_VECTORS, Artifact, examples_bytes
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine import opening
from riyaz.errors import RiyazError
from riyaz.events import Event, Note
from riyaz.methods import nearest
from riyaz.predictor import CopyPredictor, open_artifact
from riyaz.predictor.example_index import ExampleIndex, label_means
from riyaz.sources import safetensors


def asking(text: str, answer: str, group: str | None = None) -> Example:
    return Example(({"role": "user", "content": text},), (answer,), group=group)


class LetterEmbedder(BagEmbedder):
    """Words with the same first letter are one word to it."""

    def embed(self, texts, progress=None) -> np.ndarray:
        return super().embed([" ".join(word[0] for word in text.split()) for text in texts], progress)


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> BagEmbedder:
    """A tiny embedder in place of minilm."""
    embedder = LetterEmbedder("minilm")
    monkeypatch.setattr(nearest, "pulled_embedder", lambda: embedder)
    monkeypatch.setattr(opening, "open_embedder", lambda name: embedder)
    return embedder


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without minilm."""
    monkeypatch.setattr(nearest, "pulled_embedder", lambda: None)


def written(context, folder: Path) -> Path:
    """The artifact of a fit."""
    fitted = nearest.fit(context)
    made = Artifact("nearest", fitted.text, fitted.weights, task=context.task, temperature=fitted.temperature)
    artifact.write(folder, made, fitted.files)
    return folder


# no two rows share a word, and those of a label share its letter
SYNONYMS = tuple(
    asking(f"{letter}{i}", answer) for i in range(9) for letter, answer in (("c", "billing"), ("d", "refund"))
)


def test_a_labels_score_is_the_mean_of_its_nearest_examples():
    near, labels = np.array([0.9, 0.1, 0.5, 0.8, 0.2]), np.array([0, 0, 0, 1, 1])
    assert label_means(near, labels, 3, 1).tolist() == [0.9, 0.8, 0.0]
    assert label_means(near, labels, 3, 2) == pytest.approx([0.7, 0.5, 0.0])
    assert label_means(near, labels, 3, 5) == pytest.approx([0.5, 0.5, 0.0]), "of fewer examples all"
    random = np.random.default_rng(0)
    near, labels = random.random(60), random.integers(0, 7, 60)
    slow = [np.sort(near[labels == label])[::-1][:3].mean() for label in range(7)]
    assert label_means(near, labels, 7, 3) == pytest.approx(slow)


def test_each_kind_of_index_ranks_by_its_own_similarity():
    rows, embedder = (
        [asking("the automobile", "a"), asking("where is it", "b"), asking("it is here", "c")],
        BagEmbedder(),
    )
    vectors = embedder.embed([row.prompt for row in rows])
    question = [{"role": "user", "content": "car"}]
    assert not ExampleIndex(rows).similarities(["car"]).any()
    by_vectors, both = (ExampleIndex(rows, kind, vectors, embedder) for kind in ("vectors", "both"))
    assert by_vectors.nearest(question, 1)[0].answer == "a" == both.nearest(question, 1)[0].answer
    assert by_vectors.similarities(["car"])[0] == pytest.approx(np.maximum(vectors @ embedder.embed(["car"])[0], 0))
    shared = both.similarities(["it is here"])[0] - by_vectors.similarities(["it is here"])[0]
    assert shared[0] == 0 < shared[1] < shared[2] < 1


def test_vectors_are_chosen_where_words_say_nothing_and_the_artifact_opens_with_them(pulled, model_folder, tmp_path):
    context = fit_context(model_folder, tmp_path, train=SYNONYMS[:12], valid=SYNONYMS[12:])
    fitted = nearest.fit(context)
    assert fitted.chosen["index"] != "words" and fitted.valid_score > 0.9
    assert fitted.chosen["examples"] == 18 == fitted.chosen["left_out"], "validation rows are examples too"
    folder = written(context, tmp_path / "made")
    document = json.loads((folder / EXAMPLES_INDEX).read_text())
    assert document["embedder"] == "minilm" and document["sha256"] == pulled.sha256
    predictor = open_artifact(folder)
    (made,) = predictor.answers([[{"role": "user", "content": "car"}]])
    assert made.text == "billing" and 0.5 < made.confidence <= 1 and made.runner_up in ("refund", "delivery")
    assert made.probabilities.sum() == pytest.approx(1, abs=1e-5)
    pulled.sha256 = "0" * 64
    with pytest.raises(RiyazError, match=r"was made with the vectors of minilm \(.*\), not \(000000000000\)") as error:
        open_artifact(folder)
    assert "pull the minilm it was made with" in error.value.hint


def test_without_minilm_words_decide_and_a_note_says_what_that_costs(bare, model_folder, tmp_path):
    told: list[Event] = []
    context = fit_context(model_folder, tmp_path, listen=told.append)
    timing = nearest.measure_time(context)
    assert [each.text for each in told if isinstance(each, Note)] == [nearest.WITHOUT]
    assert timing.fit > 0 and timing.alone > 0
    folder = written(context, tmp_path / "made")
    assert json.loads((folder / EXAMPLES_INDEX).read_text())["kind"] == "words"
    assert not (folder / EXAMPLES_VECTORS).exists()
    assert open_artifact(folder).answer([{"role": "user", "content": "where is my refund"}]) == "refund"


def test_an_artifact_of_before_is_compared_by_words(tmp_path):
    rows = examples(9, "please")
    made = Artifact("nearest", nearest.TextPart(examples_file="examples.jsonl"), nearest.WeightsPart("copy"), task=TASK)
    artifact.write(tmp_path / "old", made, {"examples.jsonl": examples_bytes(rows)})
    predictor = open_artifact(tmp_path / "old")
    assert predictor.index.kind == "words" and predictor.per_label == 1
    (answer,) = predictor.answers([rows[4].messages])
    assert answer.text == rows[4].answer and answer.confidence is None


def test_a_row_is_not_answered_by_its_group_nor_by_its_copy(bare, model_folder, tmp_path):
    """Two rows with the same words in each group, in every group with another answer: only a group knows its answer."""
    labels = TASK.labels
    grouped = tuple(asking(f"order number {i // 2}", labels[i // 2 % 3], f"g{i // 2}") for i in range(24))
    alone = tuple(replace(row, group=None) for row in grouped)
    for rows in (grouped, alone):  # without groups the copies of a prompt are left out
        context = fit_context(model_folder, tmp_path, train=rows[:18], valid=rows[18:])
        assert nearest.fit(context).valid_score < 0.7
    other = tuple(asking(f"{row.prompt} {'ab'[i % 2]}", row.answer) for i, row in enumerate(alone))
    context = fit_context(model_folder, tmp_path, train=other[:18], valid=other[18:])
    assert nearest.fit(context).valid_score == 1.0, "with two different prompts and no group each finds the other"


def test_examples_that_are_left_out_are_not_counted():
    near, labels = np.array([0.9, np.nan, 0.5, np.nan, 0.2, np.nan]), np.array([0, 0, 0, 1, 1, 2])
    there = ~np.isnan(near)
    for k in (1, 2, 5):
        scores = label_means(near, labels, 4, k)
        assert scores.tolist() == label_means(near[there], labels[there], 4, k).tolist()
        assert scores[2] == scores[3] == 0 == scores.min(), "no example is left"
    assert label_means(near, labels, 4, 2) == pytest.approx([0.7, 0.2, 0, 0])


@pytest.mark.parametrize("kind", ["vectors", "both", "words"])
def test_a_row_is_answered_as_by_an_index_without_it(kind, model_folder, tmp_path, monkeypatch):
    """Without its copies and its group too: of few rows a label one that is left out must not count as unlike. By words
    the weights of these stay those of all rows, so there the similarities are compared."""
    embedder = BagEmbedder()
    rows = [asking(f"where is the {word} {i}", TASK.labels[i % 3]) for i, word in enumerate("abcdefghi")]
    rows += [replace(rows[0], group="x"), asking("a bill came", "billing", "x"), asking("the bill", "refund", "x")]
    vectors = embedder.embed([row.prompt for row in rows])
    tried = nearest._try(
        fit_context(model_folder, tmp_path), rows, list(range(len(rows))), kind, vectors, embedder
    )  # fmt: skip
    assert [each.per_label for each in tried] == [1, 3, 5]
    index, labels = ExampleIndex(rows, kind, vectors, embedder), [TASK.labels.index(row.answer) for row in rows]
    for place, row in enumerate(rows):
        out = {place} | {other for other, each in enumerate(rows) if each.key == row.key}
        out |= {other for other, each in enumerate(rows) if row.group and each.group == row.group}
        kept = [other for other in range(len(rows)) if other not in out]
        near = index.similarities([row.prompt])[0][kept]
        if kind == "vectors":
            near = ExampleIndex([rows[other] for other in kept], kind, vectors[kept], embedder).similarities(
                [row.prompt]
            )[0]
        for each in tried:
            assert each.scores is not None
            expected = label_means(near, np.array(labels)[kept], 3, each.per_label)
            assert each.scores[place] == pytest.approx(expected, abs=1e-6), (place, each.per_label)


def test_open_answers_are_never_copied_from_a_row_that_is_left_out(bare, model_folder, tmp_path):
    """The nearest of the others may share no word with a row; where none is left there is no answer."""
    task = Task("free", (), "rouge_l", "Answer.", "")
    apart = tuple(asking(f"word{i}", f"answer{i}") for i in range(6))
    for rows in (apart, tuple(replace(row, group="one") for row in apart)):
        context = fit_context(model_folder, tmp_path, task=task, train=rows[:4], valid=rows[4:])
        assert nearest.fit(context).valid_score == 0


def test_open_answers_are_copied_from_the_nearest_example(pulled, model_folder, tmp_path):
    task = Task("free", (), "rouge_l", "Answer.", "")
    rows = tuple(asking(row.prompt, f"an answer about {row.answer} and more") for row in SYNONYMS)
    context = fit_context(model_folder, tmp_path, task=task, train=rows[:12], valid=rows[12:])
    fitted = nearest.fit(context)
    assert fitted.temperature is None and {each["per_label"] for each in fitted.chosen["candidates"]} == {1}
    predictor = open_artifact(written(context, tmp_path / "made"))
    (answer,) = predictor.answers([[{"role": "user", "content": "car"}]])
    assert answer.text == "an answer about billing and more" and answer.confidence is None


def test_several_examples_of_a_label_outvote_one(pulled):
    rows = (asking("a b", "billing"), asking("a b d", "refund"), asking("a b e", "refund"), asking("x y", "billing"))
    question = [[{"role": "user", "content": "a b"}]]
    one, two = (CopyPredictor(examples=rows, task=TASK, temperature=1.0, per_label=k) for k in (1, 2))
    assert [each.answers(question)[0].text for each in (one, two)] == ["billing", "refund"]
    assert two.answer(question[0]) == "refund" == "".join(two.stream(question[0]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (EXAMPLES_INDEX, b'{"kind": "words", "per_label": 0}', "per_label is 0"),
        (EXAMPLES_INDEX, b'{"kind": "letters"}', "letters"),
        (EXAMPLES_VECTORS, None, "holds no tensor vectors"),
    ],
)
def test_a_damaged_index_is_one_line(pulled, model_folder, tmp_path, name, content, words):
    context = fit_context(model_folder, tmp_path, train=SYNONYMS[:12], valid=SYNONYMS[12:])
    fitted = nearest.fit(context)
    files = {key: Path(value).read_bytes() if isinstance(value, Path) else value for key, value in fitted.files.items()}
    if content is None:
        safetensors.write(tmp_path / "other", {"other": np.zeros((18, 64), np.float16)})
        content = (tmp_path / "other").read_bytes()
    made = Artifact("nearest", fitted.text, fitted.weights, task=TASK, temperature=fitted.temperature)
    artifact.write(tmp_path / "made", made, files | {name: content})
    with pytest.raises(RiyazError, match=words) as error:
        open_artifact(tmp_path / "made")
    assert name in str(error.value.where)
