"""examples/quickstart: counts, labels, slices, no duplicates or near-duplicates, no labels given away."""

import json
import re
import unicodedata
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples/quickstart"
LABELS = {
    *("advice", "bench time", "booking", "complaint", "course"),
    *("donation", "progress", "purchase", "quote", "volunteering"),
}
NEAR = 0.5  # token Jaccard from which two texts count as the same one reworded
GIVEN_AWAY = 0.02  # share of rows that may contain a label's name

Row = dict[str, str]


def read(name: str) -> list[Row]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


TRAIN, TEST = read("train.jsonl"), read("test.jsonl")


def key(text: str) -> str:
    """The normalised prompt: two rows with one key are the same question."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def tokens(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", key(text)))


def duplicates(rows: list[Row]) -> list[str]:
    counts = Counter(key(row["text"]) for row in rows)
    return [text for text, count in counts.items() if count > 1]


def near_duplicates(rows: list[Row]) -> list[tuple[str, str]]:
    texts = [(row["text"], tokens(row["text"])) for row in rows]
    return [(a, b) for (a, x), (b, y) in combinations(texts, 2) if len(x & y) >= NEAR * len(x | y)]


def given_away(rows: list[Row]) -> list[str]:
    """Texts in which the name of any label stands as a word."""
    name = re.compile(r"\b(" + "|".join(sorted(LABELS)) + r")s?\b")
    return [row["text"] for row in rows if name.search(key(row["text"]))]


def test_counts_and_columns() -> None:
    assert len(TRAIN) == 450
    assert len(TEST) == 300
    assert {frozenset(row) for row in TRAIN} == {frozenset({"text", "label"})}
    assert {frozenset(row) for row in TEST} == {frozenset({"text", "label", "slice"})}
    assert all(value and value == value.strip() for row in TRAIN + TEST for value in row.values())


def test_ten_labels_evenly_in_both_files() -> None:
    train, test = (Counter(row["label"] for row in rows) for rows in (TRAIN, TEST))
    assert train.keys() == test.keys() == LABELS
    assert set(train.values()) == {45}
    assert set(test.values()) == {30}


def test_every_label_is_tested_plainly_and_indirectly() -> None:
    counts = Counter((row["label"], row["slice"]) for row in TEST)
    assert counts == {(label, part): 15 for label in LABELS for part in ("plain", "indirect")}


def test_nothing_stands_twice() -> None:
    assert duplicates(TRAIN + TEST) == []
    assert near_duplicates(TRAIN + TEST) == []


def test_labels_are_not_given_away() -> None:
    assert len(given_away(TRAIN)) <= GIVEN_AWAY * len(TRAIN)
    assert len(given_away(TEST)) <= GIVEN_AWAY * len(TEST)


@pytest.mark.parametrize("rows", [TRAIN, TEST], ids=["train", "test"])
def test_texts_differ_in_length_and_are_shuffled(rows: list[Row]) -> None:
    words = sorted(len(row["text"].split()) for row in rows)
    assert words[0] <= 4 and words[-1] >= 25
    assert 10 <= words[len(words) // 2] <= 20
    assert sum(a["label"] != b["label"] for a, b in pairwise(rows)) > 0.8 * len(rows)


@pytest.mark.parametrize(
    ("check", "rows"),
    [
        (duplicates, [{"text": "Is it  READY?"}, {"text": "is it ready?"}]),
        (near_duplicates, [{"text": "is my red bike ready yet"}, {"text": "Is my blue bike ready yet?"}]),
        (given_away, [{"text": "I have a complaint about the wheel"}]),
        (given_away, [{"text": "Two bookings, please"}]),
    ],
)
def test_the_checks_see_bad_rows(check, rows: list[Row]) -> None:
    assert check(rows)


def test_riyaz_reads_it_as_a_closed_set_with_its_instruction() -> None:
    from riyaz.data.formats import load_folder
    from riyaz.data.task import detect

    folder = load_folder(FOLDER)
    task = detect(folder.train, instruction=folder.settings["instruction"])
    assert (task.kind, set(task.labels), task.metric) == ("closed", LABELS, "accuracy")
    assert "bicycle workshop" in task.instruction
    assert folder.test is not None
    assert Counter(example.slice for example in folder.test.examples) == {"plain": 150, "indirect": 150}
