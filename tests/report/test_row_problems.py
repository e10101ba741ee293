"""Rows that may be wrong in the reports of a comparison: some lines of each kind, and a table of all."""

import csv
from pathlib import Path

import fake_page
from fake_comparison import comparison, typed

from riyaz.json_files import write_json
from riyaz.report.comparison import html, markdown
from riyaz.report.row_problems import SHOWN_ROWS, mixed_line, row_line
from riyaz.report.write import write
from riyaz.results import COMPARE
from riyaz.results.problems import PROBLEMS, PROBLEMS_TABLE, MixedLabels, RowProblem, RowProblems

WRONG = [
    RowProblem("wrong label", f"a.jsonl:{n}", f"where is <b>{n}</b>", "billing", "delivery", 0.8, 0.02)
    for n in range(1, 8)
]
REPEAT = RowProblem("other answer", "a.jsonl:9", "x", "a", "b", other="a.jsonl:2")
PROBLEM_ROWS = RowProblems([*WRONG, REPEAT], [MixedLabels(("a", "b"), 3, 20)], ["labels with one row"])


def test_a_row_is_one_line_with_what_speaks_against_it() -> None:
    assert row_line(WRONG[0]) == "a.jsonl:1  'billing' (2.0%), rather 'delivery' (80%): where is <b>1</b>"
    assert row_line(REPEAT) == "a.jsonl:9  'a', but 'b' in a.jsonl:2: x"
    assert row_line(RowProblem("repeat", "a:3", "x\ny", "a", other="a:1")) == "a:3  'a', as a:1: x y"
    assert row_line(RowProblem("spelling", "a:3", "x", "A", "a")) == "a:3  'A', elsewhere 'a': x"
    assert mixed_line(PROBLEM_ROWS.mixed_labels[0]) == "'a' and 'b': 3 of 20 rows look like the other label"


def test_both_reports_list_some_rows_of_each_kind() -> None:
    page = fake_page.Page(html.render(typed(comparison()), {}, problems=PROBLEM_ROWS)).text
    text = markdown.render(typed(comparison()), problems=PROBLEM_ROWS)
    for said in (page, text.replace("\\", "")):
        assert "7 rows whose label may be wrong" in said and f"a.jsonl:{SHOWN_ROWS}" in said and "and 2 more" in said
        assert "a.jsonl:7" not in said and "in a.jsonl:2" in said and "3 of 20 rows" in said
        assert "labels with one row" in said and PROBLEMS_TABLE in said
    for said in (html.render(typed(comparison()), {}), markdown.render(typed(comparison()))):
        assert "Rows that may be wrong" not in said


def test_the_table_of_all_rows_stands_beside_the_reports(tmp_path: Path) -> None:
    write_json(tmp_path / COMPARE, typed(comparison()))
    write(tmp_path)
    assert not (tmp_path / PROBLEMS_TABLE).exists()
    write_json(tmp_path / PROBLEMS, PROBLEM_ROWS)
    assert RowProblems.read(tmp_path / PROBLEMS) == PROBLEM_ROWS
    write(tmp_path)
    with (tmp_path / PROBLEMS_TABLE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["where"] for row in rows] == [row.where for row in PROBLEM_ROWS.rows]
    assert rows[0]["probability"] == "0.8000" and rows[-1]["other"] == "a.jsonl:2"
