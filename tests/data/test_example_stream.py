"""Examples that are read anew at every iteration are those of rows in memory, and so is what is said of them."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from riyaz.data import Example, Reading, example_stream, streamed_file
from riyaz.data.example_stream import ExampleStream
from riyaz.data.formats import load
from riyaz.data.questions import Choice, Question
from riyaz.data.task import detect
from riyaz.errors import RiyazError

TURNS = [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))]
ROWS: dict[str, list[dict[str, Any]]] = {
    "labels": [{"text": f"t {n}", "label": ["Lieferung", "lieferung", "x"][n % 3]} for n in range(30)],
    "free": [{"prompt": f"p {n}", "completion": f"a long answer of many words number {n}"} for n in range(9)],
    "guessed": [{"utterance": f"a long question {n}", "kind": ["yes", "no"][n % 2], "n": n} for n in range(12)],
    "turns": [{"messages": TURNS}, {"messages": TURNS[:2]}, {"messages": TURNS}],
    "weights": [{"messages": [TURNS[0], {**TURNS[1], "weight": 0}]}, {"messages": TURNS}],
    "documents": [{"prompt": f"p {n}", "completion": f"a {n}", "doc_id": f"d{n % 6}"} for n in range(9)],
    "alone": [{"prompt": f"p {n}", "completion": f"a {n}", "doc_id": f"d{n}"} for n in range(9)],
    "incomplete": [{"prompt": "p", "completion": "a"}, {"prompt": "", "completion": "b"}, {"prompt": "q"}],
    "late": [*[{"prompt": f"p {n}", "completion": f"a {n}"} for n in range(9)], {"prompt": "p", "answer": "a"}],
    "asked": [{"text": f"t {n}", "team": "ab"[n % 2] if n % 3 else None} for n in range(9)],
    "unlike": [{"text": "t", "team": "z"}],
    "slots": [{"prompt": f"p {n}", "completion": "a word", "slots": "word", "slice": "s"} for n in range(4)],
    "tests": [{"prompt": f"p {n}", "completion": "def f(): return 1", "tests": "assert f()"} for n in range(4)],
    "pairs": [{"prompt": "p", "chosen": f"a {n}", "rejected": "b"} for n in range(3)],
    "thumbs": [{"prompt": f"p {n}", "completion": "a b", "label": n % 2 == 0} for n in range(4)],
    "one": [{"text": f"t {n}", "label": "x"} for n in range(4)],
    "objects": [{"prompt": f"p {n}", "completion": {"n": n}} for n in range(4)],
    "system": [{"prompt": f"p {n}", "completion": f"a {n}", "system": "Answer in verse."} for n in range(4)],
    "wrong": [{"text": "t", "label": ["x", "y"]}, {"text": "u", "label": "x"}],
}
TEAM = [{"name": "team", "type": "choice", "instructions": "?", "choices": [{"value": "a"}, {"value": "b"}]}]
OPTIONS: list[dict[str, Any]] = [
    {}, {"skip_incomplete": True}, {"merge_labels": True}, {"questions": TEAM}, {"turns": "last"},
    {"prompt_column": "prompt", "answer_column": "completion"}, {"group_column": "label"},
    {"like": Reading("text", "label", spellings=("Lieferung",))},
    {"like": Reading("text", questions=(Question("team", "choice", "?", (Choice("a"), Choice("b")), "team"),))},
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streamed_file, "CHUNK", 50)


def write(rows: Sequence[dict[str, Any]], path: str = "rows.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def outcome(path: Path, streamed: bool, options: dict[str, Any]) -> object:
    try:
        data = load(path, streamed=streamed, **options)
        held = {field.name: getattr(data, field.name) for field in fields(data)}
        assert isinstance(data.examples, ExampleStream) == streamed and len(data.examples) == len([*data.examples])
        held["examples"] = [*map(Example.to_record, data.examples)]
    except RiyazError as error:
        return str(error), error.options
    try:
        return held, detect(data)
    except RiyazError as error:
        return held, str(error)


@pytest.mark.parametrize("name", ROWS)
def test_a_stream_has_the_examples_the_notes_and_the_task_of_rows_in_memory(name: str) -> None:
    write(ROWS[name])
    for options in OPTIONS:
        assert outcome(Path("rows.jsonl"), True, options) == outcome(Path("rows.jsonl"), False, options), options


@pytest.mark.parametrize(
    "text", ["text,label\na,x\nb,y\n", 'a,b\n"x\n', "text;label\r\na;x\r\nb;y", "what is it?,x\na,b\n", ""]
)
def test_tables_are_streamed_alike(text: str) -> None:
    Path("rows.csv").write_bytes(text.encode())
    assert outcome(Path("rows.csv"), True, {}) == outcome(Path("rows.csv"), False, {})


def test_several_files_and_kinds_are_read_as_one() -> None:
    write(ROWS["labels"], "a.jsonl")
    Path("b.json").write_text(json.dumps(ROWS["labels"]))
    write(ROWS["labels"], "c.jsonl")
    for pattern in "?.jsonl", "?.json*", "b.json":
        assert outcome(Path(pattern), True, {}) == outcome(Path(pattern), False, {}), pattern
    Path("latin.csv").write_bytes("text,label\nfür,x\nan,y\n".encode("latin-1"))
    for options in ({}, {"encoding": "latin-1"}, {"like": Reading("text", "label", encoding="latin-1")}):
        assert outcome(Path("latin.csv"), True, options) == outcome(Path("latin.csv"), False, options)


def test_columns_are_judged_by_the_first_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    write([*ROWS["guessed"], *({**row, "kind": {"a": 1}} for row in ROWS["guessed"])])
    assert "columns guessed from" not in str(outcome(Path("rows.jsonl"), True, {}))
    monkeypatch.setattr(example_stream, "HEAD_ROWS", 12)
    assert "columns guessed from" in str(outcome(Path("rows.jsonl"), True, {}))
    monkeypatch.setattr(example_stream, "HEAD_CHARACTERS", 200)
    assert len(example_stream.StreamedRows(Path("rows.jsonl"), 24).head()) == 10


def test_slices_of_a_stream_and_a_file_that_changes() -> None:
    write(ROWS["labels"])
    examples = load("rows.jsonl", streamed=True).examples
    assert isinstance(examples, ExampleStream)
    whole = [*examples]
    assert [*examples[:4]] == whole[:4] and isinstance(examples[:4], ExampleStream) and [*examples[5:9]] == whole[5:9]
    assert examples[0] == whole[0] and examples[-1] == whole[-1] and len(examples[:99]) == 30
    examples.expect_unchanged()
    write([*ROWS["labels"][:29], {"text": "new", "label": "x"}])
    with pytest.raises(RiyazError, match=r"^rows.jsonl: was changed while its rows were read; run the same command"):
        examples.expect_unchanged()
    write(ROWS["labels"][:29])
    with pytest.raises(RiyazError, match=r"^rows.jsonl: was changed while its rows were read"):
        list(examples)
