"""Tokens as text piece by piece, beside decoding them all at once; and what a schema refuses."""

import numpy as np
import pytest
import tiny_llama
from tokenizer_kinds import KINDS, pair

from riyaz.serve.problems import Problem
from riyaz.serve.schema import check
from riyaz.serve.stopping import StopString
from riyaz.serve.text import Text
from riyaz.text.sentences import whole_sentences
from riyaz.text.tokenizer import Tokenizer

TEXTS = (
    "the card, and the order.",
    "née 🚲🚲 €77\n\n  two  ",
    "漢字かな交じり文。",
    "a" * 40,
    "  \n ",
    "<|im_end|> is text",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(tiny_llama.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "t"))


def pieces(text: Text, ids: list[int], cut: bool) -> list[str]:
    """What each token adds, then the rest."""
    told = []
    for token in ids:
        told.append(text.push(token))
        if text.stopped:
            break
    return [*told, text.finish(cut)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(kind: str, text: str) -> None:
    tokenizer, _ = pair(kind)
    ids = tokenizer.encode(text)
    told = pieces(Text(tokenizer), ids, cut=False)
    assert "".join(told) == tokenizer.decode(ids)
    assert all("\ufffd" not in piece for piece in told[:-1]) or "\ufffd" in tokenizer.decode(ids)


@pytest.mark.parametrize("seed", range(40))
def test_any_tokens_and_stop_strings_give_what_cutting_the_whole_gives(tokenizer: Tokenizer, seed: int) -> None:
    generator = np.random.default_rng(seed)
    ids = generator.integers(3, 512, generator.integers(1, 60)).tolist()
    whole = tokenizer.decode(ids)
    starts = generator.integers(0, len(whole), 3)
    stop = [whole[at : at + size] for at, size in zip(starts, generator.integers(1, 9, 3))]
    stop = [each for each in stop if "\ufffd" not in each] + ["never said"]
    told = Text(tokenizer, stop)
    found = "".join(pieces(told, ids, cut=True))
    wanted, stopped = whole, False
    for count in range(len(ids) + 1):  # the first token with which a stop string is there
        before = tokenizer.decode(ids[:count])
        if not stopped and (places := [before.index(each) for each in stop if each in before]):
            wanted, stopped = before[: min(places)], True
    assert (found, told.stopped) == (wanted, stopped)


@pytest.mark.parametrize("seed", range(200))
def test_a_stop_string_is_matched_as_by_looking_at_every_length(seed: int) -> None:
    generator = np.random.default_rng(seed)
    string, text = ("".join(generator.choice(list("ab"), size)) for size in (generator.integers(1, 9), 200))
    stop, read = StopString(string), ""
    while not (end := text.find(string, 0, len(read)) + 1) and len(read) < len(text):
        piece = text[len(read) : len(read) + generator.integers(0, 5)]
        before, read = len(read), read + piece
        found = stop.read(piece)
        assert (before + found if found else 0) == (read.find(string) + len(string) if string in read else 0)
        assert stop.matched == max(
            n for n in range(len(string) + 1) if (read[: before + found] if found else read).endswith(string[:n])
        )
    assert end or string not in text


def test_a_long_stop_string_that_begins_everywhere_costs_no_more_than_the_text() -> None:
    stop = StopString("a" * 500_000 + "b")
    assert stop.read("a" * 200_000) == 0 and stop.matched == 200_000
    assert all(stop.read("c" + "a" * 10) == 0 for _ in range(1000)) and stop.matched == 10
    assert stop.read("a" * 500_000) == 0 and stop.read("ab") == 2


def test_a_part_of_a_stop_string_is_held_back_until_it_is_none(tokenizer: Tokenizer) -> None:
    ids = [token for part in ("the", " card", " or", "der") for token in tokenizer.encode(part)]
    told = pieces(Text(tokenizer, [" order now"]), ids, cut=False)
    assert "".join(told) == "the card order" and told[-1].endswith(" order"), "the end of the answer frees it"


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("text", ["  One. Two. Thr", "no end", "One. ", "\n One.\n"])
def test_a_tasks_answer_is_trimmed_as_where_it_was_measured(tokenizer: Tokenizer, text: str, cut: bool) -> None:
    ids = tokenizer.encode(text)
    told = pieces(Text(tokenizer, task=True), ids, cut)
    plain = tokenizer.decode(ids).strip()
    assert "".join(told) == ((cut and whole_sentences(plain + " ")) or plain)


def test_a_stop_string_that_goes_over_the_end_of_a_sentence_is_not_told(tokenizer: Tokenizer) -> None:
    ids = [token for part in ("One.", " Two.", " Th", "ree.", " Four.") for token in tokenizer.encode(part)]
    told = pieces(Text(tokenizer, ["Two. Three"], task=True), ids, cut=False)
    assert "".join(told) == "One."


NUMBER = {"type": "number", "minimum": 0, "maximum": 2}
OBJECT = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}, "additionalProperties": NUMBER}


@pytest.mark.parametrize(
    ("value", "schema", "message"),
    [
        (3, NUMBER, "x: 3 is larger than 2"), (-1, NUMBER, "x: -1 is smaller than 0"),
        ("a", NUMBER, "x: 'a' is not a number"), ([1], {"type": "array", "maxItems": 0}, "at most 0"),
        (float("inf"), NUMBER, "x: inf is not a finite number"), (True, NUMBER, "x: True is not a number"),
        (1.5, {"type": "integer"}, "x: 1.5 is not a whole number"),
        ("", {"type": "string", "minLength": 1}, "x: has 0 characters, and at least 1 are needed"),
        ({}, OBJECT, "x.a: is missing"), ({"a": 1}, OBJECT, "x.a: 1 is not text"),
        ({"a": "", "b": 3}, OBJECT, "x.b: 3"),
        ({"a": "", "b\n": 3}, OBJECT, "x: 3 is larger"), ("c", {"enum": ["a", "b"]}, "x: 'c' is none of 'a', 'b'"),
        (1, {"enum": [True]}, "x: 1 is none of True"), ([["a"]], {"type": "array", "items": {"type": "number"}}, "x.0"),
        (None, {"anyOf": [{"type": "string"}, NUMBER]}, "x: None is not text or a number"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_named(value: object, schema: dict, message: str) -> None:
    with pytest.raises(Problem) as raised:
        check(value, schema, "x")
    assert message in raised.value.message and raised.value.status == 400


@pytest.mark.parametrize(
    ("value", "schema"),
    [(2, NUMBER), (2.0, {"type": "integer"}), (None, {"type": ["integer", "null"]}), ({"a": "", "b": 1}, OBJECT),
     (["a"], {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
     (False, {"enum": [False]})],
)  # fmt: skip
def test_a_value_that_fits_is_taken(value: object, schema: dict) -> None:
    assert check(value, schema, "x") is None
