"""docs/tree.md is what `make tree` writes, and every file and folder explains itself."""

import subprocess
from pathlib import Path

import pytest
import tree

FILES = {
    "src/riyaz/__init__.py": '"""The package."""',
    "src/riyaz/errors.py": '"""Errors in one line. They are shown once."""',
    "src/riyaz/data/__init__.py": '"""Rows."""',
    "src/riyaz/data/split.py": '"""Rows are dealt\nby hash (Who et al. 2020). More."""',
    "native/a.cpp": "// Adds. Fast.",
    "native/b.cpp": '#include "b.h"',
    "native/b.h": "// Subtracts.",
    "tests/data/test_split.py": '"""Splits."""',
}


def repository(folder: Path, files: dict[str, str]) -> Path:
    """A small repository that git knows."""
    for name, text in (FILES | files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def test_the_page_is_current() -> None:
    assert (tree.ROOT / tree.PAGE).read_text(encoding="utf-8") == tree.render(tree.ROOT), "run `make tree`"


def test_every_file_explains_itself() -> None:
    assert tree.unexplained(tree.ROOT) == []


def test_a_file_speaks_in_its_first_sentence(tmp_path: Path) -> None:
    lines = tree.render(repository(tmp_path, {})).splitlines()
    for line in (
        "- `src/riyaz/data/`: Rows",
        "- `tests/data/`: Tests of `riyaz.data`",
        "- `errors.py`: Errors in one line",
        "- `split.py`: Rows are dealt by hash (Who et al. 2020)",
        "- `a.cpp`: Adds",
        "- `b.cpp`: implements b.h",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"src/riyaz/errors.py": "x = 1"}, "src/riyaz/errors.py"),
        ({"src/riyaz/data/__init__.py": ""}, "src/riyaz/data/"),
        ({"native/c.cpp": "int c;"}, "native/c.cpp"),
        ({"tests/odd/test_odd.py": '"""Odd."""'}, "tests/odd/"),
    ],
)
def test_what_does_not_explain_itself_is_named(tmp_path: Path, files: dict[str, str], name: str) -> None:
    assert tree.unexplained(repository(tmp_path, {})) == []
    assert tree.unexplained(repository(tmp_path, files)) == [name]


def test_a_new_file_changes_the_page(tmp_path: Path) -> None:
    before = tree.render(repository(tmp_path, {}))
    assert tree.render(repository(tmp_path, {"src/riyaz/new.py": '"""New."""'})) != before
