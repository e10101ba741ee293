"""Documents that others made: lock files, bombs, long runs, links; each is left out or named, in time that grows with
its length."""

from collections.abc import Callable
from pathlib import Path

import pytest
from document_files import nested_forms, pdf
from linear_time import linear
from refusals import assert_refused

from riyaz.retrieval import parsers
from riyaz.retrieval.chunks import chunk
from riyaz.retrieval.collection import add
from riyaz.retrieval.documents import Document, read_documents
from riyaz.retrieval.html_text import html_text
from riyaz.retrieval.parsers import parse_markdown
from riyaz.text.sentences import whole_sentences

# hidden and temporary files


def test_what_word_and_libreoffice_keep_beside_an_open_document_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "rules.txt").write_text("Nine to five.")
    (tmp_path / "~$rules.docx").write_bytes(b"\x05Someone" + bytes(150))
    (tmp_path / ".~lock.rules.docx#").write_text("someone")
    (tmp_path / "~WRL0001.docx").write_bytes(b"half")
    documents, notes = read_documents(tmp_path)
    assert [document.doc_id for document in documents] == ["rules.txt"]
    assert notes == ["left out, hidden or temporary: .~lock.rules.docx# and 2 more"]
    with assert_refused("~$rules.docx: is what a program keeps while a document is open; name the document itself"):
        read_documents(tmp_path / "~$rules.docx")


# HTML


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a&#" + "9" * 5_000 + ";b", "a\ufffdb"), ("a&#" + "9" * 5_000, "a\ufffd"),
        ("a&#x" + "f" * 5_000 + ";b", "a\ufffdb"), ("&#" + "0" * 5_000 + "65;x", "Ax"), ("&#65;&#x42;&#1114112;&#0;",
         "AB\ufffd\ufffd"), ("<p title='&#" + "9" * 5_000 + "'>x", "x"), ("&#65x &# &#; &amp;#65;", "Ax &# &#; &#65;"),
    ],
)  # fmt: skip
def test_a_character_reference_of_any_length_is_one_character(source: str, text: str) -> None:
    assert html_text(source)[1] == text


def test_whatever_a_reader_raises_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: str) -> tuple[str, str]:
        raise ValueError("Exceeds the limit")

    (tmp_path / "a.html").write_text("x")
    monkeypatch.setattr("riyaz.retrieval.parsers.html_text", fails)
    with assert_refused("a.html: cannot be read: ValueError: Exceeds the limit; leave it out, or save it again"):
        read_documents(tmp_path)


# time


def _chunks(text: str) -> None:
    chunk(Document("d", "", text, "d"))


