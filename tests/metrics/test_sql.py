"""Execution accuracy: whose rows are equal, what a query is taken for, and whose mistake a failure is."""

import os
import random
import sqlite3
from pathlib import Path

import pytest

from riyaz.data import Example
from riyaz.data.checks import Check
from riyaz.errors import RiyazError
from riyaz.metrics import executed, sql
from riyaz.metrics.sql import execution, query_of, verdict
from riyaz.metrics.sql_worker import is_ordered, same_rows

ALL = "SELECT town, height FROM airport"


def runs(query: str, path: Path) -> bool:
    """Whether a database answers a query."""
    return verdict(query, (), path)[1]


@pytest.fixture(scope="module")
def airports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "air ports?#%.sqlite"  # a name that a URI would cut
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE airport (town TEXT, height REAL, runways INTEGER, code BLOB)")
        rows = [("Oslo", 0.1, 2, b"x"), ("Rom", 0.2, 2, "x"), ("Rom", 0.3, 1, None), ("O'Hare; x", 4.0, 9, "")]
        database.executemany("INSERT INTO airport VALUES (?, ?, ?, ?)", rows)
    database.close()
    return path


@pytest.mark.parametrize(
    ("query", "gold", "score"),
    [
        (ALL, ALL, 1),
        (ALL + " ORDER BY height DESC", ALL, 1),  # in another order, which nobody asked for
        (ALL + " ORDER BY height DESC", ALL + " ORDER BY height", 0),
        (ALL, "SELECT * FROM (" + ALL + " ORDER BY height DESC)", 1),  # an order within is none of the result
        ("SELECT count(*) FROM airport", "SELECT 4.0", 1),
        ("SELECT sum(height) FROM airport WHERE height < 1", "SELECT 0.6", 1),
        ("SELECT 0.6000001", "SELECT 0.6", 1),
        ("SELECT 0.601", "SELECT 0.6", 0),
        ("SELECT 9007199254740993", "SELECT 9007199254740992", 0),  # one apart, and one float
        ("SELECT '4'", "SELECT 4", 0),
        ("SELECT x'78'", "SELECT 'x'", 0),
        ("SELECT NULL", "SELECT 0", 0),
        ("SELECT NULL", "SELECT NULL", 1),
        ("SELECT DISTINCT town FROM airport", "SELECT town FROM airport", 0),  # a multiset
        ("SELECT height, town FROM airport", ALL, 0),  # columns by place
        ("SELECT town AS t, height FROM airport", ALL, 1),  # not by name
        ("SELECT town FROM airport WHERE 0", "SELECT height FROM airport WHERE 0", 1),  # no rows are no rows
        ("SELECT 1 WHERE 0", ALL + " WHERE 0", 0),  # but not those of other columns
        (ALL + " WHERE 0", "SELECT height FROM airport WHERE 0", 0),
        ("SELECT * FROM airport WHERE 0", "SELECT * FROM airport WHERE height > 9", 1),
        ("SELECT town FROM nowhere", ALL, 0),
    ],
)
def test_rows_are_compared(airports: Path, query: str, gold: str, score: float) -> None:
    assert execution(query, [gold], airports) == score


def test_any_accepted_query_counts(airports: Path) -> None:
    assert execution("SELECT 2", ["SELECT 1", "SELECT 2;"], airports) == 1
    assert execution("SELECT 3", ["SELECT 1", "SELECT 2"], airports) == 0


