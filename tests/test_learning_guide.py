"""docs/how-a-model-learns.md: every named line says what the page quotes, and its figures are measured ones."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import quoted
from test_scaling import load

PAGE = quoted.PAGE.read_text(encoding="utf-8")
GOOD = "[`src/a.py:2`](../src/a.py#L2)\n\n```python\n    b = 1\n    c = 2\n```\n"
SOURCE = "def a():\n    b = 1\n    c = 2\n    d = 3\n"


def test_every_named_line_says_what_the_page_quotes():
    assert len(quoted.REFERENCE.findall(PAGE)) >= 15
    found = quoted.problems(quoted.ROOT, PAGE)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", ""),
        ("    b = 1\n    c = 2", "b = 1\nc = 2", ""),
        ("b = 1", "b = 2", "`b = 2`: the file does not say that"),
        (":2`", ":3`", "src/a.py:3 links to src/a.py#L2"),
        ("#L2", "#L9", "src/a.py:2 links to src/a.py#L9"),
        ("src/a.py", "src/b.py", "no such file"),
        ("\n\n```python", "\n```python", "1 blocks of code, but 0 references"),
        ("[`src/a.py:2`]", "[`src/a.py:1`] [`src/a.py:2`]", "2 named lines, but 1 references"),
    ],
)
def test_a_quote_that_is_not_true_is_seen(tmp_path: Path, old: str, new: str, says: str):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text(SOURCE)
    found = "\n".join(quoted.problems(tmp_path, GOOD.replace(old, new)))
    assert says in found if says else not found


def test_lines_that_moved_are_renumbered_and_nothing_else(tmp_path: Path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text(f"import x\n\n\n{SOURCE}")
    moved = quoted.mended(tmp_path, f"Before.\n\n{GOOD}")
    assert moved == f"Before.\n\n{GOOD}".replace(":2`", ":5`").replace("#L2", "#L5")
    assert quoted.problems(tmp_path, moved) == []
    (tmp_path / "src/a.py").write_text(f"{SOURCE}{SOURCE}")
    assert quoted.mended(tmp_path, moved) == moved, "twice in the file: a person has to say which"


def test_the_scaling_figures_are_those_that_were_measured():
    scaling = load()
    data, drawn = quoted.ROOT / "docs/pictures/scaling.json", quoted.ROOT / "docs/pictures/scaling.svg"
    document = json.loads(data.read_text(encoding="utf-8")) if data.exists() else None
    between = PAGE.partition(scaling.BEGIN)[2].partition(scaling.END)[0].strip()
    assert between == scaling.table(document), "python benchmarks/scaling.py --draw"
    text = "".join(ET.fromstring(drawn.read_text(encoding="utf-8")).itertext())
    if document is None:
        assert "Not measured yet" in text
    for run in document["runs"] if document else []:
        assert scaling.said(run) in text
