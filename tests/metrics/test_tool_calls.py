"""Scores of answers that call tools: names, the F1 of arguments, calls in any order, and none where none is due."""

import pytest

from riyaz.metrics.tool_calls import arguments, name, parses, tools
from riyaz.text.calls import turn_text


def called(*calls: tuple[str, dict], text: str = "") -> str:
    return turn_text({
        "content": text, "tool_calls": [{"function": {"name": tool, "arguments": given}} for tool, given in calls],
    })  # fmt: skip


BOOK = ("book", {"day": "Monday", "hour": 9})
OTHER = ("cancel", {"id": 3})


@pytest.mark.parametrize(
    ("prediction", "answer", "scores"),  # tools, name, arguments, parses
    [
        (called(BOOK), called(BOOK), (1, 1, 1, 1)),
        (called(("book", {"hour": 9.0, "day": "Monday"}), text="Sure."), called(BOOK), (1, 1, 1, 1)),
        (called(("book", {"day": "Monday", "hour": 10})), called(BOOK), (0.5, 1, 0.5, 1)),
        (called(("cancel", BOOK[1])), called(BOOK), (0, 0, 0, 1)),
        ("I book it.", called(BOOK), (0, 0, 0, 0)),
        ("<tool_call>\n{broken\n</tool_call>", called(BOOK), (0, 0, 0, 0)),
        (called(OTHER, BOOK), called(BOOK, OTHER), (1, 1, 1, 1)),
        (called(BOOK, BOOK), called(BOOK), (0.5, 0.5, 1, 1)),
        (called(BOOK), called(BOOK, OTHER), (0.5, 0.5, 1, 1)),
        ("We open at nine.", "At nine.", (1, 1, 1, 1)),
        (called(BOOK), "At nine.", (0, 0, 0, 1)),
        ("", "At nine.", (0, 0, 0, 1)),
        (" \n", "At nine.", (0, 0, 0, 1)),
        ('asdf <tool_call>{"name":', "At nine.", (0, 0, 0, 0)),
        ("<tool_call>\n{broken\n</tool_call>", "At nine.", (0, 0, 0, 0)),
        (called(OTHER, ("repair_state", {"id": 3})), called(OTHER), (0.5, 0.5, 1, 1)),
        (called(("now", {})), called(("now", {})), (1, 1, 1, 1)),
    ],
)  # fmt: skip
def test_scores_of_calls(prediction: str, answer: str, scores: tuple[float, ...]) -> None:
    assert [each(prediction, (answer,)) for each in (tools, name, arguments, parses)] == pytest.approx(scores)


def test_the_best_pairing_counts_and_the_best_accepted_answer() -> None:
    near, far = ("book", {"day": "Monday", "hour": 8}), ("book", {"day": "Friday", "hour": 9})
    assert tools(called(near, far), (called(far, near),)) == 1
    assert tools(called(near), (called(OTHER), called(near))) == 1
