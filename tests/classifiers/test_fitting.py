"""A classifier is fitted: what is chosen, what the labels' names add, and the limits on memory."""

from collections.abc import Sequence

import numpy as np
import pytest
from fit_context import TASK, examples
from tiny_embedder import BagEmbedder

from riyaz.classifiers import fitting
from riyaz.classifiers.fitting import FittedClassifier, fit_classifier, label_words, work_of

ROWS = examples(36, "please")
TEXTS, ANSWERS = [row.prompt for row in ROWS], [row.answer for row in ROWS]


def fitted(
    texts: Sequence[str] = TEXTS, answers: Sequence[str] = ANSWERS, labels: Sequence[str] = TASK.labels,
    embedder: BagEmbedder | None = None,
) -> FittedClassifier:  # fmt: skip
    return fit_classifier(texts, answers, labels, embedder, 0)


def answered(made: FittedClassifier, *texts: str, labels: Sequence[str] = TASK.labels) -> list[str]:
    return [labels[label] for label in made.classifier.probabilities(texts).argmax(axis=1)]


@pytest.mark.parametrize("embedder", [None, BagEmbedder()])
def test_it_learns_rows_and_predicts_those_that_it_has_not_seen(embedder: BagEmbedder | None) -> None:
    made = fitted(embedder=embedder)
    assert answered(made, *TEXTS) == ANSWERS
    assert answered(made, "my refund, where is the money", "when does it arrive") == ["refund", "delivery"]
    assert sorted(made.held) == list(range(len(TEXTS))), "every row is held out once"
    right = np.array([TASK.labels.index(answer) for answer in ANSWERS])[made.held]
    assert (made.logits.argmax(axis=1) == right).mean() > 0.9
    assert made.probabilities.sum(axis=1) == pytest.approx(np.ones(len(TEXTS)))
    assert made.chosen["temperature"] == made.classifier.document.temperature
    assert len(made.chosen["candidates"]) == 6


def test_a_row_is_held_out_from_the_fit_that_answers_it() -> None:
    """Answers drawn at random cannot be predicted, however well they are learned."""
    drawn = np.random.default_rng(5).choice(TASK.labels, 200).tolist()
    made = fitted([f"word{i} other{i}" for i in range(200)], drawn)
    right = np.array([TASK.labels.index(answer) for answer in drawn])[made.held]
    assert (made.logits.argmax(axis=1) == right).mean() < 0.5
    assert made.probabilities.max(axis=1).mean() < 0.5, "and the temperature says so"


def test_the_same_rows_give_the_same_classifier() -> None:
    one, other = fitted(), fitted()
    assert one.classifier.document == other.classifier.document
    for name, tensor in one.classifier.tensors.items():
        np.testing.assert_array_equal(tensor, other.classifier.tensors[name])


def test_a_label_without_rows_is_known_by_its_name() -> None:
    labels = (*TASK.labels, "openingHours")
    made = fitted(labels=labels)
    assert answered(made, "what are your opening hours", labels=labels) == ["openingHours"]
    assert answered(made, *TEXTS, labels=labels) == ANSWERS


def test_one_row_for_each_label_is_enough() -> None:
    texts = ["my card was declined", "when does the order arrive", "I want my money back"]
    made = fitted(texts, list(TASK.labels))
    assert answered(made, "the card, declined", "money back please") == ["billing", "refund"]


def test_empty_texts_and_other_scripts_are_answered() -> None:
    texts = ["お支払いカード", "カードが使えない", "配達はいつですか", "荷物の配達", "", "บัตรของฉันถูกปฏิเสธ"]
    made = fitted(texts, ["billing", "billing", "delivery", "delivery", "refund", "billing"])
    assert answered(made, "カードの支払い", "配達", "บัตรถูกปฏิเสธ") == ["billing", "delivery", "billing"]
    p = made.classifier.probabilities(["", "?", "\x00 " * 50_000])
    assert np.isfinite(p).all() and p.sum(axis=1) == pytest.approx([1, 1, 1])


def test_many_rows_are_described_by_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer landmarks than rows the answers stay, and only some rows are held out."""
    monkeypatch.setattr(fitting, "LANDMARKS", 24)
    monkeypatch.setattr(fitting, "PART", 5)
    made = fitted(embedder=BagEmbedder())
    assert answered(made, *TEXTS) == ANSWERS and len(made.held) == 36 // fitting.HELD_SHARE


@pytest.mark.parametrize(("count", "labels"), [(1501, 5), (1800, 5), (2600, 5), (900, 700), (8000, 40)])
def test_no_row_of_many_is_fitted_and_held_out(count: int, labels: int) -> None:
    drawn = np.random.default_rng(0).integers(0, 9, count)
    targets, names = np.arange(count) % labels, [f"label {label}" for label in range(labels)]
    rows = fitting._Rows([f"word{number}" for number in drawn], targets, names, None, 0, None)
    assert rows.many
    ((chosen_by, held),), ((kept, calibrating),) = rows.to_choose(), rows.to_calibrate()
    assert 0 < len(held) <= fitting.HELD and len(held) == len(np.unique(held))
    assert len(chosen_by) >= min(fitting.LANDMARKS, count) / 3
    assert not np.intersect1d(chosen_by, held).size and not np.intersect1d(kept, calibrating).size
    assert len(kept) > count / 2 and len(kept) + len(calibrating) == count


def test_memory_is_bounded_for_many_labels_and_rows() -> None:
    """What is kept of 100,000 rows × 1,000 labels, and of 5,000 labels."""
    for rows, labels in ((101_000, 1000), (15_000, 5000), (10**6, 2)):
        landmarks = fitting._most_landmarks(rows, labels)
        assert landmarks >= fitting.LEAST_LANDMARKS
        assert rows * landmarks * 4 <= 2**28 and landmarks * labels * 8 * 26 <= 2**30, (rows, labels)
    monotone = [work_of(rows, 77) for rows in (100, 1000, 2000, 10_000)]
    assert monotone[0] < monotone[1] and monotone[2] < monotone[3]


def test_the_name_of_a_label_in_words() -> None:
    assert label_words("cash_withdrawal-not.recognised") == "cash withdrawal not recognised"
    assert label_words("AddToPlaylist") == "add to playlist" and label_words("Straße") == "straße"
