"""Rows that do not fit the context are found before anything long begins, and only those."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import tiny_comparison
import tiny_llama
from refusals import assert_refused

from riyaz.artifact import TextPart
from riyaz.comparison.context_limit import without_too_long
from riyaz.data import Example
from riyaz.data.rows import encode_rows, rendered
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.prompting import messages_for
from riyaz.sources import open_source
from riyaz.text.tokenizer import Tokenizer

TASK = Task("closed", ("billing", "delivery", "refund"), "accuracy", "Classify the text. Answer with one label.", "")


@pytest.fixture(scope="module")
def tokenizer(model_folder: Path) -> Tokenizer:
    return open_source(model_folder).tokenizer()


def examples(count: int, name: str) -> tuple[Example, ...]:
    return tuple(
        Example(({"role": "user", "content": row["text"]},), (row["label"],), where=f"{name}.jsonl:{i}")
        for i, row in enumerate(tiny_comparison.closed_rows(count, name), 1)
    )


def long(example: Example) -> Example:
    return replace(example, messages=({"role": "user", "content": "where is my refund? " * 300},))


def test_rows_that_fit_stay_as_they_are(tokenizer: Tokenizer) -> None:
    split = Split(examples(30, "train"), examples(8, "valid"), examples(9, "test"))
    assert without_too_long(split, TASK, tokenizer, 1024) == (split, [])


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_row_that_is_too_long_is_left_out_and_named(tokenizer: Tokenizer, part: str) -> None:
    rows = {"train": examples(30, "train"), "valid": examples(8, "valid"), "test": examples(24, "test")}
    whole = Split(**rows)
    rows[part] = (*rows[part][:3], long(rows[part][3]), *rows[part][4:])
    found, where = without_too_long(Split(**rows), TASK, tokenizer, 1024)
    assert where == [f"{part}.jsonl:4"]
    kept = {name: tuple(row for row in getattr(whole, name) if row.where not in where) for name in rows}
    assert found == Split(**kept)


def test_the_limit_is_the_whole_prompt_with_room_for_the_answer(tokenizer: Tokenizer) -> None:
    first, *rest = examples(30, "train")
    rows = (replace(first, messages=({"role": "user", "content": f"{first.prompt} and where is it now"},)), *rest)
    texts = [messages_for(TextPart(TASK.instruction), TASK, row.messages, ()) for row in rows]
    encoded = tokenizer.rows([(text, row.answer) for text, row in zip(texts, rows)])
    second, longest = sorted(len(row.prompt) + max(8, round(1.25 * len(row.answer))) for row in encoded)[-2:]
    assert second < longest
    assert without_too_long(Split(rows, (), ()), TASK, tokenizer, longest)[1] == []
    assert without_too_long(Split(rows, (), ()), TASK, tokenizer, longest - 1)[1] == ["train.jsonl:1"]


def test_rows_of_folds_are_left_out_of_every_fold(tokenizer: Tokenizer) -> None:
    rows = examples(30, "rows")
    rows = (long(rows[0]), *rows[1:])
    folds = tuple(Split(rows[:i] + rows[i + 6 :], (), rows[i : i + 6]) for i in range(0, 30, 6))
    found, where = without_too_long(Split(rows, (), (), folds), TASK, tokenizer, 1024)
    assert where == ["rows.jsonl:1"] and len(found.train) == 29
    assert [len(fold.test) for fold in found.folds] == [5, 6, 6, 6, 6]
    assert all(len(fold.train) + len(fold.test) == 29 for fold in found.folds)


@pytest.mark.parametrize("part", ["training", "test"])
def test_too_many_are_refused(tokenizer: Tokenizer, part: str) -> None:
    rows, tests = examples(30, "train"), examples(30, "test")
    spoiled = tuple(long(row) if i < 2 else row for i, row in enumerate(rows if part == "training" else tests))
    split = Split(spoiled, (), tests) if part == "training" else Split(rows, (), spoiled)
    with assert_refused(f"2 of 30 {part} rows do not fit the context of 1024 tokens", ":1: "):
        without_too_long(split, TASK, tokenizer, 1024)


def test_files_of_the_same_name_in_two_folders_are_told_apart(tokenizer: Tokenizer) -> None:
    train, valid, test = examples(30, "rows"), examples(6, "valid"), list(examples(30, "rows"))
    test[3] = long(test[3])
    found, where = without_too_long(Split(train, valid, tuple(test)), TASK, tokenizer, 1024)
    assert where == ["rows.jsonl:4"] and len(found.test) == 29 and found.train == train


def test_a_row_whose_turns_the_chat_template_leaves_out_is_refused_by_its_place(tmp_path: Path) -> None:
    """[user, assistant, user] and a template that writes the last turn alone, in every file that is read."""
    folder = tiny_llama.write_tokenizer(tmp_path)
    last = "{% for m in (messages[-2:] if messages[-1].role == 'assistant' else messages[-1:]) %}{{ m.content }}"
    (folder / "chat_template.jinja").write_text(last + "<|im_end|>{% endfor %}")
    short = Tokenizer.from_folder(folder)
    rows = {"train": examples(30, "train"), "valid": examples(8, "valid"), "test": examples(24, "test")}
    assert without_too_long(Split(**rows), TASK, short, 1024)[1] == []
    for part in rows:
        before = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
        talk = replace(rows[part][2], messages=(*before, *rows[part][2].messages))
        said = f"{part}.jsonl:3: the model's chat template drops earlier turns: no more than 1 turn"
        with assert_refused(said):
            without_too_long(Split(**{**rows, part: (*rows[part], talk)}), TASK, short, 1024)
        for encode in (partial(encode_rows, context=1024), rendered):
            with assert_refused(said):
                encode(short, [(talk.messages, talk)])


def test_a_given_limit_of_the_answers_is_the_room_they_need(tokenizer: Tokenizer) -> None:
    split = Split(examples(30, "train"), examples(8, "valid"), examples(9, "test"))
    free = replace(TASK, kind="free", labels=(), metric="rouge_l")
    assert without_too_long(split, replace(free, max_new_tokens=900), tokenizer, 1024) == (split, [])
    with assert_refused("rows do not fit the context of 1024 tokens"):
        without_too_long(split, replace(free, max_new_tokens=1020), tokenizer, 1024)
