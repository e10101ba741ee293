"""An error of the command line names the page that says more about it."""

from importlib import import_module
from pathlib import Path

import pytest

from riyaz.cli.main import main
from riyaz.cli.pages import PAGES, READERS

ROOT = Path(__file__).parents[2]


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that fails for the user's mistake prints, one line."""
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line
    return line


def test_every_page_and_module_is_there() -> None:
    for module in (*PAGES, *READERS):
        import_module(module)
    for page in PAGES.values():
        path, _, anchor = page.partition("#")
        titles = [line.lstrip("#").strip() for line in (ROOT / path).read_text().splitlines() if line.startswith("#")]
        anchors = {"".join(c for c in title.lower() if c.isalnum() or c in " -").replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, page


@pytest.mark.parametrize(
    ("name", "content", "page"),
    [
        ("rows.jsonl", '{"text": "a", "label": "b"}\n' * 2, "docs/data.md#columns"),
        ("rows.jsonl", '{"text": "a", "label": \n', "docs/data.md#files"),
        ("rows.pdf", "", "docs/data.md#files"),
    ],
)
def test_rows(name: str, content: str, page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert told(["data", str(path)], capsys).endswith(f" (see {page})")


def test_a_reader_of_any_file_names_the_page_of_its_caller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "questions.json"
    questions.write_text('{"questions": 3}')
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n')
    decide = ["decide", "none", str(rows), "--out", str(tmp_path / "out.jsonl"), "--questions"]
    assert "(see docs/decisions.md#files)" in told([*decide, str(questions)], capsys)


def test_no_page_behind_a_command_to_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(b"text,label\n\xff,b\n")
    assert told(["data", str(rows)], capsys).endswith(" --encoding latin-1")


def test_no_page_where_none_says_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "(see " not in told(["report", str(tmp_path / "none")], capsys)
    assert "(see " not in told(["data", "rows.jsonl", "--no-such-option"], capsys)
