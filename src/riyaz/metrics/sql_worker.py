"""The process that runs generated SQL: `python -m riyaz.metrics.sql_worker DATABASE`, started by sql.py.

It opens one SQLite file, read-only, and then limits itself: no more files, no processes, little memory. An authorizer
lets a query read the file's tables and call functions that depend on their arguments alone; a step limit ends recursion
and large joins, and the CPU limit ends one long step. It answers each line of JSON with a line, until stdin ends.
"""

import json
import math
import re
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from riyaz.confined import confine, limit_cpu

MEMORY_MIB, HEAP = 512, 128 << 20  # of the process, and bytes of SQLite's heap: a sort in memory ends there
STEPS, STRIDE = 20_000_000, 1_000  # instructions of SQLite's machine for one query, and between two checks
ROWS, RESULT = 10_000, 8 << 20  # rows of a result, and bytes of its values
KEPT = 32 << 20  # bytes of gold results that are kept
VALUE = 16  # bytes that a value counts beside its text
RELATIVE, ABSOLUTE = 1e-6, 1e-9  # tolerance of floats: sums in another order differ in the last digits
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,  # bytes of a text or blob: what printf, replace and group_concat can make
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 100_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 32,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
# Not random, randomblob, zeroblob, load_extension, the fts functions, or what tells of the library and its state.
FUNCTIONS = """abs char coalesce concat concat_ws format glob hex if ifnull iif instr length like likelihood likely
lower ltrim max min nullif octet_length printf quote replace round rtrim sign soundex substr substring trim typeof
unhex unicode unlikely upper avg count group_concat median percentile percentile_cont percentile_disc string_agg sum
total row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value current_date
current_time current_timestamp date datetime julianday strftime time timediff unixepoch acos acosh asin asinh atan
atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power radians sin sinh sqrt tan tanh
trunc json json_array json_array_length json_extract json_group_array json_group_object json_object json_quote
json_type json_valid -> ->>"""
BESIDE = {"sqlite_master", "sqlite_schema", "json_each", "json_tree"}  # readable beside the file's own tables
_SKIPPED = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*(?:\]|\Z)", re.S)
_ALLOWED = frozenset(FUNCTIONS.split())
Rows = list[tuple[Any, ...]]


class Result(NamedTuple):
    """What a query returns; it has columns without any row too."""

    columns: int
    rows: Rows


def bare(query: str) -> str:
    """A query with spaces in the place of every comment, text and quoted name."""
    return _SKIPPED.sub(lambda skipped: " " * len(skipped[0]), query)


def is_ordered(query: str) -> bool:
    """Whether the whole result is sorted: an ORDER BY that stands in no parentheses."""
    depth, outside = 0, []
    for character in bare(query):
        depth += (character == "(") - (character == ")")
        outside.append(character if depth == 0 else " ")
    return re.search(r"\border\s+by\b", "".join(outside), re.I) is not None


def same_rows(rows: Rows, gold: Rows, ordered: bool) -> bool:
    """Whether two results have the same rows, in the same order if `ordered`, else as multisets. A whole number equals
    its float, floats are equal within RELATIVE, text never equals a blob."""
    if len(rows) != len(gold):
        return False
    if ordered:
        return all(map(_same_row, rows, gold))
    groups: defaultdict[tuple, tuple[Rows, Rows]] = defaultdict(lambda: ([], []))
    for side, result in enumerate((rows, gold)):
        for row in result:
            groups[_exact(row)][side].append(row)
    return all(_same_group(own, other) for own, other in groups.values())


def _exact(row: tuple) -> tuple:
    """The values of a row that have to be the same, with a mark in the place of numbers."""
    return tuple(("number",) if isinstance(value, (int, float)) else value for value in row)


def _same_group(rows: Rows, gold: Rows) -> bool:
    """The same for rows that differ by their numbers alone."""
    if len(rows) != len(gold):
        return False
    rows, left = sorted(rows, key=_numbers), sorted(gold, key=_numbers)
    if all(map(_same_row, rows, left)):
        return True
    for row in rows:  # numbers within the tolerance may sort in another order on either side
        place = next((i for i, other in enumerate(left) if _same_row(row, other)), None)
        if place is None:
            return False
        del left[place]
    return True


def _numbers(row: tuple) -> list[float]:
    return [value for value in row if isinstance(value, (int, float))]


def _same_row(row: tuple, other: tuple) -> bool:
    return len(row) == len(other) and all(map(_same_value, row, other))


def _same_value(value: object, other: object) -> bool:
    if isinstance(value, float) or isinstance(other, float):
        numbers = isinstance(value, (int, float)) and isinstance(other, (int, float))
        return numbers and math.isclose(value, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)  # type: ignore[arg-type]
    return value == other


