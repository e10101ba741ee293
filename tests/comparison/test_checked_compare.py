"""Whole comparisons of rows whose answers are checked by more than their words: queries, code, JSON, probabilities."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_comparison
from tiny_comparison import Told, command, strict

from riyaz.results import PREDICTIONS, Answer, Comparison

Rows = list[dict[str, Any]]
NUMBERS = tiny_comparison.NUMBERS


@pytest.fixture
def run(tmp_path: Path, home: Path, model_folder: Path) -> Any:
    """Compares methods on training and test rows, in this process, and reads what `compare` has made."""

    def compare(train: Rows, test: Rows, *more: object, methods: str = "nearest") -> Told:
        tiny_comparison.write_rows(tmp_path / "data/train.jsonl", train)
        tiny_comparison.write_rows(tmp_path / "data/test.jsonl", test)
        with tiny_comparison.small_machine(home) as patch:
            tiny_comparison.workers_inside(patch)
            return command("compare", tmp_path / "data", "--methods", methods, "--model", model_folder,
                           "--budget", "3h", "--out", tmp_path / "out", "--json", *more)  # fmt: skip

    return compare


Run = Callable[..., Told]


def outcome(folder: Path, method: str = "nearest") -> tuple[Comparison, list[Answer]]:
    out = folder / "out"
    return Comparison.read(out / "compare.json"), Answer.read(out / "arms" / method / "kept" / PREDICTIONS)


def database(path: Path, first: int = 1) -> Path:
    """A table of twelve numbers with their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("create table numbers (n integer, name text)")
        connection.executemany("insert into numbers values (?, ?)", enumerate(NUMBERS, first))
    return path


def asked(ending: str, query: str) -> Rows:
    """Questions for each number whose words name it, with the query in which {n} is its place."""
    return [
        {"question": f"the {name} {ending}", "answer": query.format(n=place)} for place, name in enumerate(NUMBERS, 1)
    ]


def test_queries_are_judged_by_their_rows(run: Run, tmp_path: Path) -> None:
    base = database(tmp_path / "data/numbers.sqlite")
    train = asked("please", "select name from numbers where n = {n}") + asked(
        "sir", "SELECT name FROM numbers WHERE n={n}"
    )
    test = asked("today", "select n.name from numbers as n where n.n in ({n})")
    told = run(train, test, "--database", base)
    assert told.status == 0, told.err
    comparison, answers = outcome(tmp_path)
    (arm,) = comparison.arms
    assert comparison.data.metric == "sql" and comparison.data.why == "the rows have a database"
    assert arm.score == 1 and arm.extras["runs"] == 1 and arm.extras["exact_match"] == 0, "other words, the same rows"
    assert answers[0].extras == {"runs": 1.0, "exact_match": 0.0}
    again = run(train, test, "--database", base)
    assert again.status == 0
    database(base, first=2)
    changed = run(train, test, "--database", base)
    assert changed.status != 0 and "other data" in changed.line, "other contents decide otherwise"
    copied = (tmp_path / "out/arms/nearest/kept/artifact/examples.jsonl").read_text()
    assert str(tmp_path) not in copied, "an artifact names no path of this machine"


def test_an_accepted_query_that_fails_is_named_before_anything_runs(run: Run, tmp_path: Path) -> None:
    base = database(tmp_path / "data/numbers.sqlite")
    train = asked("please", "select name from numbers where n = {n}")
    train += asked("sir", "select gone from numbers where n = {n}")
    told = run(train, asked("today", "select 1"), "--database", base)
    assert told.status != 0 and "train.jsonl:13" in told.line and "no such column" in told.line
    assert not (tmp_path / "out/arms").exists()


def test_code_is_judged_by_the_tests_of_its_row(run: Run, tmp_path: Path) -> None:
    def rows(ending: str) -> Rows:
        return [row | {"tests": f"assert f() == {place}"}
                for place, row in enumerate(asked(ending, "def f(): return {n}"), 1)]  # fmt: skip

    told = run(rows("please") + rows("sir"), rows("today"))
    assert told.status == 0, told.err
    comparison, answers = outcome(tmp_path)
    assert comparison.data.metric == "pass@1" and comparison.arms[0].score == 1 and answers[0].extras == {"runs": 1.0}
    first = json.loads((tmp_path / "out/split/kept/test.jsonl").read_text().splitlines()[0])
    assert first["check"] == {"tests": "assert f() == 1"}


@pytest.mark.parametrize(
    ("answer", "tests", "problem"),
    [
        ("def f(): return {n}", "def test_f():\n    assert f() == {n}", "the tests pass with an empty answer"),
        ("def f(): return 0", "assert f() == {n}, f()", "the accepted answer fails its tests: AssertionError: 0"),
    ],
)
def test_rows_of_code_that_judge_nothing_or_wrongly_are_named_before_anything_runs(
    run: Run, tmp_path: Path, answer: str, tests: str, problem: str
) -> None:
    right = [row | {"tests": f"assert f() == {n}"} for n, row in enumerate(asked("sir", "def f(): return {n}"), 1)]
    wrong = [row | {"tests": tests.format(n=n)} for n, row in enumerate(asked("please", answer), 1)]
    told = run(right + wrong, right)
    assert told.status != 0 and f"train.jsonl:13: {problem}" in told.line, told.err
    assert not (tmp_path / "out/arms").exists()


def test_objects_are_judged_by_their_fields_and_the_floor_is_named(run: Run, tmp_path: Path) -> None:
    rows = [asked(ending, '{{"number": {n}, "day": null}}') for ending in ("please", "sir", "today")]
    told = run(rows[0] + rows[1], rows[2])
    assert told.status == 0, told.err
    comparison, _ = outcome(tmp_path)
    assert comparison.data.metric == "json_f1" and comparison.arms[0].score == 1
    assert comparison.arms[0].extras == {"parses": 1.0, "exact_object": 1.0} and comparison.floor is not None
    assert command("report", tmp_path / "out").status == 0
    report = (tmp_path / "out/report.md").read_text()
    assert all(part in report for part in ("field F1", "parses", "floor: always")), report


def test_nats_of_many_right_answers(run: Run, tmp_path: Path) -> None:
    rows = [asked(ending, "there are {n} ways to say where the order is") for ending in ("please", "sir", "today")]
    told = run(rows[0] + rows[1], rows[2], "--metric", "nats", methods="zero_shot,few_shot")
    assert told.status == 0, told.err
    comparison, answers = outcome(tmp_path, "zero_shot")
    assert comparison.floor is None and comparison.pick == "few_shot"
    for arm in comparison.arms:
        assert arm.score is not None and arm.ci_low is not None and arm.ci_high is not None
        assert arm.ci_low < arm.score < arm.ci_high < 0 and "chrf" in arm.extras, arm
    row = answers[0]
    assert row.score == pytest.approx((row.answer_log_probability or 0) / len(row.answers[0]))
    refused = run(rows[0] + rows[1], rows[2], "--metric", "nats", methods="nearest,zero_shot")
    assert refused.status != 0 and "nearest gives an answer no probability" in refused.line
    assert command("report", tmp_path / "out").status == 0
    report = (tmp_path / "out/report.md").read_text()
    assert "nats per character" in report and " to -" in report, report
    assert strict((tmp_path / "out/compare.json").read_text())
