"""Columns by which answers are checked: how they are read in every format, refused, stored, and what they suggest."""

import json
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riyaz.data import Dataset, Example, task
from riyaz.data.checks import Check, databases_hash
from riyaz.data.formats import load, open_data
from riyaz.data.judging import expect_judged
from riyaz.data.written import form_of, write_rows
from riyaz.errors import RiyazError

TESTS = "assert double(2) == 4"
SCHEMA = {"type": "object", "required": ["name"]}
DEEP: dict[str, Any] = {}
for _ in range(100):
    DEEP = {"properties": {"a": DEEP}}


def database(path: Path, rows: int = 3) -> Path:
    """A table of whole numbers."""
    with sqlite3.connect(path) as connection:
        connection.execute("create table numbers (n integer)")
        connection.executemany("insert into numbers values (?)", [(n,) for n in range(rows)])
    return path


def read(folder: Path, *rows: dict[str, Any], name: str = "train.jsonl", **options: Any) -> Dataset:
    path = folder / name
    columns = list(dict.fromkeys(column for row in rows for column in row))
    write_rows(path, rows, columns, form_of(path, path))
    return load(path, **options)


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv", "train.tsv", "train.parquet"])
def test_every_format_holds_checks(tmp_path: Path, name: str) -> None:
    database(tmp_path / "numbers.sqlite")
    full = {"prompt": "p", "completion": "a", "tests": TESTS, "database": "numbers.sqlite", "schema": SCHEMA,
            "slots": ["Ann", "red bike"], "references": ["b", "a"]}  # fmt: skip
    data = read(tmp_path, full, {"prompt": "q", "completion": "c"}, name=name)
    with_check, bare = data.examples
    check = Check(TESTS, str(tmp_path / "numbers.sqlite"), json.dumps(SCHEMA), ("Ann", "red bike"))
    assert with_check.check == check and with_check.answers == ("a", "b")
    assert bare.check is None and bare.answers == ("c",)
    assert not data.unused_columns and data.reading is not None
    assert data.reading.checks == ("tests", "database", "schema", "slots")


def test_lists_in_a_cell(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        'prompt,completion,slots\np,a,Ann|red bike\nq,b,"Ben\nblue bike"\nr,c,"[""x|y""]"\n'
    )
    slots = [row.check and row.check.slots for row in load(tmp_path / "train.csv").examples]
    assert slots == [("Ann", "red bike"), ("Ben", "blue bike"), ("x|y",)]
    lines = read(tmp_path, {"prompt": "p", "completion": "a", "tests": ["x = 1", "assert x"], "slots": {"who": "Ann"}})
    assert lines.examples[0].check == Check("x = 1\nassert x", slots=("Ann",))


def test_one_database_for_all_rows_and_a_rows_own(tmp_path: Path) -> None:
    both, own = database(tmp_path / "both.sqlite"), database(tmp_path / "own.sqlite")
    rows = {"prompt": "p", "completion": "a"}, {"prompt": "q", "completion": "b", "database": "own.sqlite"}
    data = read(tmp_path, *rows, database=both)
    assert [row.check and row.check.database for row in data.examples] == [str(both), str(own)]
    (tmp_path / "riyaz.toml").write_text('database = "both.sqlite"\n')
    assert open_data(tmp_path).train.examples[0].check == Check(database=str(both))


@pytest.mark.parametrize(
    "column, value, problem",
    [
        ("database", "gone.sqlite", "the database 'gone.sqlite' cannot be read (No such file or directory)"),
        ("database", "train.jsonl", "the database 'train.jsonl' is no SQLite file"),
        ("tests", "assert (", "'tests' is not Python: '(' was never closed in its line 1"),
        ("tests", "x = 1", "'tests' holds nothing that can fail"),
        ("database", "pipe", "the database 'pipe' is no file"),
        ("database", "../out.sqlite", "the database '../out.sqlite' lies outside the folder of the rows"),
        ("database", "/dev/zero", "the database '/dev/zero' lies outside the folder of the rows"),
        ("database", "link.sqlite", "the database 'link.sqlite' lies outside the folder of the rows"),
        ("database", "a\0b", "is no path"),
        ("schema", "text", "'schema' holds no JSON Schema, which is an object of JSON"),
        ("schema", json.dumps(DEEP), "'schema': the schema is nested more than 32 deep"),
    ],
)
def test_a_wrong_check_names_file_and_line(tmp_path: Path, column: str, value: str, problem: str) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    database(folder / "ok.sqlite")
    os.mkfifo(folder / "pipe")
    (folder / "link.sqlite").symlink_to(database(tmp_path / "out.sqlite"))
    right = {"database": "ok.sqlite", "tests": TESTS, "schema": SCHEMA}[column]
    rows = {"prompt": "p", "completion": "a", column: right}, {"prompt": "q", "completion": "b", column: value}
    with pytest.raises(RiyazError) as raised:
        read(folder, *rows)
    assert problem in str(raised.value) and "train.jsonl:2" in str(raised.value), str(raised.value)


