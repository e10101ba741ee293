"""Rows that may be wrong: put into small sets, and found there."""

import csv
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_comparison import command

from riyaz.classifiers.regression import fit_regression
from riyaz.data import Example, formats
from riyaz.data.task import detect
from riyaz.metrics.calibration import probabilities
from riyaz.quality import duplicates, examine, features, held_out, label_next, mislabelled
from riyaz.results.problems import PROBLEMS, RowProblems

TOPICS = {
    "delivery": ["parcel", "courier", "shipment", "doorstep", "tracking"],
    "billing": ["invoice", "payment", "refund", "charge", "receipt"],
    "account": ["password", "login", "profile", "username", "email"],
}
FRAMES = ["where is my {}", "the {} is wrong", "please help with the {}", "{} again", "no {} since monday", "my {}?"]


@pytest.fixture(autouse=True)
def words_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No embedder is pulled."""
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))


def clean_rows() -> list[dict[str, str]]:
    """90 rows of three topics, in an order that mixes them."""
    pairs = [(topic, word, frame) for topic, words in TOPICS.items() for word, frame in product(words, FRAMES)]
    rows = [{"text": frame.format(word), "label": topic} for topic, word, frame in pairs]
    return [rows[place * 7 % len(rows)] for place in range(len(rows))]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def problems_of(path: Path, test: Path | None = None) -> RowProblems:
    folder = formats.open_data(path, test=test)
    return examine.examine(folder.train, folder.test, detect(folder.train))


def lines(problems: RowProblems, kind: str) -> list[int]:
    return [int(row.where.rpartition(":")[2]) for row in problems.rows if row.problem == kind]


def random_points(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """60 points in two clouds, and the label of each."""
    labels = np.arange(60) % 2
    return np.random.default_rng(seed).normal(size=(60, 5)) + 2 * labels[:, None], labels


def test_wrong_labels_are_listed_first_with_the_label_that_the_others_suggest(tmp_path: Path) -> None:
    rows = clean_rows()
    for place in (4, 30, 61):
        rows[place]["label"] = next(topic for topic in TOPICS if topic != rows[place]["label"])
    right = clean_rows()
    problems = problems_of(write(tmp_path / "rows.jsonl", rows))
    wrong = problems.of("wrong label")
    assert set(lines(problems, "wrong label")[:3]) == {5, 31, 62}
    for row in wrong[:3]:
        assert row.suggested == right[int(row.where.rpartition(":")[2]) - 1]["label"] != row.label
        assert row.probability is not None and row.label_probability is not None
        assert row.probability >= mislabelled.LEAST_RATIO * row.label_probability
    assert len(wrong) <= 5
    assert any("riyaz pull minilm" in reason for reason in problems.unchecked)


def test_clean_rows_have_no_problem(tmp_path: Path) -> None:
    problems = problems_of(write(tmp_path / "rows.jsonl", clean_rows()))
    assert problems.rows == [] and problems.mixed_labels == []


def test_repeats_copies_spellings_and_unseen_labels_have_their_lines(tmp_path: Path) -> None:
    rows = clean_rows()
    rows += [rows[2] | {"label": "billing" if rows[2]["label"] != "billing" else "account"}, rows[3]]
    rows[10]["label"] = rows[10]["label"].title()
    test = [clean_rows()[7], {"text": "something else", "label": "unheard of"}]
    problems = problems_of(write(tmp_path / "rows.jsonl", rows), write(tmp_path / "test.jsonl", test))
    assert lines(problems, "other answer") == [91] and lines(problems, "repeat") == [92]
    assert lines(problems, "spelling") == [11] and problems.of("spelling")[0].suggested == clean_rows()[10]["label"]
    assert lines(problems, "test copy") == [8] and problems.of("test copy")[0].other == str(tmp_path / "test.jsonl:1")
    assert lines(problems, "unseen label") == [2]
    (other,) = problems.of("other answer")
    assert (other.other, other.suggested) == (str(tmp_path / "rows.jsonl:3"), rows[2]["label"])


def test_near_duplicates_with_different_labels_are_pairs_of_lines(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[0] = {"text": "the courier has left my parcel at the wrong doorstep", "label": "delivery"}
    rows[50] = {"text": "The courier has left my parcels at the wrong doorstep!", "label": "billing"}
    (pair,) = problems_of(write(tmp_path / "rows.jsonl", rows)).of("near-duplicate")
    assert pair.where.endswith(":1") and (pair.other or "").endswith(":51")
    assert pair.similarity is not None and pair.similarity >= duplicates.NEAR_PIECES


def test_answers_that_are_no_labels_are_checked_for_repeats_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"prompt {n}", "completion": f"it is {n} " * 9} for n in range(30)]
    problems = problems_of(write(tmp_path / "rows.jsonl", [*rows, rows[4] | {"completion": "no " * 20}]))
    assert lines(problems, "other answer") == [31] and len(problems.rows) == 1
    assert problems.unchecked == ["wrong labels and near-duplicates: the answers are no labels"]


def test_many_labels_are_not_judged_and_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "MOST_LABELS", 2)
    problems = problems_of(write(tmp_path / "rows.jsonl", clean_rows()))
    assert any("3 labels are more than 2" in reason for reason in problems.unchecked)


def test_of_long_prompts_the_beginnings_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "ALL_CHARACTERS", 900)
    monkeypatch.setattr(features, "LEAST_CHARACTERS", 8)
    assert features.beginnings(["0123456789" * 2, "0"] * 45) == (["0123456789", "0"] * 45, 10)
    problems = problems_of(write(tmp_path / "rows.jsonl", clean_rows()))
    assert "what follows the first 10 characters of a prompt" in problems.unchecked


def test_the_vectors_have_the_inner_products_of_the_terms() -> None:
    texts = [row["text"] for row in clean_rows()]
    blocks = features.term_blocks(texts)
    vectors = features.prompt_vectors(blocks, None)
    exact = sum(features.TERM_WEIGHT * (block @ block.T).toarray() for block in blocks.values())
    assert np.allclose(vectors @ vectors.T, exact, atol=1e-4)


def test_probabilities_are_those_of_regressions_that_have_not_seen_the_row() -> None:
    points, labels = random_points()
    flipped = labels.copy()
    flipped[7] = 1 - flipped[7]
    chances = held_out.out_of_fold(points, flipped, [str(row) for row in range(60)])
    assert np.allclose(chances.sum(axis=1), 1) and chances[7, labels[7]] > 0.9
    weights, bias = fit_regression(points, flipped, 2, held_out.STRENGTH)
    seen = probabilities(points @ weights + bias, 1.0)
    assert seen[7, flipped[7]] > chances[7, flipped[7]]
    assert np.array_equal(chances, held_out.out_of_fold(points, flipped, [str(row) for row in range(60)]))


def test_equal_prompts_are_held_out_together_and_a_label_with_one_row_is_unknown() -> None:
    points, labels = random_points()
    labels[3] = 2
    points[40], labels[40] = points[20], 1 - labels[20]
    keys = [str(row) for row in range(60)]
    keys[40] = keys[20]
    chances = held_out.out_of_fold(points, labels, keys)
    assert np.allclose(chances[20], chances[40]), "neither has seen the other"
    assert chances[3, 2] == 0
    assert 3 not in {suspect.row for suspect in mislabelled.wrong_labels(chances, labels)}


def test_rows_of_one_group_do_not_vouch_for_each_other() -> None:
    """Two wrong rows that look like each other and like no other row."""
    points, labels = random_points()
    points, wrong = np.c_[points, np.zeros(60)], [20, 40]
    points[wrong] = points[[20, 20]]
    points[wrong, -1], labels[wrong] = 3, 1 - labels[20]
    keys, groups = [str(row) for row in range(60)], [str(row) for row in range(60)]
    groups[40] = groups[20]
    alone, grouped = held_out.out_of_fold(points, labels, keys), held_out.out_of_fold(points, labels, keys, groups)
    assert (grouped[wrong, labels[wrong]] < alone[wrong, labels[wrong]] - 0.1).all()
    assert np.array_equal(alone, held_out.out_of_fold(points, labels, keys, keys)), "without groups all is as before"
    assert np.array_equal(alone, held_out.out_of_fold(points, labels, keys, ["one"] * 60)), "one group says nothing"


def test_a_copy_in_another_group_does_not_vouch_either() -> None:
    points, labels = random_points()
    points[40], labels[40] = points[20], labels[20] = 4 * points[20], 1 - labels[20]
    keys, groups = [str(row) for row in range(60)], [str(row // 2) for row in range(60)]
    keys[40] = keys[20]
    apart, copied = (
        held_out.out_of_fold(points, labels, each, groups) for each in ([str(row) for row in range(60)], keys)
    )
    assert copied[20, labels[20]] < apart[20, labels[20]]


def test_examine_keeps_groups_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def out_of_fold(vectors: np.ndarray, labels: np.ndarray, *names: list[str]) -> np.ndarray:
        given.extend(names)
        return np.eye(3)[labels]

    monkeypatch.setattr(examine, "out_of_fold", out_of_fold)
    rows = [row | {"customer": str(place % 20)} for place, row in enumerate(clean_rows())]
    folder = formats.open_data(write(tmp_path / "rows.jsonl", rows), group_column="customer")
    examine.examine(folder.train, None, detect(folder.train))
    assert [len(set(names)) for names in given] == [90, 20]


def test_of_equal_prompts_nothing_is_known() -> None:
    points, labels = random_points()
    chances = held_out.out_of_fold(points, labels, ["same"] * 60)
    assert chances.sum() == 0 and mislabelled.wrong_labels(chances, labels) == []


def test_an_instruction_before_every_row_is_not_what_a_row_says() -> None:
    texts = ["Sort this:\n\nmail: where is it\nurgent", "Sort this:\n\nmail: my card", "Sort this:"]
    rows = [Example(({"role": "user", "content": text},), ("x",)) for text in texts]
    assert features.own_texts(rows[:2]) == ["where is it\nurgent", "my card"], "a line that half of them have stays"
    assert features.own_texts(rows)[2] == "Sort this:" and features.own_texts(rows[:1]) == [texts[0]]


def test_rows_of_a_label_that_no_other_fold_has_are_not_mixed_up() -> None:
    labels = np.repeat([0, 1], 10)
    chances = np.tile([1.0, 0.0], (20, 1))
    assert mislabelled.mixed_labels(chances, labels, []) == []
    chances[10:] = [0.6, 0.4]
    assert mislabelled.mixed_labels(chances, labels, []) == [(0, 1, 10, 20)]


def test_a_spelling_in_the_test_alone_is_compared_with_the_training_rows(tmp_path: Path) -> None:
    test = [{"text": f"no {n}", "label": "Billing"} for n in range(9)] + [{"text": "well", "label": "billing"}]
    problems = problems_of(write(tmp_path / "rows.jsonl", clean_rows()), write(tmp_path / "test.jsonl", test))
    assert lines(problems, "spelling") == [*range(1, 10)] and problems.of("spelling")[0].suggested == "billing"


def test_labels_are_mixed_up_where_rows_look_like_the_other_label() -> None:
    labels = np.repeat([0, 1, 2], 10)
    chances = np.full((30, 3), 0.1)
    chances[np.arange(30), labels] = 0.8
    chances[[0, 1, 2, 10]] = [[0.4, 0.5, 0.1]] * 3 + [[0.5, 0.4, 0.1]]
    assert mislabelled.mixed_labels(chances, labels, []) == [(0, 1, 4, 20)]


def test_the_rows_to_label_are_uncertain_and_unlike_each_other() -> None:
    points = np.array([[0.0, 0], [0.01, 0], [5, 0], [0, 5]])
    assert label_next.spread_choice(points, np.array([1.0, 0.99, 0.5, 0.1]), 3) == [0, 2, 3]
    assert label_next.spread_choice(points, np.ones(4), 9)[:1] == [0]
    assert label_next.uncertainty(np.array([[0.9, 0.1], [0.5, 0.5]])) == pytest.approx([0.2, 1.0])


# riyaz data


def records(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def test_the_command_writes_every_problem_and_the_rows_to_label(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[4]["label"] = next(topic for topic in TOPICS if topic != rows[4]["label"])
    rows[10]["label"] = rows[10]["label"].title()
    path, out = write(tmp_path / "rows.jsonl", rows), tmp_path / "found"
    texts = [f"the {word} of tomorrow" for words in TOPICS.values() for word in words]
    more = write(tmp_path / "more.jsonl", [{"text": text} for text in texts])
    said = command("data", path, "--unlabelled", more, "--label-next", 4, "--out", out)
    assert said.status == 0, said.err
    table = list(records(out / "problems.csv"))
    assert table[0]["problem"] == "wrong label" and table[0]["where"] == f"{path}:5"
    assert [row["where"] for row in table if row["problem"] == "spelling"] == [f"{path}:11"]
    assert f"{path}:5  '{rows[4]['label']}'" in said.out
    assert said.out.splitlines()[-1].endswith(f"riyaz compare {path} --merge-labels")
    chosen = list(records(out / "label_next.csv"))
    assert len(chosen) == 4 and all(row["label"] == "" and row["guess"] in TOPICS for row in chosen)
    again = command("data", path, "--unlabelled", more, "--out", out)
    assert again.status != 0 and "may hold labels" in again.err
    document = command("data", path, "--skip-problems", "--json")
    assert "problems" not in json.loads(document.out.splitlines()[-1])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (clean_rows(), "every prompt is among the labelled rows"),
        ([{"text": "a new one"}, {"text": ""}], "more.jsonl:2: the row has no 'text'"),
        (None, "more.jsonl: no such file"),
    ],
)
def test_unlabelled_rows_are_refused_before_anything_is_written(
    tmp_path: Path, rows: list[dict[str, str]] | None, words: str
) -> None:
    path, more, out = write(tmp_path / "rows.jsonl", clean_rows()), tmp_path / "more.jsonl", tmp_path / "out"
    if rows is not None:
        write(more, rows)
    said = command("data", path, "--unlabelled", more, "--out", out)
    assert said.status != 0 and words in said.err and said.out == "" and not out.exists()


def test_rows_to_label_of_conversations_are_read_back_as_text(tmp_path: Path) -> None:
    def talk(row: dict[str, str], *answer: dict[str, str]) -> dict[str, Any]:
        first = [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": "Anything else?"}]
        return {"messages": [*first, {"role": "user", "content": "no"}, *answer]}

    rows = [talk(row, {"role": "assistant", "content": row["label"]}) for row in clean_rows()]
    path = write(tmp_path / "rows.jsonl", rows)
    more = write(tmp_path / "more.jsonl", [talk({"text": f"the {word} of tomorrow"}) for word in TOPICS["billing"]])
    said = command("data", path, "--unlabelled", more, "--out", tmp_path / "out")
    assert said.status == 0, said.err
    assert problems_of(path).rows == [], "equal last turns are no near-duplicates"
    text = (tmp_path / "out/label_next.csv").read_text()
    (tmp_path / "labelled.csv").write_text(text.replace('",,', '",billing,'))
    read = formats.load(tmp_path / "labelled.csv")
    assert read.reading and (read.reading.prompt, read.reading.answer) == ("text", "label")
    assert read.examples[0].prompt.endswith("of tomorrow\nAnything else?\nno"), read.examples[0].prompt


def test_an_example_without_other_rows_is_no_repeat() -> None:
    turns = [({"role": "user", "content": text},) for text in ("a", "b", "A")]
    assert duplicates.repeats([Example(turn, ("x",)) for turn in turns]) == [(2, 0)]


def test_a_comparison_stores_what_may_be_wrong_with_its_rows(quick) -> None:
    stored = RowProblems.read(quick.out / PROBLEMS)
    assert any("riyaz pull minilm" in reason for reason in stored.unchecked)
