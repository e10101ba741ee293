"""docs/advisories.md: every row names a file that exists and tests that exist, and no row of a list is missing."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/advisories.md").read_text(encoding="utf-8")
LISTS = {
    "Advisories": [str(number) for number in range(1, 32)],
    "Failures of training without an error": [str(number) for number in range(1, 16)],
    "OWASP API Security Top 10 (2023)": [f"API{number}" for number in range(1, 11)],
    "OWASP Top 10 for LLM Applications (2025)": [f"LLM{number:02}" for number in range(1, 11)],
    "What one key sees of another": [str(number) for number in range(1, 6)],
}
LINK = re.compile(r"\[([^\]]+)\]\(([^)#]+)\)")


def rows_of(text: str, title: str) -> list[list[str]]:
    """The rows of the table below a heading, cell by cell."""
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def problems(text: str, title: str) -> list[str]:
    """What is wrong with a list: rows that are missing, files and tests that are not there, empty cells."""
    rows, found = rows_of(text, title), []
    if [row[0] for row in rows] != LISTS[title]:
        found.append(f"{title}: its rows are {[row[0] for row in rows]}")
    for row in rows:
        links = [(name.replace("\\", ""), ROOT / "docs" / path) for cell in row for name, path in LINK.findall(cell)]
        tests = [(name, path) for name, path in links if name.startswith("test_") and not name.endswith(".py")]
        if not tests or not all(row):
            found.append(f"{title}, {row[0]}: no test, or an empty cell")
        found += [f"{title}, {row[0]}: no file {path}" for _, path in links if not path.is_file()]
        found += [f"{title}, {row[0]}: no test {name}" for name, path in tests if name not in functions(path)]
    return found


def functions(path: Path) -> set[str]:
    """The names of a file's functions."""
    if not path.is_file():
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("title", LISTS)
def test_every_row_has_a_test_that_exists(title: str) -> None:
    assert problems(TEXT, title) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[test_a_key_opens_nothing_of_the_page]", "[test_of_nothing]"),
        ("](../tests/serve/test_page.py)", "](../x.py)"), ("\n| 3 | ", "\n| 7 | "),
        ("[test_the_log_says_where_and_never_what]", "[the log]"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_seen(old: str, new: str) -> None:
    title = "What one key sees of another"
    begin = TEXT.index(f"\n## {title}\n")
    assert old in TEXT[begin:] and problems(TEXT[:begin] + TEXT[begin:].replace(old, new), title)
