"""Documents as passages: where they are cut, and that nothing is lost."""

import re
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_time import linear

from riyaz.retrieval.chunks import MAX_UNIT, chunk, passage, word_offsets
from riyaz.retrieval.documents import Document

PIECES = [
    "# Head\n",
    "## Sub\n",
    "\n\n",
    "\n",
    " ",
    "word ",
    "End. ",
    "x" * 40,
    "日本。",
    "```\n",
    "\u200b",
    "é",
    "…",
    "\t",
]


def document(text: str) -> Document:
    return Document("d", "Title", text, "d.txt")


def every_other_word(text: str) -> list[tuple[int, int]]:
    """A tokenizer that drops half of the text."""
    return word_offsets(text)[::2]


@settings(deadline=None, max_examples=examples(200))
@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=80).map("".join),
    st.integers(3, 30),
    st.integers(0, 12),
    st.sampled_from([word_offsets, every_other_word, lambda text: [(0, len(text))]]),
)
def test_every_character_that_is_not_blank_lies_in_a_small_exact_chunk(text, size, overlap, offsets):
    chunks = chunk(document(text), offsets, size, overlap)
    covered = np.zeros(len(text), bool)
    for piece in chunks:
        assert piece.text == text[piece.start : piece.end] != "" and piece.text == piece.text.strip()
        assert sum(piece.start <= start < piece.end for start, _ in offsets(text)) <= size
        assert len(piece.text) <= size * MAX_UNIT
        covered[piece.start : piece.end] = True
    assert all(covered[i] for i, letter in enumerate(text) if not letter.isspace())
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)


def word_pieces(text: str) -> list[tuple[int, int]]:
    """As WordPiece may do it: a letter that is made of several is as many tokens at one place, a long word is one."""
    found: list[tuple[int, int]] = []
    for match in re.finditer(r"\w+|[^\w\s]", text):
        if len(match[0]) > 100:
            found.append(match.span())
            continue
        for place, letter in enumerate(match[0], match.start()):
            found += [(place, place + 1)] * len(unicodedata.normalize("NFD", letter))
    return found


LONG = ["대한민국의 수도는 서울이다. ", "한" * 90, "x" * 96, "x" * 400, "\n\n", "a b c d. ", "# Head\n"]


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(st.sampled_from(LONG), max_size=60).map("".join), st.integers(50, 254))
def test_no_chunk_has_more_tokens_than_the_window_when_it_is_read_alone(text, window):
    chunks = chunk(document(text), word_pieces, window=window)
    covered = np.zeros(len(text), bool)
    for piece in chunks:
        assert piece.text == text[piece.start : piece.end] and len(word_pieces(piece.text)) <= window
        covered[piece.start : piece.end] = True
    assert all(covered[i] for i, letter in enumerate(text) if not letter.isspace())
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)


def test_a_window_changes_nothing_where_every_chunk_fits():
    text = "Nine to five, on most days. " * 200
    assert chunk(document(text), window=254) == chunk(document(text))
    korean = document("대한민국의 수도는 서울이다. " * 60)
    assert max(len(word_pieces(c.text)) for c in chunk(korean, word_pieces)) > 254, "what the window is for"


def test_headings_begin_a_section_and_their_path_is_kept():
    text = "Before.\n\n# Refunds\n\n## Late\n\nAfter 30 days.\n\n## Broken #\nAlways.\n\n# Hours\nNine."
    found = [(c.heading, c.text) for c in chunk(document(text))]
    assert found == [
        ("", "Before."),
        ("Refunds > Late", "# Refunds\n\n## Late\n\nAfter 30 days."),
        ("Refunds > Broken", "## Broken #\nAlways."),
        ("Hours", "# Hours\nNine."),
    ]


def test_every_chunk_lies_on_one_page():
    text = "# Hours\n\nNine to five.\n\nSame here.\n\n# Late\n\nPay more."
    pages = (0, text.index("Same"), text.index("Same"), text.index("# Late"))
    found = [(c.heading, c.text) for c in chunk(replace(document(text), pages=pages))]
    assert found == [
        ("Hours", "# Hours\n\nNine to five."), ("Hours", "Same here."), ("Late", "# Late\n\nPay more."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["a\n\n```\n# not a heading\n```\nb", "x = 1\n# a comment\ny", "#hashtag\n\n####### seven"]
)
def test_what_only_looks_like_a_heading_is_text(text):
    assert [c.heading for c in chunk(document(text))] == [""]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a b c d e f.\n\ng h. i j k l m n o", "a b c d e f."),  # a paragraph before a later sentence
        ("a b c d e f. g h i j k l m n", "a b c d e f."),
        ("a b c d e f g h i j k l m n", "a b c d e f g h i j"),
        ("x" * 400, "x" * 160),
    ],
)
def test_cuts_fall_on_the_best_place_that_fits(text, first):
    assert chunk(document(text), size=10, overlap=0)[0].text == first


def test_neighbours_share_words_inside_a_section_only():
    body = " ".join(f"w{i}" for i in range(300))
    one, two, *_ = chunk(document(f"# A\n{body}\n\n# B\n{body}"), size=100, overlap=20)
    assert 10 <= len(set(one.text.split()) & set(two.text.split())) <= 20
    second = [c for c in chunk(document(f"# A\n{body}\n\n# B\n{body}"), size=100, overlap=20) if c.heading == "B"]
    assert second[0].text.startswith("# B\nw0 ")


def test_a_passage_says_its_title_and_headings():
    (piece,) = chunk(document("# Refunds\n\nAfter 30 days."))
    assert passage(piece) == "Title\nRefunds\n# Refunds\n\nAfter 30 days."


@pytest.mark.parametrize(
    "text",
    ["x" * 1_000_000, "ab cd. " * 50_000, "\n\n# H\n\nb" * 50_000, "é" + " " * 1_000_000 + "z"],
    ids=["one word", "one line", "many headings", "blanks"],
)
def test_time_grows_with_the_length_only(text):
    with linear():
        chunks = chunk(document(text))
    assert sum(len(c.text) for c in chunks) >= len("".join(text.split()))