@pytest.mark.parametrize(("right", "is_read"), [(1, True), (3, True), (0, False)])
def test_broken_tests_in_the_first_row_are_named_like_those_of_any_other(
    tmp_path: Path, right: int, is_read: bool
) -> None:
    rows = [{"prompt": "p", "answer": "a", "tests": "assert double(2) =="}]
    rows += [{"prompt": f"p{n}", "answer": "a", "tests": TESTS} for n in range(right)]
    if is_read:
        with pytest.raises(RiyazError, match=r"train\.jsonl:1: 'tests' is not Python: invalid syntax in its line 1"):
            read(tmp_path, *rows)
    else:
        assert read(tmp_path, *rows).unused_columns == ("tests",)


def test_a_column_tests_of_other_texts_is_not_read_for_one_that_is_python(tmp_path: Path) -> None:
    texts = [TESTS, "blood, urine", "blood and urine", *["x-ray of it"] * 20]
    data = read(tmp_path, *({"prompt": f"p{n}", "answer": "a", "tests": text} for n, text in enumerate(texts)))
    assert data.unused_columns == ("tests",) and data.examples[0].check is None


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RiyazError, match="name an SQLite file with --database"):
        read(tmp_path, {"prompt": "p", "completion": "a"}, database=tmp_path / "gone.sqlite")


@pytest.mark.parametrize("value", ["postgres", "gone.sqlite", "pipe", "train.jsonl", "/dev/zero", 7, ["d.sqlite"]])
def test_a_column_database_whose_first_value_is_no_database_is_not_read(tmp_path: Path, value: object) -> None:
    os.mkfifo(tmp_path / "pipe")
    database(tmp_path / "d.sqlite")
    data = read(tmp_path, {"prompt": "p", "answer": "a", "database": value}, {"prompt": "q", "answer": "b"})
    assert data.examples[0].check is None and data.unused_columns == ("database",)


@pytest.mark.parametrize(
    "values, read_as_slots",
    [
        (["3", "4"], False),
        (["3|4", "12"], False),
        ([3, 4], False),
        (["%1", "12"], True),  # both occur in their answers
        (["%1", "5"], False),  # one of two is not most of them
        (["Ann|3", "Ben"], True),
        ([["Ann"], {"who": "Ben"}], True),
    ],
)
def test_a_column_slots_of_numbers_is_not_read(tmp_path: Path, values: list[object], read_as_slots: bool) -> None:
    answers = "copy %1 to it", "12 euros"
    rows = ({"prompt": a, "answer": a, "slots": value} for a, value in zip(answers, values))
    data = read(tmp_path, *rows)
    assert all((row.check is not None) == read_as_slots for row in data.examples)
    assert data.unused_columns == (() if read_as_slots else ("slots",))


def test_columns_of_such_names_that_hold_something_else_are_not_read(tmp_path: Path) -> None:
    data = read(tmp_path, {"text": "t", "label": "l", "tests": "blood, urine", "schema": "CREATE TABLE t (n)"})
    assert data.examples[0].check is None and data.unused_columns == ("tests", "schema")
    named = read(tmp_path, {"tests": TESTS, "answer": "a"}, prompt_column="tests", answer_column="answer")
    assert named.examples[0].check is None, "the prompt's own column is no check"
    cited = read(tmp_path, {"text": "t", "label": "l", "references": ["Smith 2001"]})
    assert cited.examples[0].answers == ("l",), "a label has no second accepted answer"


def test_a_check_survives_its_record_and_old_records_open() -> None:
    check = Check(TESTS, "/d.sqlite", "{}", ("Ann",))
    row = Example(({"role": "user", "content": "p"},), ("a",), check=check)
    assert Example.from_record(json.loads(json.dumps(row.to_record()))) == row
    assert "check" not in Example(({"role": "user", "content": "p"},), ("a",)).to_record()
    for wrong in ({"slots": "Ann"}, {"tests": 1}):
        with pytest.raises(ValueError, match="is not a check"):
            Check.from_record(wrong)


