"""Spans: the runs of words that an answer can be, and those that it cannot."""

import re

import pytest
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from riyaz.retrieval.spans import spans


@pytest.mark.parametrize(
    ("text", "longest", "expected"),
    [
        ("one two three", 2, ["one", "one two", "two", "two three", "three"]),
        ("one two", 9, ["one", "one two", "two"]),
        ("Yes. No", 3, ["Yes", "No"]),
        ("at 9: the desk", 3, ["at", "at 9", "9", "the", "the desk", "desk"]),
        ('"four euros", (a day)', 2, ["four", "four euros", "euros", 'euros", (a', "a", "a day", "day"]),
        ("3.60 euros", 2, ["3.60", "3.60 euros", "euros"]),
        ("one\n\n two", 2, ["one", "one two", "two"]),
        ("no no no", 2, ["no", "no no"]),
        ("... — ,", 3, ["—"]),
        (",\n,", 2, []),
        ("", 3, []),
        ("one two", 0, []),
    ],
)
def test_spans_by_hand(text: str, longest: int, expected: list[str]) -> None:
    assert spans(text, longest) == expected


@settings(max_examples=examples(200), deadline=None)
@given(st.text(st.sampled_from("ab .,;:!?()\"'é东\n\t-"), max_size=40), st.integers(1, 5))
def test_every_span_stands_in_the_text_and_every_short_run_is_a_span(text: str, longest: int) -> None:
    found, plain = spans(text, longest), " ".join(text.split())
    assert len(found) == len(set(found))
    for span in found:
        assert span and span in plain and span.strip(" .,;:!?()\"'") == span
        assert len(span.split()) <= longest
    for run in re.findall(r"(?:[ab] ){0,4}[ab]", plain):  # words alone, no clause ends among them
        words = run.split()
        assert all(" ".join(words[i:j]) in found for i in range(len(words)) for j in range(i + 1, len(words) + 1)
                   if j - i <= longest and re.search(rf"(?:^| ){' '.join(words[i:j])}(?: |$)", plain))  # fmt: skip
