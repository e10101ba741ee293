"""docs/how-a-model-learns.md: every quote stands in the function that is named, and its figures are measured ones."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import quoted_code
from load_script import load_script

PAGE = quoted_code.PAGE.read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())  # wherever its lines end
TERNARY = (quoted_code.ROOT / "docs/from-nothing-to-1.58-bits.md").read_text(encoding="utf-8")
GOOD = "[`a.One.two`](../src/riyaz/a.py)\n\n```python\n    b = 1\n    c = 2\n```\n"
SOURCE = "class One:\n    size: int = 3\n\n    def two():\n        b = 1\n        c = 2\n\n\ndef two():\n    d = 4\n"


def test_every_quote_stands_in_the_function_that_the_page_names():
    assert len(quoted_code.REFERENCE.findall(PAGE)) >= 15 and len(quoted_code.REFERENCE.findall(TERNARY)) == 4
    wrong = quoted_code.problems(quoted_code.ROOT, PAGE) + quoted_code.problems(quoted_code.ROOT, TERNARY)
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
    wrong = "\n".join(quoted_code.problems(tmp_path, GOOD.replace(old, new)))
    assert says in wrong if says else not wrong


def test_the_scaling_figures_are_those_that_were_measured():
    scaling = load_script("benchmarks/scaling.py")
    data, drawn = quoted_code.ROOT / "docs/pictures/scaling.json", quoted_code.ROOT / "docs/pictures/scaling.svg"
    document = json.loads(data.read_text(encoding="utf-8")) if data.exists() else None
    between = PAGE.partition(scaling.BEGIN)[2].partition(scaling.END)[0].strip()
    assert between == scaling.table(document), "python benchmarks/scaling.py --draw"
    text = "".join(ET.fromstring(drawn.read_text(encoding="utf-8")).itertext())
    if document is None:
        assert "Not measured yet" in text
    for run in document["runs"] if document else []:
        assert scaling.said(run) in text


def cells(mark: str) -> list[list[str]]:
    """The rows of the table after a mark of the page, without its head."""
    lines = PAGE.partition(f"<!-- {mark} -->\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-")) for text in texts]


def softmax(values: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def stepped(values: list[float], came: int) -> list[float]:
    return [value - p + (place == came) for place, (value, p) in enumerate(zip(values, softmax(values), strict=True))]


def test_the_three_words_are_worked_out_rightly():
    table = cells("three words")
    columns = [numbers(list(column)) for column in list(zip(*table, strict=True))[1:]]
    values = columns[0]
    p, after, water = softmax(values), stepped(values, 1), [row[0] for row in table].index("water")
    wanted = [values, [math.exp(value) for value in values], p, [-math.log(each) for each in p],
              [each - (place == water) for place, each in enumerate(p)], after]  # fmt: skip
    assert [[round(each, 3) for each in column] for column in wanted] == columns
    total = sum(columns[1])
    for said in (
        f"add up to {total:.3f}",
        f"{columns[1][1]:.3f} / {total:.3f} = {p[1]:.3f}",
        f"water has {softmax(after)[1]:.3f}, and the loss of the same word is {-math.log(softmax(after)[1]):.3f}",
    ):
        assert said in PROSE, said
    tea = stepped(values, 2)
    first, last = p[2], softmax(tea)[2]
    assert f"Tea then has {last:.3f}, and its loss falls from {-math.log(first):.3f} to {-math.log(last):.3f}" in PROSE
    assert "the step gives " + "{:.3f}, {:.3f} and {:.3f}".format(*tea) in PROSE
    for temperature, *shares in map(numbers, cells("temperature")):
        assert shares == [round(each, 3) for each in softmax(values, temperature)], temperature


def test_the_pictures_are_those_that_the_script_draws():
    path = quoted_code.ROOT / "docs/pictures/learning.py"
    script = load_script("docs/pictures/learning.py")
    for name, drawn in (("loop", script.loop()), ("attention", script.attention())):
        kept = (path.parent / f"{name}.svg").read_text(encoding="utf-8")
        words = ["".join(ET.fromstring(text).itertext()) for text in (kept, drawn)]
        assert words[0] == words[1] and f"pictures/{name}.svg" in PAGE, "python docs/pictures/learning.py"
        assert "<script" not in kept and "href=" not in kept.replace('href="#', "")
    for scores in script.SCORES:
        assert sum(script.weights(scores)) == pytest.approx(1)


def test_commands_of_the_page_use_files_that_the_reader_has():
    made = {"tiny", "python.jsonl", "smollm2-135m"}  # by a command of the page before
    lines = [line for block in PAGE.split("```bash\n")[1:] for line in block.partition("```")[0].splitlines()]
    assert len(lines) >= 8
    for line in lines:
        named = [word for word in line.split() if "/" in word]
        assert all((quoted_code.ROOT / word).exists() for word in named), line
        assert "../" not in line and (".jsonl" not in line or "python.jsonl" in made)
