"""The floors beside the arms: which one is chosen, on which rows, and the words that name it."""

import pytest

from riyaz.comparison.floor import highest_floor, majority_floor
from riyaz.config import Measure
from riyaz.data import Example
from riyaz.data.checks import Check
from riyaz.data.task import Task
from riyaz.report.words import floor_line
from riyaz.results import ArmResult, Comparison, Floor
from riyaz.text.sentences import first_sentence


def by(metric: Measure, max_words: int | None = None) -> Task:
    return Task("free", (), metric, "", "", max_words=max_words)


def row(prompt: str, answer: str, place: int, slots: tuple[str, ...] = ()) -> Example:
    return Example(({"role": "user", "content": prompt},), (answer,), where=f"t:{place:02}", check=Check(slots=slots))


def articles(count: int) -> list[Example]:
    """Texts whose summary is nearly their first sentence."""
    return [
        row(f"Number {i} came home late. Nobody saw a thing that day.", f"Number {i} came home.", i)
        for i in range(count)
    ]


def test_the_first_sentence_is_the_floor_of_summaries() -> None:
    made = highest_floor(articles(9), articles(4), by("rouge_l"))
    assert made is not None
    floor, scores = made
    assert floor.kind == "first_sentence" and floor.answer == ""
    assert scores == pytest.approx([8 / 9] * 4) and floor.score == pytest.approx(8 / 9)


def test_a_copy_is_the_floor_of_translation_and_a_limit_of_words_counts() -> None:
    rows = [row(f"Save the file {i}. Cancel all of it", f"Save le file {i}. Cancel all de it", i) for i in range(6)]
    made = highest_floor(rows, rows, by("chrf"))
    assert made is not None and made[0].kind == "copy" and 0.5 < made[0].score < 1
    shorter = highest_floor(rows, rows, by("chrf", max_words=2))
    assert shorter is not None and shorter[0].score < made[0].score / 2


def test_the_floor_is_chosen_on_training_rows_and_scored_on_test_rows() -> None:
    same = [row(f"Question {i}", "the usual words", i) for i in range(9)]
    made = highest_floor(same, articles(3), by("rouge_l"))
    assert made is not None and made[0].kind is None and made[0].answer == "the usual words"
    assert made[0].score < 0.2, "the first sentence would score more on these test rows, which no choice may see"


def test_an_empty_object_is_the_floor_of_extraction() -> None:
    nulls = [row(f"message {i}", '{"day": null}' if i % 3 else f'{{"day": {i}}}', i) for i in range(9)]
    made = highest_floor(nulls, nulls, by("json_f1"))
    assert made is not None and made[0].kind is None, "the most frequent object scores as much, and is shown by itself"
    varied = [row(f"message {i}", f'{{"day": {i}}}' if i % 3 else f'{{"x{i}": null}}', i) for i in range(9)]
    made = highest_floor(varied, varied, by("json_f1"))
    assert made is not None and made[0].kind == "empty_object" and made[0].score == pytest.approx(1 / 3)


def test_a_copy_has_every_slot_that_the_prompt_has() -> None:
    rows = [row(f"Ann, bike {i}", f"Ann has bike {i}", i, ("Ann", f"bike {i}")) for i in range(5)]
    made = highest_floor(rows, rows, by("slots"))
    assert made is not None and made[0].kind == "copy" and made[0].score == 1


def test_other_metrics_keep_the_most_frequent_answer_and_nats_has_none() -> None:
    rows = [row(f"q{i}", "a" if i % 2 else "b", i) for i in range(7)]
    assert highest_floor(rows, rows, by("exact_match"))[0] == majority_floor(rows, rows, by("exact_match"))[0]  # type: ignore[index]
    assert highest_floor(rows, rows, by("nats")) is None and highest_floor(rows, [], by("chrf")) is None


def test_the_report_names_the_floor() -> None:
    def said(floor: Floor) -> str:
        return floor_line(Comparison([ArmResult("lora", "ok")], None, None, "nothing", "", floor=floor))

    assert said(Floor("billing", 0.147, 0.118, 0.181)) == "floor: always 'billing' scores 0.147 (0.118–0.181)"
    none = [ArmResult("lora", "ok", metric=metric) for metric in ("sql", "nats")]
    lines = [floor_line(Comparison([one], None, None, "nothing", "")) for one in none]
    assert lines == ["no floor: no training answer occurs twice", ""]
    lead = "floor: the first sentence of the prompt scores 0.310 (0.290–0.330)"
    assert said(Floor("", 0.31, 0.29, 0.33, "first_sentence")) == lead


@pytest.mark.parametrize(
    "text, first",
    [
        ("One. Two.", "One."),
        ("Version 1.2 is out! Really.", "Version 1.2 is out!"),
        ("no end at all", "no end at all"),
        ("a title\n\nA text. More.", "a title"),
        ("  行きます。はい。", "行きます。"),
        ("", ""),
    ],
)
def test_first_sentences(text: str, first: str) -> None:
    assert first_sentence(text) == first
