"""The manual pages say what the reference says: every command, every option, in roff that shows it unchanged."""

import re
from pathlib import Path

import pytest

from riyaz.cli.main import NESTED, VERBS
from riyaz.cli.manual import main, manual_pages, roff

REFERENCE = Path(__file__).parents[2] / "docs/reference.md"


def plain(page: str) -> str:
    """A page without roff's escapes."""
    return page.replace("\\fB", "").replace("\\fR", "").replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


def test_every_command_has_a_page_with_its_options() -> None:
    pages, text = manual_pages(), REFERENCE.read_text(encoding="utf-8")
    verbs = [verb for group in VERBS.values() for verb in group]
    names = {f"riyaz-{verb}.1" for verb in verbs} | {f"riyaz-{v}-{n}.1" for v, names in NESTED.items() for n in names}
    assert set(pages) == {"riyaz.1", *names}
    for title, section in re.findall(r"^## (riyaz[\w -]*)\n\n```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        page = plain(pages[f"{title.replace(' ', '-')}.1"])
        options = re.findall(r"^  (--[\w-]+)", section, re.MULTILINE)
        assert (options or title in ("riyaz rag", "riyaz completion")) and all(
            re.search(rf"^{option}\b", page, re.MULTILINE) for option in options
        ), title


def test_the_first_page_has_the_commands_the_exit_statuses_and_the_environment() -> None:
    page = plain(manual_pages()["riyaz.1"])
    for line in (".SH NAME", "compare", ".SH EXIT STATUS", "130", ".SH ENVIRONMENT", "RIYAZ_HOME", ".SH OPTIONS"):
        assert f"\n{line}\n" in page


def test_text_is_never_read_as_a_request() -> None:
    assert [roff(text) for text in (".txt .md", "'a'", r"a\b", "--out", "a…")] == [
        r"\&.txt .md", r"\&'a'", r"a\eb", r"\-\-out", r"a\[u2026]",
    ]  # fmt: skip
    known = (".TH ", ".ad l", ".SH ", ".TP", ".nf", ".fi")
    for name, page in manual_pages().items():
        assert [line for line in page.splitlines() if line.startswith((".", "'")) and not line.startswith(known)] == []
        assert page.isascii() and max(map(len, page.splitlines())) < 1000, name


def test_the_pages_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "man")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'man'}\n"
    assert (tmp_path / "man/riyaz-compare.1").read_text(encoding="utf-8") == manual_pages()["riyaz-compare.1"]


def test_a_wrong_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for arguments in ([], ["--help"], [str(tmp_path / "file")]):
        assert main(arguments) == 2
        told = capsys.readouterr()
        assert told.out == "" and len(told.err.splitlines()) == 1
    assert "file" in told.err and "name a folder" in told.err
