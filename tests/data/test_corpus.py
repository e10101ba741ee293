"""Plain text as documents: the table of docs/data.md row by row, and every refusal."""

import gzip
import json
import os
from pathlib import Path

import pytest
from refusals import assert_refused
from test_formats import table

from riyaz.data.corpus import Document, documents, pieces


def texts(*paths: Path) -> list[str]:
    return [document.text for document in documents(paths)]


def write(path: Path) -> list[str]:
    """Write the file or folder of a row of the table; the texts it stands for."""
    if path.name.endswith(".gz"):
        plain = path.with_name(path.name.removesuffix(".gz"))
        found = write(plain)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
        return found
    if path.suffix == ".jsonl":
        rows = [{"text": "one\r\ntwo", "n": 1}, {"text": ""}, {"text": None}, {"text": "three é"}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
        return ["one\ntwo", "three é"]
    if path.suffix:
        path.write_bytes(f"\ufeff# {path.name}\r\n\r\nWörter\rend\n".encode())
        return [f"# {path.name}\n\nWörter\nend\n"]
    (path / "b" / "a").mkdir(parents=True)
    (path / ".git").mkdir()
    for name in (".hidden.txt", "empty.txt", ".git/x.txt", "photo.png", "rows.csv"):
        (path / name).write_bytes(b"" if name == "empty.txt" else b"\x89PNG\0")
    order = ["a.md", "b.txt", "b/a.jsonl", "b/a/c.rst", "b/z.text.gz", "c.markdown"]
    return [text for name in order for text in write(path / name)]


@pytest.mark.parametrize("name", [row[0] for row in table("Plain text", "text")])
def test_the_table(tmp_path, name):
    expected = write(tmp_path / name)
    assert texts(tmp_path / name) == expected and expected
    assert texts(tmp_path / name) == expected  # the same order again


def test_places_and_files(tmp_path):
    write(tmp_path / "a.jsonl")
    write(tmp_path / "b.txt")
    found = list(documents([tmp_path, tmp_path / "b.txt", str(tmp_path / "b.txt")]))  # b.txt is read once
    assert [d.where.rpartition("/")[2] for d in found] == ["a.jsonl:1", "a.jsonl:4", "b.txt"]
    assert {d.file for d in found} == {str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt")}
    assert isinstance(found[0], Document)


def test_a_folder_among_the_texts_can_be_left_out(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("a.txt", "out/b.txt", "outer.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.txt").symlink_to("out/b.txt")
    found = [document.text for document in documents([tmp_path], exclude=tmp_path / "x/../out")]
    assert found == ["a.txt", "outer.txt"]


def test_half_a_surrogate_pair_becomes_the_replacement_character(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b"}\n')
    assert texts(tmp_path / "a.jsonl") == ["a\ufffdb"]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.txt", b"", ["a.txt", "the file is empty"]),
        ("a.txt", b" \n\n", ["a.txt", "the file is empty"]),
        ("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\2\3" * 9, ["a.txt", "binary file"]),
        ("a.bin", bytes(range(256)) * 8, ["a.bin", "binary file"]),
        ("a.txt", b"fine\ncaf\xe9\n", ["a.txt:2", "0xE9 is not UTF-8", "latin-1", "save the file as UTF-8"]),
        ("a.txt", "wide".encode("utf-16"), ["a.txt:1", "looks like utf-16", "save the file as UTF-8"]),
        ("a.txt", "wide text".encode("utf-16-le"), ["a.txt:1", "looks like utf-16-le"]),
        ("a.txt.gz", b"no gzip", ["a.txt.gz", "not gzip"]),
        ("a.csv", b"text,label\na,b\n", ["a.csv", "a table (.csv) is not text", ".jsonl"]),
        ("a.jsonl", b'{"prompt": "p"}\n', ["a.jsonl", "no row has the column 'text', only prompt"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', ["a.jsonl:2", "text is a number, not text"]),
        ("a.jsonl", b'{"text": "a"}\nno\n', ["a.jsonl:2", "not JSON"]),
        ("a.jsonl", b'{"text": ""}\n', ["contains no text"]),
    ],
)
def test_refusals(tmp_path, name, content, parts):
    (tmp_path / name).write_bytes(content)
    with assert_refused(*parts):
        texts(tmp_path / name)
    if name == "a.txt" and content.strip():  # in a folder too: text that cannot be read is never skipped
        with assert_refused(*parts):
            texts(tmp_path)


def test_paths_that_are_none(tmp_path):
    with assert_refused("nothing.txt", "no such file or folder"):
        texts(tmp_path / "nothing.txt")
    (tmp_path / "photo.png").write_bytes(b"x")
    with assert_refused(str(tmp_path), "contains no text", ".jsonl"):
        texts(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    with assert_refused("contains no text"):
        texts(tmp_path)


def test_text_with_some_control_characters_is_text(tmp_path):
    (tmp_path / "log.txt").write_text("\x1b[31mred\x1b[0m and a page\x0c" + "words " * 100)
    assert texts(tmp_path)[0].startswith("\x1b[31mred")


def test_pieces_are_the_text_cut_between_words(monkeypatch):
    monkeypatch.setattr("riyaz.data.corpus.PIECE", 10)
    text = "one two\nthree four\n\nfive  six seven\n eight\nnine\nten 11 12 eleven twelve"
    cut = list(pieces(text))
    assert cut == ["one two\nthree", " four\n\nfive  six", " seven\n eight\n", "nine\nten 11 12", " eleven twelve"]
    assert list(pieces("")) == [] and list(pieces("a" * 50)) == ["a" * 50]
