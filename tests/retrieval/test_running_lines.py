"""Headers and footers of printed pages are no part of a document's text; what stands once stays."""

import json
from pathlib import Path

import pytest
from document_files import pdf

from riyaz.cli import main as cli
from riyaz.retrieval.collection import Collection, add
from riyaz.retrieval.documents import read_documents
from riyaz.retrieval.running_lines import without_running_lines
from riyaz.retrieval.search import Retriever, citation

BODIES = [
    "Bikes are rented by the day.\nA helmet is free.", "Late returns cost four euros.\nKeys cost nine.",
    "The desk opens at nine.", "Repairs take two days.\nCall the day before.", "Dogs ride in the trailer.",
]  # fmt: skip
PAGES = [f"Brindlewheel Handbook\n{body}\nPage {n} of 5" for n, body in enumerate(BODIES, 1)]


def test_passages_of_a_printed_pdf_hold_no_header_or_footer(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(PAGES))
    ((document,), notes) = read_documents(tmp_path)
    assert document.text == "\n\n".join(["Brindlewheel Handbook\n" + BODIES[0], *BODIES[1:]])
    assert [document.text[at:].strip()[:5] for at in document.pages] == ["Brind", "Late ", "The d", "Repai", "Dogs "]
    assert notes == [
        "a.pdf: 9 lines of headers and footers left out of 5 pages, such as 'Brindlewheel Handbook' and 'Page 1 of 5'"
    ]
    add(tmp_path / "c", [document], None)
    held = Collection.open(tmp_path / "c")
    assert not any("Page " in chunk.text for chunk in held.chunks())
    for hits in Retriever(held).search(["repairs", "dogs", "late returns"], 1):
        assert document.text[hits[0].start : hits[0].end] == hits[0].text
    assert [citation(hits[0])["page"] for hits in Retriever(held).search(["repairs", "dogs"], 1)] == [4, 5]


def test_rag_add_says_how_many_lines_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.pdf").write_bytes(pdf(PAGES))
    assert cli.main(["rag", "add", "kept", "a.pdf", "--lexical", "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith("a.pdf: 9 lines of headers and footers left out of 5 pages")


def test_a_page_that_holds_only_its_number_is_a_scan(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([*PAGES[:4], "Page 5 of 5"]))
    notes = read_documents(tmp_path)[1]
    assert notes[1:] == ["a.pdf: 1 of 5 pages hold no text: scanned?"]


def left(*pages: str) -> list[str]:
    return without_running_lines(list(pages))[0]


def test_titles_of_left_and_right_pages_stay_once() -> None:
    pages = [f"{('The Book', 'The Chapter')[n % 2]}\nbody {'abcdef'[n]}\n{n + 7}" for n in range(6)]
    assert left(*pages) == ["The Book\nbody a", "The Chapter\nbody b", "body c", "body d", "body e", "body f"]


@pytest.mark.parametrize(
    "line", ["{} | The Book", "- {} -", "Seite {}", "S. {}/9", "第{}页", "the book\t {}", "PAGE {}"]
)
def test_numbers_that_count_the_pages_are_left_out_of_all(line: str) -> None:
    pages = [f"body {'abcd'[n]} has words\n{line.format(n + 9)}" for n in range(4)]
    assert left(*pages) == [f"body {letter} has words" for letter in "abcd"]


def test_all_lines_of_a_printed_page_are_found_wherever_the_file_writes_them() -> None:
    pages = [f"Firm\nTerms of rent\n{n}\nbody {'abcd'[n]}" for n in range(4)]  # a footer before the body
    assert left(*pages) == ["Firm\nTerms of rent\nbody a", "body b", "body c", "body d"]


@pytest.mark.parametrize(
    "pages",
    [
        ["Step 1\nlift", "Step 2\nturn", "Step 3\ndrop", "Step 4\nrest"],  # a heading that counts
        ["1\napples", "5\npears", "2\nplums", "90\ncherries"],  # numbers that do not count the pages
        ["Same\nbody", "Same\nbody two"],  # too few pages to tell
        ["Alone\na", "b", "c", "Alone\nd", "e", "f", "g", "h"],  # on few of the pages
        ["a\nb\nc\nin the middle\nd\ne\nf", "g\nh\ni\nin the middle\nj\nk\nl", "m\nn\no\nin the middle\np\nq\nr"],
        ["", "", ""],
        [],
    ],
)
def test_what_is_no_header_stays(pages: list[str]) -> None:
    assert without_running_lines(pages) == (pages, 0, [])


def test_a_thousand_pages_take_no_time() -> None:
    pages = [f"Title\n{'word ' * 2000}\n{n}" for n in range(1000)]
    found, count, _ = without_running_lines(pages)
    assert count == 1999 and found[0].startswith("Title\nword")
