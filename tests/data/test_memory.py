"""Rows in memory are read as the rows of a file are: the same examples, one hash, places that name the row."""

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from tiny_comparison import closed_rows

from riyaz.data import memory
from riyaz.data.formats import load, open_data
from riyaz.data.split import split
from riyaz.data.task import detect
from riyaz.errors import RiyazError

ROWS: list[dict[str, Any]] = [
    {"question": "where is it?", "answers": ["here", "over there"], "doc_ids": ["a.md"], "slice": "odd"},
    {"question": "when?", "answers": ["now"], "doc_ids": ["b.md", "c.md"]},
    {"question": "how many?", "answers": [3, 4.5, True], "slice": None},
    {"question": "Größe — 大?", "answers": "  in\n    two lines "},
]


def examples(data: Any) -> list[tuple]:
    """What is read of the rows, without where they stand."""
    return [(example.messages, example.answers, example.slice, example.doc_ids) for example in load(data).examples]


def test_rows_in_memory_are_the_examples_of_their_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    wanted = examples(file)
    assert examples(memory.table_of(ROWS, "data")) == wanted
    assert examples(memory.table_of(iter(ROWS), "data")) == wanted
    assert examples(memory.table_of(pandas.DataFrame(ROWS), "data")) == wanted


def test_conversations_in_memory_are_read() -> None:
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
    (example,) = load(memory.table_of([{"messages": turns}], "data")).examples
    assert (example.prompt, example.answer) == ("hello", "good day")


def test_a_row_is_named_by_its_number() -> None:
    data = load(memory.table_of(ROWS, "data"))
    assert [example.where for example in data.examples] == ["data row 1", "data row 2", "data row 3", "data row 4"]
    assert data.place(data.examples[2]) == "data row 3"
    with pytest.raises(RiyazError) as raised:
        load(memory.table_of([*ROWS, {"question": "and?"}, {"answers": "so"}], "test"))
    assert str(raised.value).startswith("test row 5: the row has no 'answers' (and 1 more: row 6)")


def test_equal_rows_have_one_hash_and_others_another() -> None:
    def digest(rows: Any) -> str:
        return memory.table_of(rows, "data").sha256

    turned = [dict(reversed(list(row.items()))) for row in ROWS]
    assert digest(ROWS) == digest(turned) == digest(pandas.DataFrame(ROWS))
    assert digest(ROWS) != digest(ROWS[::-1])
    assert digest(ROWS) != digest([{**ROWS[0], "slice": "even"}, *ROWS[1:]])


def test_what_is_missing_in_a_frame_is_null_and_its_own_types_are_plain() -> None:
    frame = pandas.DataFrame(
        {
            "text": ["a", None, float("nan")],
            "label": pandas.Categorical(["x", None, "y"]),
            "count": pandas.array([1, None, 3], dtype="Int64"),
            "share": np.array([0.5, np.nan, 2.0], np.float32),
            "day": pandas.to_datetime(["2026-01-02", None, "2026-03-04"]),
            "parts": [np.array([1, 2]), ["a", np.str_("b")], {"k": np.bool_(True)}],
            7: [b"\x00", datetime.date(2026, 1, 2), np.datetime64("2026-01-02", "ns")],
        }
    )
    table = memory.table_of(frame, "data")
    rows = [row for _, row in table.rows]
    assert table.columns == ("text", "label", "count", "share", "day", "parts", "7")
    assert rows[0] == {
        "text": "a", "label": "x", "count": 1, "share": 0.5, "day": "2026-01-02 00:00:00", "parts": [1, 2], "7": None,
    }  # fmt: skip
    assert rows[1] == {**dict.fromkeys(table.columns), "parts": ["a", "b"], "7": "2026-01-02"}
    assert rows[2]["text"] is None and rows[2]["parts"] == {"k": True} and str(rows[2]["7"]).startswith("2026-01-02")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "data: there are no rows; give one dictionary for each example"),
        ({"text": ["a"]}, "data: dict is not a list of rows; give a path, a DataFrame or a list of dictionaries"),
        (7, "data: int is not a list of rows"),
        (["a"], "data row 1: is a string, not a dictionary"),
        ([{"text": "a"}, object()], "data row 2: is object, not a dictionary"),
        (pandas.DataFrame([["a", "b"]], columns=["text", "text"]), "data: two columns have the same name"),
    ],
)
def test_what_is_no_list_of_rows_is_refused(rows: Any, says: str) -> None:
    with pytest.raises(RiyazError) as raised:
        memory.table_of(rows, "data")
    assert str(raised.value).startswith(says)


def test_rows_nested_too_deeply_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RiyazError, match="data row 1: is nested too deeply"):
        memory.table_of([{"text": deep}], "data")


def test_rows_in_memory_are_split_as_those_of_a_file(tmp_path: Path) -> None:
    rows, tested = closed_rows(45, "please"), closed_rows(18, "today")
    for name, part in (("train", rows), ("test", tested)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    found = open_data(memory.table_of(rows, "data"), test=memory.table_of(tested, "test"))
    mixed = open_data(tmp_path, test=memory.table_of(tested, "test"))
    filed = open_data(tmp_path)
    parts = [split(each.train, each.test, detect(each.train), seed=3)[0] for each in (found, mixed, filed)]
    for which in ("train", "valid", "test"):
        prompts = [[example.prompt for example in getattr(part, which)] for part in parts]
        assert prompts[0] == prompts[1] == prompts[2]
    assert [example.where for example in parts[0].test] == [f"test row {n}" for n in range(1, 19)]
