"""The text seam: what stands around a row's messages; and the nearest examples by BM25."""

import pytest

from riyaz.artifact import TextPart
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.prompting import messages_for
from riyaz.retrieval.lexical import BM25, words

TASK = Task("closed", ("blue", "dark red"), "accuracy", "Classify.", "")


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def example(question: str, answer: str) -> Example:
    return Example((turn("system", "unseen"), turn("user", question)), (answer, "another"))


QUESTION = (turn("user", "the sea"),)


def test_without_an_instruction_the_messages_stand_alone() -> None:
    assert messages_for(TextPart(), None, QUESTION, []) == [turn("user", "the sea")]


def test_instruction_labels_and_the_rows_own_system_turn() -> None:
    text = TextPart("Classify.", list_labels=True)
    assert messages_for(text, TASK, QUESTION, [])[0] == turn("system", "Classify.\n\nThe labels:\nblue\ndark red")
    found = messages_for(TextPart("Classify."), TASK, [turn("system", "Be brief."), *QUESTION], [])
    assert found == [turn("system", "Be brief.\n\nClassify."), turn("user", "the sea")]


def test_examples_are_finished_turns_in_their_order_before_the_conversation() -> None:
    history = [turn("user", "a"), turn("assistant", "b"), turn("user", "c")]
    found = messages_for(TextPart("Classify."), TASK, history, [example("sky", "blue"), example("fire", "dark red")])
    assert found == [
        turn("system", "Classify."),
        *[turn("user", "sky"), turn("assistant", "blue"), turn("user", "fire"), turn("assistant", "dark red")],
        *history,
    ]


def test_messages_are_copies() -> None:
    found = messages_for(TextPart(), None, QUESTION, [])
    found[0]["content"] = "changed"
    assert QUESTION[0]["content"] == "the sea"


TEXTS = ["my card has not arrived", "the exchange rate is wrong", "the card was stolen", "the card was stolen"]


@pytest.mark.parametrize(
    ("query", "k", "wanted"),
    [
        ("where is my new card? it has not ARRIVED", 1, [0]),
        ("a stolen card", 3, [2, 3, 0]),  # equal texts in their order
        ("", 2, [0, 1]),
        ("zzz 🙂", 2, [0, 1]),
        ("exchange", 9, [1, 0, 2, 3]),
    ],
)
def test_the_nearest_texts_come_first_and_ties_are_settled(query: str, k: int, wanted: list[int]) -> None:
    assert BM25(TEXTS).top(query, k) == wanted


def test_an_index_of_nothing_and_of_texts_without_words() -> None:
    assert BM25([]).top("a", 3) == []
    assert BM25(["🙂", "…"]).top("a", 3) == [0, 1]
    assert BM25(["🙂", "a"]).top("a", 1) == [1]


def test_words_are_folded_and_scripts_without_spaces_are_split() -> None:
    assert words("Straße, ＡＢ-12: 東京 to") == ["strasse", "ab", "12", "東", "京", "to"]
