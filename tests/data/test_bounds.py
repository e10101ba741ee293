"""Limits on rows: named with file, line and size, before a row is parsed or tokenised."""

import gzip
import json
import random
import tracemalloc
from pathlib import Path

import pytest
from refusals import assert_refused
from test_formats import ROWS, workbook, write

from riyaz.data import bounds, corpus, formats, memory, tables
from riyaz.retrieval import documents

LONG = "a" * (bounds.ROW + 1)
HINT = "shorten it, split it into several rows or leave out what is not needed"


def test_a_long_line_is_named_with_its_size_and_never_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", ROWS[0], {"text": LONG, "label": "l"}, ROWS[1])
    parsed = []
    real = json.loads
    monkeypatch.setattr(tables.json, "loads", lambda text: parsed.append(len(text)) or real(text))
    with assert_refused(f"a.jsonl:2: the row has 1,048,603 characters, and a row may have 1,048,576; {HINT}"):
        formats.load(path)
    assert max(parsed) < 100
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with assert_refused("b.jsonl.gz:2: the row has 1,048,603 characters"):
        formats.load(packed)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz", "a.JSONL"])
def test_a_line_without_end_is_refused_before_it_is_in_memory(tmp_path: Path, name: str) -> None:
    size = 48 * 2**20
    words = random.Random(0).randbytes(2**16).hex().encode()
    content = b'{"text": "t", "label": "l"}\n{"text": "' + words * (size // len(words))
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    stored = path.stat().st_size
    del content
    tracemalloc.start()
    try:
        with assert_refused(
            f"{name}:2: the row has at least 1,048,577 characters, and a row may have 1,048,576; {HINT}"
        ):
            tables.read_table(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20 + (2 * stored if name.endswith(".gz") else 0)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_many_lines_of_any_end_are_no_long_line(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "a" * 1000, "label": "l"})
    path.write_bytes((line + end).encode() * 6000)
    assert len(tables.read_table(path).rows) == 6000


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_long_fields_rows_and_open_quotes_of_a_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    comma = {".csv": ",", ".tsv": "\t"}[suffix]
    path.write_text(f"text{comma}label\nt{comma}l\n{LONG}{comma}l\n")
    with assert_refused(f"a{suffix}:3: the row has at least 1,048,580 characters", HINT):
        formats.load(path)
    path.write_text(f"text{comma}label\n" + comma * (bounds.ROW + 1) + "\n")
    with assert_refused(f"a{suffix}:2: the row has at least 1,048,578 characters"):
        formats.load(path)
    path.write_text(f'text{comma}label\nt{comma}l\n"t{comma}l\n' + f"u{comma}m\n" * bounds.ROW)
    with assert_refused(f"a{suffix}:3: the row has at least 1,0", 'or close the " that is open in it'):
        formats.load(path)


def test_long_elements_of_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "WINDOW", 2**21)
    path = tmp_path / "a.json"
    for size, said in (bounds.ROW, "1,048,604"), (3 * tables.WINDOW, "at least 2,097,152"):
        path.write_text(json.dumps([ROWS[0], {"text": "a" * size, "label": "l"}], indent=0))
        with assert_refused("a.json:6: the row has " + said + " characters"):
            formats.load(path)
    path.write_text('[{"text": [' + "[]," * tables.WINDOW)
    with assert_refused("a.json:1: the row has at least 2,097,152 characters"):
        formats.load(path)


def test_a_long_array_of_short_rows_keeps_its_places_and_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "WINDOW", 200)
    path, rows = tmp_path / "a.json", [{"text": f"t{n}", "label": "l"} for n in range(100)]
    lines = "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]"
    path.write_text(lines)
    read = tables.read_table(path, longest=100)
    assert read.rows == [(n + 2, row) for n, row in enumerate(rows)]
    path.write_text(lines.replace('"t77", "label"', '"t77" "label"'))
    with assert_refused("a.json:79: not JSON (Expecting ',' delimiter, column 16)"):
        tables.read_table(path, longest=100)
    path.write_text(lines.replace('"t77", "label"', '"t77'))
    with assert_refused("a.json:79: not JSON (Expecting"):
        tables.read_table(path, longest=100)


def test_an_object_around_the_rows_is_still_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"data": ROWS * 20_000}, indent=1))
    assert path.stat().st_size > bounds.ROW
    with assert_refused("a.jsonl:1: one object spans lines 1 to", "'data' is a list of 80000"):
        formats.load(path)


def test_long_rows_in_workbooks_and_in_memory(tmp_path: Path) -> None:
    with assert_refused("data row 2: the row has 1,048,604 characters, and a row may have 1,048,576"):
        formats.load(memory.table_of([ROWS[0], {"text": LONG, "label": "l"}], "data"))
    book = workbook(tmp_path / "a.xlsx", [["text", "label", *range(40)], ["t", "l", *[LONG[:32_000]] * 40]])
    with assert_refused("a.xlsx:Sheet:2: the row has 1,280,002 characters"):
        formats.load(book)


def test_rows_are_counted_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_ROWS", 5)
    write(tmp_path / "a.jsonl", *ROWS)
    assert len(formats.load(tmp_path / "a.jsonl").examples) == 4
    write(tmp_path / "b.jsonl", *ROWS)
    with assert_refused("*.jsonl: has more than 5 rows; take a part of them, such as the first 100,000"):
        formats.load(tmp_path / "*.jsonl")
    for path in (
        write(tmp_path / "c.jsonl", *ROWS, *ROWS),
        workbook(tmp_path / "c.xlsx", [["text", "label"], *[["t", "l"]] * 6]),
    ):
        with assert_refused(f"{path.name}: has more than 5 rows"):
            formats.load(path)


def test_a_file_over_two_gibibytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.truncate(bounds.MAX_BYTES + 1)
    with assert_refused("a.jsonl: has more than 2,147,483,648 bytes; split it, or take fewer rows"):
        formats.load(path)


def test_text_to_pretrain_on_and_documents_may_be_longer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": LONG})
    assert [len(document.text) for document in corpus.documents([path])] == [len(LONG)]
    assert len(documents.read_documents(path)[0][0].text) == len(LONG)
    write(path, {"text": "a" * bounds.DOCUMENT})
    with assert_refused("a.jsonl:1: the row has 16,777,228 characters, and a row may have 16,777,216"):
        documents.read_documents(path)
