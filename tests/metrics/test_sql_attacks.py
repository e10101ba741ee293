"""Generated SQL that attacks: each is refused or ends at a limit, and changes nothing."""

import hashlib
import re
import sqlite3
from pathlib import Path

import pytest
from waiting import HANG

from riyaz.metrics import sql
from riyaz.metrics.sql import execution, verdict

BIG = "printf('%.*c', 900000, 'a')"  # nearly the longest text that there may be
BY_LIMIT = "steps|CPU|too big|out of memory|rows or|interrupted|too large|too complex|stack overflow"
FORBIDDEN = "constructor failed|not a SELECT|not authorized|prohibited|one statement|no such (function|table)|authoriz"
ATTACKS = {
    "drop": ("DROP TABLE t", FORBIDDEN),
    "two statements": ("SELECT 1; DROP TABLE t", FORBIDDEN),
    "two statements behind a comment": ("SELECT 1 /* ; */; DELETE FROM t", FORBIDDEN),
    "insert": ("INSERT INTO t VALUES (1, 'x', 2)", FORBIDDEN),
    "insert behind with": ("WITH a AS (SELECT 1) INSERT INTO t SELECT 1, 'x', 2 FROM a", FORBIDDEN),
    "delete behind with": ("WITH a AS (SELECT 1) DELETE FROM t", FORBIDDEN),
    "update": ("WITH a AS (SELECT 1) UPDATE t SET x = 1 RETURNING *", FORBIDDEN),
    "create": ("CREATE TABLE u (a)", FORBIDDEN),
    "create temp": ("CREATE TEMP TABLE u AS SELECT * FROM t", FORBIDDEN),
    "attach": ("ATTACH '{other}' AS o", FORBIDDEN),
    "detach": ("DETACH main", FORBIDDEN),
    "another database": ("SELECT * FROM o.t", "no such table"),
    "pragma": ("PRAGMA writable_schema = on", FORBIDDEN),
    "pragma as a table": ("SELECT * FROM pragma_database_list", FORBIDDEN),
    "pragma that lifts the memory limit": ("SELECT * FROM pragma_hard_heap_limit(0)", FORBIDDEN),
    "vacuum into": ("VACUUM INTO '{other}.copy'", FORBIDDEN),
    "explain": ("EXPLAIN SELECT 1", FORBIDDEN),
    "begin": ("BEGIN EXCLUSIVE", FORBIDDEN),
    "load_extension": ("SELECT load_extension('{other}')", FORBIDDEN),
    "writefile": ("SELECT writefile('{other}.txt', 'x')", FORBIDDEN),
    "readfile": ("SELECT readfile('/etc/passwd')", FORBIDDEN),
    "tokenizer": ("SELECT fts3_tokenizer('simple')", FORBIDDEN),
    "pages": ("SELECT * FROM sqlite_dbpage", FORBIDDEN),
    "statistics": ("SELECT * FROM dbstat", FORBIDDEN),
    "rows of pages": ("SELECT count(*) FROM sqlite_dbpage AS t", FORBIDDEN),
    "rows of a pragma": ("SELECT 1 WHERE EXISTS (SELECT 1 FROM pragma_database_list)", FORBIDDEN),
    "full text": ("SELECT * FROM words WHERE words MATCH 'a'", FORBIDDEN),
    "full text of no table": ("SELECT * FROM fts5vocab", "no such table|prohibited"),
    "r-tree": ("SELECT rtreecheck('t')", FORBIDDEN),
    "random": ("SELECT random()", FORBIDDEN),
    "a view that calls": ("SELECT * FROM caller", FORBIDDEN),
    "randomblob": ("SELECT hex(randomblob(1000000000))", FORBIDDEN),
    "zeroblob": ("SELECT zeroblob(1000000000)", FORBIDDEN),
    "recursion without end": (
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT sum(x) FROM r", BY_LIMIT),
    "recursion that grows": (
        "WITH RECURSIVE r(x) AS (SELECT 'a' UNION ALL SELECT x || x FROM r) SELECT max(length(x)) FROM r", BY_LIMIT),
    "recursion that keeps": (
        f"WITH RECURSIVE r(n, x) AS (SELECT 1, {BIG} UNION SELECT n + 1, x || n FROM r) SELECT count(*) FROM r",
        BY_LIMIT),
    "cross join": ("SELECT count(*) FROM t a, t b, t c, t d", BY_LIMIT),
    "many rows": ("SELECT a.id FROM t a, t b", BY_LIMIT),
    "wide rows": (f"SELECT {BIG} FROM t", BY_LIMIT),
    "sort in memory": (f"SELECT a.id, {BIG} || b.id q FROM t a, t b ORDER BY q, a.id", BY_LIMIT),
    "distinct in memory": (f"SELECT count(*) FROM (SELECT DISTINCT {BIG} || a.id || b.id FROM t a, t b)", BY_LIMIT),
    "concatenation": (f"SELECT {BIG} || {BIG}", BY_LIMIT),
    "replace": (f"SELECT length(replace({BIG}, 'a', 'bbbbbbbb'))", BY_LIMIT),
    "group_concat": (f"SELECT length(group_concat({BIG})) FROM t", BY_LIMIT),
    "json": (f"SELECT length(json_group_array({BIG})) FROM t", BY_LIMIT),
    "json tree": ("SELECT count(*) FROM json_tree(printf('%.*c', 400000, '['))", "malformed|JSON"),
    "like": (f"SELECT count(*) FROM t WHERE {BIG} || id LIKE '{'%a_' * 60}b'", BY_LIMIT),
    "glob": (f"SELECT count(*) FROM t WHERE {BIG} || id GLOB '{'*a?' * 60}b'", BY_LIMIT),
    "pattern too long": (f"SELECT 1 WHERE 'a' LIKE '{'%a' * 200}'", "pattern too complex"),
    "instr": (f"SELECT instr({BIG}, substr({BIG}, 1, 450000) || 'b')", BY_LIMIT),
    "deep nesting": ("SELECT " + "(SELECT " * 300 + "1" + ")" * 300, f"{BY_LIMIT}|maximum depth|parser"),
    "deep expression": ("SELECT " + "-" * 0 + "1" + "+1" * 5000, "maximum depth|too large"),
    "long compound": (" UNION ALL ".join(["SELECT 1"] * 400), "too many terms"),
    "joins": ("SELECT 1 FROM " + ", ".join(f"t t{n}" for n in range(70)), "at most 64 tables"),
    "long query": (f"SELECT 1 IN ({', '.join(map(str, range(20000)))})", "more than 20,000 characters"),
    "bytes that are no text": ("SELECT CAST(x'ff00fe' AS TEXT) \ud800", "token|syntax|encode|surrogat|CPU"),
    "nul": ("SELECT 1 \0 FROM", "null character|token|incomplete|syntax"),
}  # fmt: skip


def runs(query: str, path: Path) -> bool:
    """Whether a database answers a query."""
    return verdict(query, (), path)[1]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacks")
    for name in ("t.sqlite", "other.sqlite"):
        with sqlite3.connect(folder / name) as made:
            made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, x REAL)")
            made.executemany("INSERT INTO t VALUES (?, ?, ?)", [(n, f"n{n}", n / 3) for n in range(1000)])
            made.execute("CREATE VIRTUAL TABLE words USING fts5(word)")  # a stranger's file may hold such tables
            made.execute("CREATE VIEW caller AS SELECT hex(randomblob(8)) AS y")
        made.close()
    return folder / "t.sqlite"


