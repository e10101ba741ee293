"""Rows become ids with their checks, and batches without padding that depend on (seed, step) alone."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st

from riyaz.data import Example
from riyaz.data.packing import SHORTEST_SHARED, batch, pack, steps_per_epoch
from riyaz.data.rows import Row, encode_rows
from riyaz.errors import RiyazError
from riyaz.text.tokenizer import Tokenizer

END = 9


class FakeTokenizer:
    """One token per word, its length; a check of the real tokenizer fails where the prompt has its name."""

    def check_turns(self, messages: list[dict[str, str]], where: str) -> None:
        """Whether the template would leave out a turn."""

    def rows(self, pairs: list[tuple[list[dict[str, str]], str]]) -> list[SimpleNamespace]:
        """Encoded rows of (messages, answer)."""
        return [self.row(messages, answer) for messages, answer in pairs]

    def row(self, messages: list[dict[str, str]], answer: str) -> SimpleNamespace:
        words = " ".join(message["content"] for message in messages).split()
        checks = {name: name not in words for name in ("ends_with_eos", "one_bos", "prompt_is_prefix")}
        ids = [len(word) for word in answer.split()] + [END]
        return SimpleNamespace(prompt=[1, *(len(word) for word in words)], answer=ids, checks=checks)


def prompts(*texts: str) -> list[tuple[tuple[dict[str, str], ...], Example]]:
    """What `encode_rows` takes, one for each text."""
    turns = [({"role": "user", "content": text},) for text in texts]
    return [(turn, Example(turn, ("a bb", "other"), None, f"train.jsonl:{n}")) for n, turn in enumerate(turns, 1)]


def encode(pairs: list, context: int = 100) -> tuple[list[Row], dict[str, dict]]:
    return encode_rows(FakeTokenizer(), pairs, context)  # type: ignore[arg-type]


def test_rows_carry_prompt_answer_and_example():
    pairs = prompts("one three")
    rows, checks = encode(pairs)
    assert rows == [Row((1, 3, 5), (1, 2, END), pairs[0][1])]
    assert checks["ends_with_eos"] == {"ok": True, "rows": 1, "failed": 0}
    assert checks["fits_context"] == {"ok": True, "rows": 1, "failed": 0, "longest": 6, "context": 100}
    assert all(check["ok"] for check in checks.values())


def test_the_messages_given_are_rendered_and_not_the_examples_own():
    (_, example), *_ = prompts("one")
    rows, _ = encode([([{"role": "system", "content": "please"}, *example.messages], example)])
    assert rows[0].prompt == (1, 6, 3)


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_rows_too_long_are_left_out_and_counted(count):
    texts = ["one"] * 38 + ["w " * 20] * count
    pairs = prompts(*texts)
    rows, checks = encode(pairs, context=10)
    assert len(rows) == 38 and {len(row.prompt) for row in rows} == {2}
    assert checks["fits_context"] == {
        "ok": True, "rows": 38 + count, "failed": count, "longest": 24, "context": 10,
    }  # fmt: skip


def test_many_rows_too_long_are_refused():
    pairs = prompts(*["one"] * 37, *["w " * 20] * 3)
    with pytest.raises(RiyazError) as error:
        encode(pairs, context=10)
    assert re.fullmatch(
        r"train.jsonl:38: 3 of 40 rows are longer than 10 tokens, the longest has 24; .*", str(error.value)
    )


def test_rows_without_a_label_are_left_out_or_refused():
    good, turns = prompts(*["one"] * 39), ({"role": "user", "content": "two"},)
    empty = [(turns, Example(turns, ("",), None, "train.jsonl:40"))]
    rows, checks = encode(good + empty)
    assert len(rows) == 39 and checks["has_label"] == {"ok": True, "rows": 40, "failed": 1}
    with pytest.raises(RiyazError, match=r"train.jsonl:40: 1 of 11 answers have no token"):
        encode(good[:10] + empty)


@pytest.mark.parametrize(("word", "what"), [("ends_with_eos", "end-of-text token"), ("one_bos", "two BOS tokens")])
def test_one_broken_row_is_refused(word, what):
    with pytest.raises(RiyazError, match=rf"train.jsonl:7: .*{what}"):
        encode(prompts(*["one"] * 6, word, *["one"] * 93))


def test_prompts_that_are_no_prefix_are_counted_then_refused():
    rows, checks = encode(prompts("prompt_is_prefix", *["one"] * 19))
    assert len(rows) == 20 and checks["prompt_is_prefix"] == {"ok": True, "rows": 20, "failed": 1}
    with pytest.raises(RiyazError, match=r"train.jsonl:1: 1 of 19 prompts are not a prefix"):
        encode(prompts("prompt_is_prefix", *["one"] * 18))


def test_the_real_tokenizer_gives_rows_that_pass(tmp_path):
    tokenizer = Tokenizer.from_folder(tiny_llama.write_tokenizer(tmp_path))
    rows, checks = encode_rows(tokenizer, prompts("Where is it?", "Why <|im_end|> not?"), 200)
    assert [row.answer[-1] for row in rows] == [tokenizer.end_of_turn] * 2
    assert all(check["ok"] and not check["failed"] for check in checks.values()) and len(checks) >= 5
    assert tokenizer.decode(rows[0].answer) == "a bb" and "Where is it?" in tokenizer.decode(rows[0].prompt)


# Packing

ROWS = st.lists(
    st.builds(
        Row,
        st.lists(st.integers(0, 99), min_size=1, max_size=6).map(tuple),
        st.lists(st.integers(0, 99), min_size=1, max_size=6).map(tuple),
    ),
    min_size=1,
    max_size=6,
)


def test_pack_by_hand():
    packed = pack([Row((10, 11, 12), (13, 14)), Row((20,), (21,))])
    assert packed.tokens.tolist() == [10, 11, 12, 13, 20] and packed.lengths == [4, 1]
    assert packed.positions.tolist() == [0, 1, 2, 3, 0]
    assert packed.label_index.tolist() == [2, 3, 4] and packed.labels.tolist() == [13, 14, 21]
    for array in (packed.tokens, packed.positions, packed.label_index, packed.labels):
        assert array.dtype == np.int64


def test_what_all_rows_begin_with_stands_there_once():
    same = tuple(range(50, 50 + SHORTEST_SHARED))
    packed = pack([Row((*same, 1, 2), (3, 4)), Row((*same, 5), (6,)), Row((*same, 1, 7), (8, 9, 10))])
    assert packed.shared == SHORTEST_SHARED and packed.lengths == [3, 1, 4]
    assert packed.tokens.tolist() == [*same, 1, 2, 3, 5, 1, 7, 8, 9]
    assert packed.positions.tolist() == [*range(SHORTEST_SHARED + 3), 8, 8, 9, 10, 11]
    assert packed.labels.tolist() == [3, 4, 6, 8, 9, 10] and packed.label_index.tolist() == [9, 10, 11, 13, 14, 15]
    assert pack([Row((*same, 1), (3,))]).shared == 0, "a row alone shares nothing"
    assert pack([Row(same, (3,)), Row(same, (4,))]).shared == 0, "the last token of a prompt predicts its answer"


@settings(deadline=None)
@given(ROWS, st.sampled_from([0, SHORTEST_SHARED - 1, SHORTEST_SHARED, 20]))
def test_every_answer_token_is_predicted_from_the_token_before_it(rows, common):
    rows = [Row((*range(200, 200 + common), *row.prompt), row.answer) for row in rows]
    packed = pack(rows)
    shared = packed.shared
    assert shared >= common * (len(rows) > 1 and common >= SHORTEST_SHARED)
    assert all(row.prompt[:shared] == tuple(packed.tokens[:shared]) and len(row.prompt) > shared for row in rows)
    starts = np.cumsum([0, *packed.lengths])  # less what is shared, plus what is: a row's place counted from 0
    expected = [
        (starts[number], [*row.prompt, *row.answer], place)
        for number, row in enumerate(rows)
        for place in range(len(row.prompt), len(row.prompt) + len(row.answer))
    ]
    assert len(expected) == len(packed.labels) == len(packed.label_index)
    for got, (start, ids, place) in enumerate(expected):
        assert packed.labels[got] == ids[place]
        assert packed.label_index[got] == start + place - 1
        assert packed.tokens[packed.label_index[got]] == ids[place - 1]
        assert packed.positions[packed.label_index[got]] == place - 1
    assert len(packed.tokens) == shared + sum(packed.lengths)  # no padding


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 12), st.integers(0, 5))
def test_an_epoch_takes_every_row_once_in_even_batches(count, size, seed):
    steps = steps_per_epoch(count, size)
    for epoch in range(2):
        batches = [batch(count, size, seed, epoch * steps + step) for step in range(steps)]
        assert sorted(row for rows in batches for row in rows) == list(range(count))
        lengths = {len(rows) for rows in batches}
        assert max(lengths) <= size and max(lengths) - min(lengths) <= 1


def test_batches_depend_on_seed_and_step_alone():
    forward = [batch(30, 8, 1, step) for step in range(12)]
    assert forward[::-1] == [batch(30, 8, 1, step) for step in reversed(range(12))]
    assert forward[:4] != forward[4:8] and forward != [batch(30, 8, 2, step) for step in range(12)]
    assert batch(10, 10, 0, 0) == [3, 7, 1, 4, 9, 5, 6, 8, 2, 0]  # the same on every machine and version


def test_a_caller_may_change_its_batch():
    batch(5, 5, 0, 0).clear()
    assert len(batch(5, 5, 0, 0)) == 5
