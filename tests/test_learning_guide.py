"""docs/how-a-model-learns.md: every quote stands in the function that is named, and its figures are measured ones."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import quoted
from test_scaling import load

PAGE = quoted.PAGE.read_text(encoding="utf-8")
GOOD = "[`a.One.two`](../src/riyaz/a.py)\n\n```python\n    b = 1\n    c = 2\n```\n"
SOURCE = "class One:\n    size: int = 3\n\n    def two():\n        b = 1\n        c = 2\n\n\ndef two():\n    d = 4\n"


def test_every_quote_stands_in_the_function_that_the_page_names():
    assert len(quoted.REFERENCE.findall(PAGE)) >= 15
    wrong = quoted.problems(quoted.ROOT, PAGE)
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("", "", ""),
        ("    b = 1\n    c = 2", "b = 1\nc = 2", ""),
        ("a.One.two", "a.One", ""),
        ("b = 1", "b = 2", "a.One.two: `b = 2`: it does not say that"),
        ("a.One.two", "a.two", "a.two: `b = 1`: it does not say that"),
        ("a.One.two", "a.One.three", "a.One.three: src/riyaz/a.py has no such function or class"),
        ("a.One.two", "b.One.two", "b.One.two links to src/riyaz/a.py"),
        ("a.py", "b.py", "src/riyaz/b.py: no such file"),
        ("\n\n```python", "\n```python", "1 blocks of code, but 0 references"),
    ],
)
def test_a_quote_that_is_not_true_is_seen(tmp_path: Path, old: str, new: str, says: str):
    (tmp_path / "src/riyaz").mkdir(parents=True)
    (tmp_path / "src/riyaz/a.py").write_text(SOURCE)
    wrong = "\n".join(quoted.problems(tmp_path, GOOD.replace(old, new)))
    assert says in wrong if says else not wrong


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
