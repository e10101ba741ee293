"""Typed questions that columns suggest, and `riyaz data --questions-out`, which writes them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_comparison import command

from riyaz.data.question_offer import offered
from riyaz.data.questions import read_questions
from riyaz.data.tables import Table


def suggested(*cells: Any, name: str = "mood") -> tuple[str, tuple[str, ...]] | None:
    """Type and choices of what a column with these cells, many times, suggests."""
    table = Table(Path("rows.csv"), [(n, {"text": "x", name: cells[n % len(cells)]}) for n in range(60)],
                  ("text", name), "")  # fmt: skip
    found = offered(table)
    return (found[0].type, found[0].labels) if found else None


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("1", "3", "2"), ("score", ("1", "2", "3"))),
        ((5, 1, 3.0, math.nan, None), ("score", ("1", "2", "3", "4", "5"))),
        ((-1, 0, 1), ("score", ("-1", "0", "1"))),
        ((10, 2, 0), ("score", tuple(map(str, range(11))))),
        ((100, 200, 300), ("choice", ("100", "200", "300"))),
        (("01", "02", "03"), ("choice", ("01", "02", "03"))),
        (("yes", "No", ""), ("predicate", ("true", "false"))),
        ((True, False), ("predicate", ("true", "false"))),
        ((0, 1), ("predicate", ("true", "false"))),
        (("1.5", "2.5"), ("choice", ("1.5", "2.5"))),
        (("b", " a ", "c"), ("choice", ("a", "b", "c"))),
        (("a",), None),
        (tuple(f"t{n}" for n in range(60)), None),
        (("a", ["b"]), None),
        ((None, ""), None),
    ],
)
def test_what_a_column_suggests(cells: tuple[Any, ...], expected: object) -> None:
    assert suggested(*cells) == expected


@pytest.mark.parametrize("name", ["slice", "doc_id", "system", "Language", "id", "question"])
def test_a_column_that_says_no_answer_suggests_nothing(name: str) -> None:
    assert suggested("a", "b", name=name) is None


def test_the_command_writes_a_file_that_the_rows_answer(tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "q.json"
    lines = [f"my card {n} was declined,{'ab'[n % 2]},{n % 3 + 1},{'yes' if n % 4 else 'no'}" for n in range(48)]
    rows.write_text("\n".join(["text,label,mood,urgent", *lines]) + "\n")
    told = command("data", rows)
    assert told.status == 0 and "mood, urgent may be answers too: --questions-out" in " ".join(told.out.split())
    told = command("data", rows, "--questions-out", out, "--json")
    assert told.status == 0 and [each["name"] for each in told.document["questions"]] == ["label", "mood", "urgent"]
    assert [question.type for question in read_questions(out)] == ["choice", "score", "predicate"]
    told = command("data", rows, "--questions", out, "--json")
    assert told.status == 0 and told.document["format"] == "text,label,mood,urgent"
    assert "may be answers too" not in told.err + told.out


def test_what_cannot_be_offered_is_refused(tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "q.json"
    rows.write_text("".join(json.dumps({"text": f"{n}", "label": f"l{n}"}) + "\n" for n in range(30)))
    assert "no column has a few values" in command("data", rows, "--questions-out", out).line and not out.exists()
    assert "is a folder" in command("data", tmp_path, "--questions-out", out).line
    out.write_text("{}")
    assert "exists already" in command("data", rows, "--questions-out", out).line and out.read_text() == "{}"