@pytest.mark.parametrize(
    ("use", "unit", "size"),
    [
        *((_chunks, unit, 100_000) for unit in ("…", ".'", ".\"'", "。」", "#", "\n\n# a")),
        *((_chunks, unit, 300_000) for unit in ("\n", "\n ", "# ")),
        (whole_sentences, "…", 300_000), (whole_sentences, ".'", 300_000),
        (html_text, "&#", 1_000_000), (html_text, "&#9", 300_000), (html_text, "&#x", 1_000_000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lead", ["", "# a"])
def test_time_grows_with_the_length_only(use: Callable[[str], object], unit: str, size: int, lead: str) -> None:
    with linear():
        use(lead + unit * (size // len(unit)) + "x")


@pytest.mark.parametrize("unit", [" ", "#", " #", "\t", "# "])
def test_a_title_of_any_length_is_found_in_time_that_grows_with_it(tmp_path: Path, unit: str) -> None:
    (tmp_path / "a.md").write_text("# a" + unit * (300_000 // len(unit)) + "x")
    with linear():
        assert parse_markdown(tmp_path / "a.md").title.endswith("x")


# PDF


def test_a_pdf_that_grows_without_end_is_refused_by_limits_of_its_own_process(tmp_path: Path) -> None:
    (tmp_path / "bomb.pdf").write_bytes(nested_forms(8))
    assert (tmp_path / "bomb.pdf").stat().st_size < 4_000
    with assert_refused("bomb.pdf: needs more than 1,024 MiB of memory or 120 s to read: a bomb?; leave it out"):
        read_documents(tmp_path)


def test_the_text_of_a_pdf_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "TEXT_CHARACTERS", 25)
    (tmp_path / "a.pdf").write_bytes(pdf(["Hello world", "", "Third page"]))
    assert read_documents(tmp_path)[0][0].text == "Hello world\n\nThird page"
    (tmp_path / "a.pdf").write_bytes(pdf(["Hello world", "Second page", "Third page"]))
    with assert_refused("a.pdf: page 3 of 3 goes beyond 25 characters of text; no more are read; split the file"):
        read_documents(tmp_path)


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Guide", "Guide"), ("(anonymous)", "a b"), ("untitled", "a b"), ("Untitled-1.indd", "a b"), ("", "a b"),
        ("Microsoft Word - Rules of 2024.docx", "Rules of 2024"), ("Untitled love", "Untitled love"), ("Title", "a b"),
    ],
)  # fmt: skip
def test_a_title_that_a_program_made_up_is_none(tmp_path: Path, title: str, shown: str) -> None:
    (tmp_path / "a b.pdf").write_bytes(pdf(["Hello"], title=title.replace("(", "\\(").replace(")", "\\)")))
    assert read_documents(tmp_path)[0][0].title == shown
    (tmp_path / "a b.pdf").unlink()
    (tmp_path / "a b.html").write_text(f"<title>{title}</title><p>Hello")
    assert read_documents(tmp_path)[0][0].title == shown
    (tmp_path / "a b.html").write_text(f"<title>{title}</title><h1>Opening hours</h1>")
    assert read_documents(tmp_path)[0][0].title == ("Opening hours" if shown == "a b" else shown)


# links


def test_links_are_read_where_they_stay_in_the_folder(tmp_path: Path) -> None:
    home, outside = tmp_path / "docs", tmp_path / "docs-secret"
    (home / "sub").mkdir(parents=True)
    outside.mkdir()
    (home / "sub" / "rules.txt").write_text("Nine to five.")
    (outside / "secret.txt").write_text("secret")
    (home / "same.txt").symlink_to("sub/rules.txt")
    (home / "chain.txt").symlink_to("sub/out.txt")
    (home / "sub" / "out.txt").symlink_to("../../docs-secret/secret.txt")
    (home / "absolute.txt").symlink_to(outside / "secret.txt")
    (home / "gone.txt").symlink_to("nothing.txt")
    (home / "all").symlink_to("sub")
    (home / "up").symlink_to("..")
    documents, notes = read_documents(home)
    assert [(document.doc_id, document.text) for document in documents] == [
        ("same.txt", "Nine to five."), ("sub/rules.txt", "Nine to five."),
    ]  # fmt: skip
    assert notes == [
        "1 file of other kinds left out: .txt (1)",
        "5 links to other folders not followed",
        "1 document says the same as another, so a search shows their text once: sub/rules.txt and same.txt",
    ]
    (tmp_path / "name").symlink_to("docs")
    assert [document.text for document in read_documents(tmp_path / "name")[0]] == ["Nine to five."] * 2


# results of riyaz among the documents


@pytest.mark.parametrize("suffix", [".docx", ".pdf", ".html", ".md"])
def test_a_document_whose_disk_fails_is_not_called_damaged(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"page{suffix}"
    path.symlink_to("/proc/self/mem")  # opens, and its first byte cannot be read
    with assert_refused(f"page{suffix}: cannot be read (Input/output error); check the file"):
        read_documents(path)


def test_results_of_riyaz_are_no_documents(tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("# Hours\n\nNine to five.")
    for folder, names in {
        "riyaz-results/a": ["compare.json", "arms/", "report.md", "report.html"], "begun": ["settings.json", "split/"],
        "workshop/lora": ["riyaz.json", "README.md"], "model": ["run.json", "plan.json", "report.html"],
        "own": ["compare.json", "settings.json", "run.json", "mine.md"],
    }.items():  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            path = tmp_path / folder / name
            path.mkdir() if name.endswith("/") else path.write_text(f"report in {folder}")
    add(tmp_path / "kept.txt", [Document("d", "", "text", "d")], None)
    (tmp_path / "riyaz-results/a/arms/notes.md").write_text("deeper")
    documents, notes = read_documents(tmp_path)
    assert [document.doc_id for document in documents] == ["own/mine.md", "rules.md"]
    assert notes == ["3 files of other kinds left out: .json (3)", "left out, results of riyaz: begun and 4 more"]
    for folder in ("riyaz-results/a", "workshop/lora"):
        with assert_refused("no documents here (left out, results of riyaz: .)"):
            read_documents(tmp_path / folder)