class Database:
    """One SQLite file, open for queries that only read it. The process can open no other one afterwards."""

    def __init__(self, path: str) -> None:
        """Raises sqlite3.Error where the file cannot be read."""
        self.gold: dict[str, Result] = {}
        self._kept = self._steps = 0
        uri = f"file:{quote(path)}?mode=ro&immutable=1"  # immutable: no lock and no journal is written beside it
        self._sqlite = sqlite3.connect(uri, uri=True, isolation_level=None)
        confine(MEMORY_MIB)  # before a byte of the file is read, which may be a stranger's
        self._sqlite.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        for setting in ("temp_store=memory", "trusted_schema=off", "cell_size_check=on", "mmap_size=0"):
            self._sqlite.execute(f"PRAGMA {setting}")
        self._sqlite.execute(f"PRAGMA hard_heap_limit={HEAP}")
        # virtual tables run code of extensions
        virtual = "SELECT lower(name) FROM sqlite_schema WHERE rootpage = 0 AND type = 'table'"
        modules = "SELECT lower(name) FROM pragma_module_list"
        tables = "SELECT lower(name) FROM sqlite_schema WHERE rootpage > 0 OR type = 'view'"
        self._virtual = {name for query in (virtual, modules) for (name,) in self._sqlite.execute(query)} - BESIDE
        self._tables = BESIDE | {name for (name,) in self._sqlite.execute(tables)} - self._virtual
        for limit, value in LIMITS.items():
            self._sqlite.setlimit(limit, value)
        self._sqlite.set_progress_handler(self._step, STRIDE)
        self._sqlite.set_authorizer(self._allow)

    def result(self, query: str) -> Result:
        """The result of a query. Raises ValueError or sqlite3.Error where it is refused, fails or exceeds a limit."""
        if not re.match(r"[\s(]*(select|with|values)\b", bare(query), re.I):
            raise ValueError("not a SELECT")
        rows: Rows = []
        self._steps = size = 0
        cursor = self._sqlite.execute(query)
        for row in cursor:
            size += sum(VALUE + (len(value) if isinstance(value, (str, bytes)) else 0) for value in row)
            if len(rows) == ROWS or size > RESULT:
                raise ValueError(f"more than {ROWS:,} rows or {RESULT:,} bytes")
            rows.append(row)
        return Result(len(cursor.description), rows)

    def of_gold(self, query: str) -> Result:
        """The result of an accepted query, kept for the next prediction."""
        if query not in self.gold:
            result = self.result(query)
            values = (value for row in result.rows for value in row)
            self._kept += sum(VALUE + (len(value) if isinstance(value, (str, bytes)) else 0) for value in values)
            if self._kept > KEPT:
                self.gold, self._kept = {}, 0
            self.gold[query] = result
        return self.gold[query]

    def _step(self) -> bool:
        self._steps += STRIDE
        return self._steps > STEPS

    def _allow(self, action: int, first: str | None, second: str | None, schema: str | None, _inner: object) -> int:
        allowed = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
        name = (first or "").lower()
        # without a schema: no column is read, of a table that the query itself makes or of any other
        readable = name in self._tables or (schema is None and not second and name not in self._virtual)
        allowed |= action == sqlite3.SQLITE_READ and readable
        allowed |= action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _ALLOWED
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def answer(database: Database, query: str, gold: Sequence[str]) -> dict[str, object]:
    """`equal`: whether the query's rows, and the number of its columns, are those of one of the accepted queries; else
    `error`, why it has none."""
    try:
        result = database.of_gold(query) if query in gold else database.result(query)
    except (ValueError, sqlite3.Error, sqlite3.Warning, MemoryError) as error:
        return {"error": _reason(error)}
    return {"equal": any(_same(result, database.of_gold(each), is_ordered(each)) for each in gold)}


def _same(result: Result, gold: Result, ordered: bool) -> bool:
    return result.columns == gold.columns and same_rows(result.rows, gold.rows, ordered)


def _reason(error: Exception) -> str:
    text = {"interrupted": f"more than {STEPS:,} steps"}.get(str(error), str(error) or "out of memory")
    return text[:200].encode("ascii", "backslashreplace").decode()


def main() -> None:
    """Answers requests until stdin ends."""
    try:
        database = Database(sys.argv[1])
    except (sqlite3.Error, OSError, UnicodeError, MemoryError) as error:
        print(json.dumps({"refused": f"not read as an SQLite database: {error}"}), flush=True)
        return
    print(json.dumps({"ready": Path(sys.argv[1]).name}), flush=True)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        limit_cpu(request["cpu_seconds"])
        print(json.dumps(answer(database, request["query"], request["gold"])), flush=True)


if __name__ == "__main__":
    main()