def test_the_contents_of_databases_are_hashed(tmp_path: Path) -> None:
    one, other = database(tmp_path / "1.sqlite", 3), database(tmp_path / "2.sqlite", 4)
    first = databases_hash([Check(database=str(one)), None])
    assert first and first != databases_hash([Check(database=str(other))])
    assert databases_hash([Check(TESTS), None]) is None


def rows_with(check: Check | None, answer: str = "some text of more than six words {}") -> tuple[Example, ...]:
    prompts = ({"role": "user", "content": f"p{i}"} for i in range(8))
    return tuple(Example((p,), (answer.replace("{}", str(i)),), check=check) for i, p in enumerate(prompts))


def dataset(examples: tuple[Example, ...]) -> Dataset:
    return Dataset(examples, "prompt,completion", Path("t.jsonl"), "", ("prompt", "completion"))


@pytest.mark.parametrize(
    "check, answer, metric",
    [
        (Check(TESTS), "def double(n): return 2 * n + {} - {}", "pass@1"),
        (Check(TESTS), "same {}", "pass@1"),  # short answers, but no words
        (Check(database="/d"), "select {}", "sql"),
        (None, '{"a": {}}', "json_f1"),
        (Check(slots=("x",)), "some text of more than six words {}", "rouge_l"),
        (Check(schema="{}"), "some text of more than six words {}", "rouge_l"),
    ],
)
def test_checks_suggest_the_metric(check: Check | None, answer: str, metric: str) -> None:
    assert task.detect(dataset(rows_with(check, answer))).metric == metric


def test_a_row_that_the_metric_cannot_judge_is_named() -> None:
    mixed = (*rows_with(Check(TESTS)), *rows_with(None, "other words, seven of them at least {}"))
    with pytest.raises(RiyazError, match="the row has no tests, by which pass@1 judges"):
        task.detect(dataset(mixed))
    assert task.detect(dataset(mixed), metric="chrf").metric == "chrf"
    with pytest.raises(RiyazError, match=r"no database, by which sql judges.*--database"):
        task.detect(dataset(rows_with(None)), metric="sql")
    with pytest.raises(RiyazError, match="an answer that is no JSON object"):
        task.detect(dataset(rows_with(None)), metric="json_f1")
    with pytest.raises(RiyazError, match="an answer that is no JSON object"):
        task.detect(dataset(rows_with(None, '{"price": NaN, "number": {}}')), metric="json_f1")
    labels = tuple(Example(row.messages, (str(i % 2),), check=Check(TESTS)) for i, row in enumerate(rows_with(None)))
    assert task.detect(dataset(labels), kind="closed").metric == "accuracy"


def test_tools_need_an_answer_that_calls_one() -> None:
    call = '<tool_call>\n{"name": "book", "arguments": {"day": {}}}\n</tool_call>'
    plain, calling = rows_with(None), rows_with(None, call)
    with pytest.raises(RiyazError, match=r"t\.jsonl: no answer calls a tool.*tools.*--metric") as refused:
        task.detect(dataset(plain), metric="tools")
    assert "\n" not in str(refused.value)
    mixed = dataset((*plain, *calling))
    assert task.detect(mixed, metric="tools").metric == "tools"
    with pytest.raises(RiyazError, match="no answer calls a tool"):
        expect_judged("tools", mixed, plain)
    either = tuple(replace(row, answers=(*row.answers, calling[0].answer)) for row in plain)
    expect_judged("tools", dataset(either))


def test_an_answer_that_is_an_object_is_its_json(tmp_path: Path) -> None:
    data = read(tmp_path, *({"prompt": f"note {n}", "answer": {"who": "Zoë", "count": n}} for n in range(8)))
    assert data.examples[3].answer == '{"who": "Zoë", "count": 3}'
    assert task.detect(data).metric == "json_f1"


def test_tests_are_never_guessed_as_the_answer(tmp_path: Path) -> None:
    rows = [
        {"aufgabe": f"Write a function that adds {n} to a number.", "lösung": f"def f(x):\n    return x + {n}",
         "tests": f"assert f(1) == {n + 1}"}
        for n in range(12)
    ]  # fmt: skip
    data = read(tmp_path, *rows)
    assert data.examples[0].answer == rows[0]["lösung"] and data.examples[0].check == Check(tests=rows[0]["tests"])
