"""A classifier is fitted: what is chosen, what the labels' names add, and the limits on memory."""

from collections.abc import Sequence

import numpy as np
import pytest
from fit_context import TASK, examples
from tiny_embedder import BagEmbedder

from riyaz.classifiers import fitting
from riyaz.classifiers.fitting import FittedClassifier, fit_classifier, label_words, memory_of, work_of

ROWS = examples(36, "please")
TEXTS, ANSWERS = [row.prompt for row in ROWS], [row.answer for row in ROWS]


def fitted(
    texts: Sequence[str] = TEXTS, answers: Sequence[str] = ANSWERS, labels: Sequence[str] = TASK.labels,
    embedder: BagEmbedder | None = None, groups: Sequence[str | None] | None = None,
) -> FittedClassifier:  # fmt: skip
    return fit_classifier(texts, answers, labels, embedder, 0, groups=groups)


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
    texts = [f"word{number} row{row}" for row, number in enumerate(drawn)]
    rows = fitting._Rows(texts, targets, names, None, 0, None)
    assert rows.many
    ((chosen_by, held),), ((kept, calibrating),) = rows.to_choose(), rows.to_calibrate()
    assert 0 < len(held) <= fitting.HELD and len(held) == len(np.unique(held))
    assert len(chosen_by) >= min(fitting.LANDMARKS, count) / 3
    assert not np.intersect1d(chosen_by, held).size and not np.intersect1d(kept, calibrating).size
    assert len(kept) > count / 2 and len(kept) + len(calibrating) == count


def grouped(groups: int = 40, rows: int = 6) -> tuple[list[str], list[str], list[str]]:
    """Texts, answers and groups: a text is a word that only its group has and one that says nothing, and the answer of
    a group is drawn."""
    answers = np.random.default_rng(3).choice(TASK.labels, groups).tolist()
    pairs = [(group, row) for group in range(groups) for row in range(rows)]
    texts = [f"customer{group} word{(group * 7 + row) % 50}" for group, row in pairs]
    return texts, [answers[group] for group, _ in pairs], [f"g{group}" for group, _ in pairs]


def held_out_score(made: FittedClassifier, answers: Sequence[str]) -> float:
    right = np.array([TASK.labels.index(answer) for answer in answers])[made.held]
    return float((made.logits.argmax(axis=1) == right).mean())


@pytest.mark.parametrize("landmarks", [fitting.LANDMARKS, 100])
def test_a_row_is_not_answered_by_its_group(landmarks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the group gives the answer away, rows that are held out are answered by chance."""
    monkeypatch.setattr(fitting, "LANDMARKS", landmarks)
    texts, answers, groups = grouped()
    assert held_out_score(fitted(texts, answers), answers) > 0.9
    made = fitted(texts, answers, groups=groups)
    assert held_out_score(made, answers) < 0.6
    assert held_out_score(made, answers) < held_out_score(fitted(texts, answers), answers) - 0.3
    assert made.probabilities.max(axis=1).mean() < 0.7, "and the temperature says so"


def test_a_row_is_not_answered_by_its_copies() -> None:
    texts, answers, groups = grouped()
    alike = [group.upper() if place % 2 else group for place, group in enumerate(groups)]
    assert held_out_score(fitted(alike, answers), answers) < 0.6
    assert held_out_score(fitted(alike, answers, groups=[str(row) for row in range(len(texts))]), answers) < 0.6


@pytest.mark.parametrize("landmarks", [fitting.LANDMARKS, 60])
@pytest.mark.parametrize("sizes", [[1] * 200, [8] * 25, [1, 2, 3, 4] * 20, [150, 30, 20], [100, 100], [200], [199, 1]])
def test_no_group_is_fitted_and_held_out(sizes: list[int], landmarks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "LANDMARKS", landmarks)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    targets = np.random.default_rng(1).integers(0, 3, 200)
    texts = [f"word{row % 190}" for row in range(199)] + ["the last word"]
    rows = fitting._Rows(texts, targets, TASK.labels, None, 0, None, [f"g{group}" for group in groups])
    assert rows.many == (landmarks == 60)
    for deals, most in ((rows.to_choose(), fitting.CHOOSING), (rows.to_calibrate(), fitting.CALIBRATING)):
        for kept, held in deals:
            assert len(kept) and len(held) and not np.intersect1d(kept, held).size
            assert len(sizes) == 1 or not np.intersect1d(groups[kept], groups[held]).size
            assert not {texts[row] for row in kept} & {texts[row] for row in held}
        if not rows.many:
            assert sorted(np.concatenate([held for _, held in deals])) == list(range(200)), "each row is held out once"
            assert len(deals) == (min(most, len(sizes)) if len(sizes) > 1 else most)


@pytest.mark.parametrize(("texts", "groups"), [(["same"] * 6, None), (["same"] * 6, ["a", "b"] * 3), (["one"], ["a"])])
def test_rows_that_are_all_alike_are_fitted(texts: list[str], groups: list[str] | None) -> None:
    made = fitted(texts, ["billing", "refund", "refund"][: len(texts)] * max(1, len(texts) // 3), groups=groups)
    assert sorted(made.held) == list(range(len(texts))) and np.isfinite(made.logits).all()


def test_rare_labels_are_held_out_of_many_rows_too() -> None:
    labels = np.repeat([0, 1], [2700, 300])
    rows = fitting._Rows([f"row {i} of {label}" for i, label in enumerate(labels)], labels, ["a", "b"], None, 0, None)
    ((_, held),) = rows.to_calibrate()
    assert rows.many and 0.06 < (rows.targets[held] == 1).mean() < 0.14


def test_memory_is_bounded_for_many_labels_and_rows() -> None:
    """What is kept of 100,000 rows × 1,000 labels, and of 5,000 labels."""
    for rows, labels in ((101_000, 1000), (15_000, 5000), (10**6, 2)):
        landmarks = fitting._most_landmarks(rows, labels)
        assert landmarks >= fitting.LEAST_LANDMARKS
        assert rows * landmarks * 4 <= 2**28 and landmarks * labels * 8 * 26 <= 2**30, (rows, labels)
    monotone = [work_of(rows, 77) for rows in (100, 1000, 2000, 10_000)]
    assert monotone[0] < monotone[1] and monotone[2] < monotone[3]


def test_the_estimated_memory_grows_with_rows_labels_and_terms() -> None:
    short, long = [f"where is order {n}" for n in range(200)], [f"{n} where is my order {n} " * 40 for n in range(200)]
    few = memory_of(short, 3)
    assert 1e6 < few < 50e6, "200 short rows take a few MB"
    assert few < memory_of(long, 3) < memory_of(long, 300)
    assert memory_of(short * 50, 3) > 10 * few
    assert memory_of(short * 500, 1000) > 4 * 100_000 * fitting._most_landmarks(101_000, 1000)


def test_the_name_of_a_label_in_words() -> None:
    assert label_words("cash_withdrawal-not.recognised") == "cash withdrawal not recognised"
    assert label_words("AddToPlaylist") == "add to playlist" and label_words("Straße") == "straße"
