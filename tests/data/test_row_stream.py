"""Rows read as a stream are those that are read whole, with the same errors, in memory that does not grow."""

import gzip
import random
import tracemalloc
from pathlib import Path

import pytest
from refusals import assert_refused

from riyaz.data import streamed_file
from riyaz.data.row_stream import open_rows
from riyaz.data.tables import read_table
from riyaz.errors import RiyazError

PIECES = ['{"text": "é%d"}', "", ' {"text":"u\u2028", "n": [1]} ', '{"b": 1}', "[1]", "{"]
CELLS = ["a,b", '"x\ny",ü', '"x\r\ny",z', 'a,"q""q"', " ,", "a,b,c", '"a', ""]


def outcome(read: object) -> object:
    try:
        return [(line, repr(row)) for line, row in read()]  # type: ignore[operator]
    except RiyazError as error:
        return str(error)


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_has_the_rows_and_errors_of_the_whole_file(
    kind: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed_file, "CHUNK", 40)
    path, draw, good = tmp_path / f"rows{kind}", random.Random(1), 0
    for case in range(60):
        if "jsonl" in kind:
            lines = [draw.choice(PIECES[: 4 if case % 3 else 6]).replace("%d", str(case)) for _ in range(case % 9 + 1)]
        else:
            lines = ["text,label", *(draw.choice(CELLS[: 5 if case % 3 else 8]) for _ in range(case % 9))]
            lines = [line.replace(",", "\t") if "tsv" in kind else line for line in lines]
        content = ("\ufeff" * (case % 5 == 0) + end.join(lines) + end * (case % 2)).encode()
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
        whole = outcome(lambda: read_table(path).rows)
        assert outcome(lambda: streamed_file.streamed_rows(path)) == whole, content
        good += isinstance(whole, list)
    assert good > 20


def test_bytes_that_are_not_utf8_are_named_by_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_file, "CHUNK", 40)
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text\n" + b"a rather long row\n" * 20 + b"caf\xe9\n")
    with assert_refused(f"{path}:22: byte 0xE9 is not UTF-8 (byte 4 of the line; it may be latin-1)"):
        open_rows(path)
    rows = open_rows(path, encoding="latin-1")
    assert rows.count == 21 and [row["text"] for row, _ in rows][-1] == "café"


def test_a_line_without_an_end_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(2**26)  # 64 MiB of NUL, which take no disk
    tracemalloc.start()
    with assert_refused("rows.jsonl:1: the row has at least 1,048,577 characters"):
        open_rows(path)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_file, "CHUNK", 2**13)
    peaks = []
    for count in (1_000, 8_000):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(f'{{"text": "row number {n} of the file", "n": {n}}}\n' for n in range(count)))
        tracemalloc.start()
        rows = open_rows(path)
        assert rows.count == sum(1 for _ in rows) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_several_files_are_one_stream(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "n": 1}\n')
    (tmp_path / "b.csv").write_text("text,m\nthree,3\n")
    (tmp_path / "c.json").write_text('[{"text": "four"}]')
    rows = open_rows(tmp_path / "*.*")
    assert [example.where for _, example in rows] == ["a.jsonl:1", "a.jsonl:3", "b.csv:2", "c.json:1"]
    assert [example.prompt for _, example in rows] == ["one", "two", "three", "four"]
    assert rows.columns == ("text", "n", "m") and rows.count == 4
    (tmp_path / "c.json").write_text('[{"text": "five"}]')
    assert open_rows(tmp_path / "*.*").sha256 != rows.sha256


def test_every_row_without_a_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": ""}\n{"n": 1}\n')
    with assert_refused("rows.jsonl:2: the row has no 'text' (and 1 more: line 3); correct or remove the rows"):
        open_rows(path)