def test_numbers_within_the_tolerance_may_sort_differently() -> None:
    rows, gold = [(1.0, 5), (1.0 + 1e-9, 3)], [(1.0, 3), (1.0 + 1e-9, 5)]
    assert same_rows(rows, gold, ordered=False) and not same_rows(rows, gold, ordered=True)
    assert not same_rows(rows, [(1.0, 3), (1.0, 4)], ordered=False)


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT 1 ORDER\n BY 1", True),
        ("WITH a AS (SELECT 1 ORDER BY 1) SELECT * FROM a", False),
        ("SELECT row_number() OVER (ORDER BY x) FROM t", False),
        ("SELECT 'ORDER BY' -- ORDER BY\n", False),
        ('SELECT "a(" FROM t ORDER BY 1', True),  # the parenthesis is a name's
    ],
)
def test_an_order_counts_that_is_the_results(query: str, ordered: bool) -> None:
    assert is_ordered(query) == ordered


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ("SELECT 1;", "SELECT 1"),
        ("Here it is:\n```sql\nSELECT 1;\n```\nIt counts.", "SELECT 1"),
        ("```\nSELECT 1", "SELECT 1"),  # cut off
        ("SELECT 1;\n\nThis query's result is one.", "SELECT 1"),
        ("SQL: select 'a;b' from t;", "select 'a;b' from t"),
        ("The answer:\n\nWITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
        ("With this you see\nSELECT 2", "SELECT 2"),
        ("SELECT 1; DROP TABLE t", "SELECT 1; DROP TABLE t"),
        ("I cannot.", "I cannot."),
    ],
)
def test_an_answers_query(answer: str, query: str) -> None:
    assert query_of(answer) == query == query_of(query)


def test_a_query_runs_whatever_its_rows(airports: Path) -> None:
    assert runs("SELECT 17", airports) and not runs("SELECT nothing", airports) and not runs("", airports)


def test_an_accepted_query_that_fails_is_the_users_mistake(airports: Path) -> None:
    with pytest.raises(RiyazError) as refused:
        execution("SELECT 1", ["SELECT what FROM airport"], airports, "train.jsonl:7")
    assert str(refused.value).startswith("train.jsonl:7: the accepted query 'SELECT what FROM airport' fails: no such")


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "device", "wal"])
def test_a_database_that_is_none_is_one_line(tmp_path: Path, kind: str) -> None:
    path = {"device": Path("/dev/zero")}.get(kind, tmp_path / "a.sqlite")
    says = {"missing": "no such file", "folder": "no such file", "text": "not read as an SQLite database"}
    says |= {"device": "is a device", "wal": "has changes that are not written yet, in a.sqlite-wal"}
    if kind == "folder":
        path.mkdir()
    if kind in ("text", "wal"):
        path.write_text("not a database " * 100)
        (tmp_path / "a.sqlite-wal").write_text("x" if kind == "wal" else "")
    with pytest.raises(RiyazError) as refused:
        runs("SELECT 1", path)
    line = str(refused.value)
    assert line.startswith(f"{path}: ") and says[kind] in line and "\n" not in line


def test_few_databases_are_open_at_once(tmp_path: Path) -> None:
    for number in range(sql.OPEN + 2):
        sqlite3.connect(tmp_path / f"{number}.sqlite").close()
        assert execution("SELECT 1", ["SELECT 1"], tmp_path / f"{number}.sqlite") == 1
    assert len(sql._children) == sql.OPEN


def test_a_killed_process_is_replaced(airports: Path) -> None:
    assert execution("SELECT 1", ["SELECT 1"], airports) == 1
    pid = sql._children[airports].pid
    assert pid is not None
    os.kill(pid, 9)
    while sql._children[airports]._process.poll() is None:  # type: ignore[union-attr]
        pass
    assert execution("SELECT 1", ["SELECT 1"], airports) == 1 and sql._children[airports].pid != pid


def test_a_damaged_database_is_refused_or_answers(airports: Path, tmp_path: Path) -> None:
    whole, chance = airports.read_bytes(), random.Random(0)
    for number in range(12):
        damaged = bytearray(whole)
        for _ in range(1 + number * 4):
            damaged[chance.randrange(100 if number % 2 else len(whole))] = chance.randrange(256)
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(damaged)
        try:
            assert runs(ALL, path) in (True, False)
        except RiyazError as error:
            assert "not read as an SQLite database" in str(error)


def test_a_query_runs_once_for_its_score_and_for_whether_it_runs(
    airports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    ask = sql._ask
    monkeypatch.setattr(sql, "_ask", lambda query, *rest: (asked.append(query), ask(query, *rest))[1])
    row = Example(({"role": "user", "content": "?"},), ("SELECT 8",), check=Check(database=str(airports)))
    query = "SELECT 8 -- once"
    assert (executed.sql(query, row), executed.query_runs(query, row)) == (1, 1) and asked.count(query) == 1