def state(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_and_changes_nothing(name: str, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "CPU_SECONDS", 1.0)
    query, ends = ATTACKS[name]
    query = query.replace("{other}", str(database.with_name("other.sqlite")))
    before = state(database.parent)
    answer = sql._ask(query, [], database)
    assert "equal" not in answer and re.search(ends, answer["error"], re.I), answer
    assert state(database.parent) == before
    assert execution("SELECT count(*) FROM t", ["SELECT 1000"], database) == 1, "the next query is answered"


def test_an_attack_scores_nothing(database: Path) -> None:
    for name in ("drop", "two statements", "insert behind with", "pragma as a table", "cross join"):
        assert execution(ATTACKS[name][0], ["SELECT 1"], database) == 0 and not runs(ATTACKS[name][0], database)


def test_a_score_depends_on_steps_before_it_depends_on_seconds(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps take a fraction of a second; here a slow machine may take longer."""
    monkeypatch.setattr(sql, "CPU_SECONDS", HANG)
    for name in ("recursion without end", "cross join"):
        assert sql._ask(ATTACKS[name][0], [], database) == {"error": "more than 20,000,000 steps"}


def test_printf_beyond_the_limit_is_nothing(database: Path) -> None:
    for query in (f"SELECT printf('%s%s', {BIG}, {BIG})", "SELECT printf('%.*c', 900000000, 'a')"):
        assert execution(query, ["SELECT NULL"], database) == 1


def test_what_queries_need_is_allowed(database: Path) -> None:
    for query in (
        "WITH z AS (SELECT id, row_number() OVER (PARTITION BY id % 7 ORDER BY x) r FROM t) SELECT id FROM z",
        "WITH z AS (SELECT 1) SELECT count(*) FROM z",
        "SELECT id % 3 AS k, count(*), avg(x), group_concat(name) FROM t WHERE id < 30 GROUP BY k HAVING count(*) > 3",
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < 1000) SELECT sum(x) FROM r",
        "SELECT upper(name), strftime('%Y', '2024-05-06'), CAST(x AS INTEGER), round(x, 2) FROM t WHERE id LIKE '1%'",
        "SELECT a.name FROM t a JOIN t b ON a.id = b.id + 1 WHERE EXISTS (SELECT 1 FROM t c WHERE c.id = a.id) LIMIT 5",
        "VALUES (1, 'a'), (2, 'b')",
        "SELECT name FROM sqlite_master",
        "SELECT value FROM json_each('[1, 2]')",
        "SELECT count(*) FROM t a, t b",
    ):
        assert "equal" in sql._ask(query, [], database), query


def test_the_process_holds_no_more_memory_than_its_limit(database: Path) -> None:
    runs(ATTACKS["sort in memory"][0], database)
    runs("SELECT 1", database)
    pid = sql._children[database].pid
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 300 << 10, peak
