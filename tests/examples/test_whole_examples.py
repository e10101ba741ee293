"""Every example from its gather.py to compare.json: a few rows, a tiny model, the settings of its own riyaz.toml."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
import tiny_llama
import tool_template
from load_script import ROOT, load_script

from riyaz.config import read_toml
from riyaz.results import PREDICTIONS, Answer, Comparison

Rows = list[dict[str, Any]]
Compare = Callable[..., Comparison]
EXAMPLES = ROOT / "examples"
TRAIN, TEST = 24, 8  # rows that are kept
pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose template writes tools, with room for the six of the calendar."""
    return tool_template.write_model(tmp_path_factory.mktemp("models") / "tiny", context=4096)


@pytest.fixture
def compare(tmp_path: Path, tiny: Path, home: Path) -> Compare:
    """Compares the arms of an example in a folder, in this process, and reads what `compare` has made."""
    general = tmp_path / "general.txt"
    general.write_text(tiny_llama.CORPUS)

    def run(folder: Path, *more: object, methods: str) -> Comparison:
        with tiny_comparison.small_machine(home) as patch:
            tiny_comparison.shorten_recipes(patch, steps=4)
            tiny_comparison.workers_inside(patch)
            told = tiny_comparison.command(
                "compare", folder, "--methods", methods, "--model", tiny, "--budget", "3h", "--general", general,
                "--out", tmp_path / "out", "--json", *more)  # fmt: skip
        assert told.status == 0, told.err
        return Comparison.read(tmp_path / "out/compare.json")

    return run


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cut(folder: Path) -> Rows:
    """Keep the first rows of each file, of each slice as many; returns those of the test."""
    for part, count in (("train", TRAIN), ("test", TEST)):
        rows = read(folder / f"{part}.jsonl")
        slices: dict[str, Rows] = {}
        for row in rows:
            slices.setdefault(row.get("slice", ""), []).append(row)
        kept = [row for group in slices.values() for row in group[: count // len(slices)]]
        tiny_comparison.write_rows(folder / f"{part}.jsonl", kept)
    return kept


def checked(found: Comparison, metric: str, extras: set[str], test: Rows) -> None:
    """Every arm has a score of this kind, the others beside it, and one for each slice of the rows."""
    slices = {row["slice"] for row in test if "slice" in row}
    assert found.data.metric == metric and found.pick is not None
    for arm in found.arms:
        assert arm.status == "ok" and arm.metric == metric and arm.score is not None, arm
        assert set(arm.slices) == slices and all(part.n and part.score is not None for part in arm.slices.values())
        assert arm.n_test == len(test) and extras <= {name for name, value in arm.extras.items() if value is not None}


def floor(found: Comparison) -> str:
    """What the floor under the table is made of: there is none where no answer comes twice."""
    return "none" if found.floor is None else found.floor.kind or "most frequent"


def whole_but(fast: str, names: Iterable[str]) -> list[Any]:
    """The names of examples, of which all but one are left to the slow tests."""
    return [name if name == fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


# Each example with rows of its own: what judges it, what stands beside that, and the floor.
OWN = {
    "extraction": ("json_f1", {"parses", "exact_object"}, "empty_object"),
    "content": ("chrf", {"slots", "length_ratio"}, "copy"),
    "chatbot": ("exact_match", {"token_f1"}, "most frequent"),
    "tools": ("tools", {"name", "arguments", "parses"}, "most frequent"),
}


@pytest.mark.parametrize("name", whole_but("tools", OWN))
def test_own_rows_become_a_table(name: str, tmp_path: Path, compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    metric, extras, kind = OWN[name]
    folder = tmp_path / "examples" / name
    monkeypatch.setattr("sys.argv", ["gather.py", str(folder)])
    load_script(f"examples/{name}/gather.py").main()
    test = cut(folder)
    found = compare(folder, methods="nearest,zero_shot,lora")
    checked(found, metric, extras, test)
    assert [arm.method for arm in found.arms] == ["nearest", "zero_shot", "lora"]
    assert floor(found) == kind
    assert found.data.instruction == read_toml(EXAMPLES / name / "riyaz.toml")["instruction"].strip()
    for arm in ("zero_shot", "lora") if name == "extraction" else ():  # the schema holds any model to the form
        answers = Answer.read(tmp_path / f"out/arms/{arm}/kept" / PREDICTIONS)
        assert all(re.match(r'\{\s?"name"\s?:', answer.prediction) for answer in answers), answers


def numbered(asked: str, answer: str, *parts: str, **more: Any) -> tuple[Rows, Rows]:
    """Training rows with a number in question and answer, and test rows that ask some of them in other words."""
    rows = [
        {"prompt": asked.format(n=place), "answer": answer.format(n=place)}
        | {name: json.loads(json.dumps(value).replace("{n}", str(place))) for name, value in more.items()}
        for place in range(TRAIN)
    ]
    test = [row | {"prompt": f"Please. {row['prompt']}"} for row in rows[:TEST]]
    return rows, [row | {"slice": parts[place % len(parts)]} for place, row in enumerate(test)] if parts else test


# Examples whose rows come from a network, by rows of the same columns: what judges them, what stands beside it, rows.
FETCHED: dict[str, tuple[str, set[str], str, tuple[Rows, Rows]]] = {
    "translation": ("chrf", {"slots", "length_ratio"}, "copy", numbered(
        "Delete the page {n} of %(name)s", "Supprimer la page {n} de %(name)s", "ui", "django", slots=["%(name)s"])),
    "sql": ("sql", {"runs"}, "none", numbered(
        "Which airport lies {n} feet high?", "SELECT name FROM airports WHERE elevation_ft = {n}",
        "known", "phrasing", "template", group=None)),
    "coding": ("pass@1", {"runs"}, "none", numbered(
        "Write `f()`: the number {n}.", "def f():\n    return {n}", "known", "unseen",
        tests="assert f() == {n}", group=None)),
    "summaries": ("rouge_l", {"length_ratio"}, "first_sentence", numbered(
        "It stands on board {n} of the shelf, in front. It is read from left to right.", "Name the shelf {n}.")),
    "shell": ("command", set(), "none", numbered(
        "ls: Show {n} columns", "ls --width {n}", "option", "asked", references=["ls -w {n}"])),
}  # fmt: skip


@pytest.mark.parametrize("name", whole_but("shell", FETCHED))
def test_settings_of_fetched_rows_make_a_table(name: str, tmp_path: Path, compare: Compare) -> None:
    metric, extras, kind, (train, test) = FETCHED[name]
    folder = tmp_path / "examples" / name
    tiny_comparison.write_rows(folder / "train.jsonl", train)
    tiny_comparison.write_rows(folder / "test.jsonl", test)
    shutil.copy(EXAMPLES / name / "riyaz.toml", folder)
    if name == "sql":
        sql = load_script("examples/sql/gather.py")
        with sqlite3.connect(folder / "airports.sqlite") as base:
            base.executescript(sql.schema())
            base.executemany("INSERT INTO airports (iata, name, elevation_ft) VALUES (?, ?, ?)",
                             [(f"A{n}", f"Field {n}", n) for n in range(TRAIN)])  # fmt: skip
    if name in ("coding", "shell"):
        tiny_comparison.write_pages(folder / "docs")
    found = compare(folder, methods="nearest,zero_shot")
    checked(found, metric, extras, test)
    assert floor(found) == kind
    assert found.arms[0].score == pytest.approx(1), "an answer copied from the same question in other words"
