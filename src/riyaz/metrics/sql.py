"""Execution accuracy of generated SQL: a query is right where its rows are those of an accepted query.

SQL of a model, and the file it reads, are worked on in a child process (`sql_worker`) that has neither files nor much
memory: a sort inside this process could not be bounded, and a fault of SQLite would end it. The process stays for the
next query; if a query kills it, the query has failed and another one starts.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from riyaz.child import Child, Ended
from riyaz.confined import module_command
from riyaz.errors import RiyazError, shown
from riyaz.files import refuse_device
from riyaz.metrics.sql_worker import bare

CPU_SECONDS, WALL_SECONDS = 3.0, 60.0  # for one query; a busy machine gives a process less CPU time
QUERY, LONGEST = 20_000, 200_000  # characters of a query, and of an answer in which one is looked for
ANSWER = 4096  # bytes of the process's answer
OPEN = 4  # databases whose processes are kept
# possessive, and within one line: a text of line ends alone would take quadratic time
_FENCE = re.compile(r"^[ \t]*+(```++|~~~++)[^\n]*+\n(.*?)(?:^[ \t]*+\1|\Z)", re.M | re.S)
_WITH = r"with\s++(?:recursive\s++)?[\w\"]++\s*+(?:\([^()]*+\)\s*+)?as\b"
_BEGIN = re.compile(rf"^(?:(?!\n)\W)*+(?:sql\w*+\s*+:\s*+)?(?=(?:select|values)\b|{_WITH})", re.I | re.M)
_STATEMENT = re.compile(
    r"\W*(select|with|values|insert|update|delete|replace|create|drop|alter|attach|detach|pragma|vacuum|analyze|begin"
    r"|commit|explain|reindex)\b",
    re.I,
)


def execution(query: str, gold: Sequence[str], database: Path, where: str = "") -> float:
    """1 where the rows of the query are those of one of the accepted queries `gold`, else 0.

    Rows are a multiset, unless that accepted query has an ORDER BY of its own: then a list. Columns are compared by
    place, floats with a tolerance; where there are no rows, the number of columns decides. Raises RiyazError for a
    database that is none and an accepted query that fails, naming `where`, the row's place in its file.
    """
    return float(verdict(query, gold, database, where)[0])


def verdict(query: str, gold: Sequence[str], database: Path, where: str = "") -> tuple[bool, bool]:
    """(whether `execution` is 1, whether the query is a SELECT that the database answers within the limits, whatever
    its rows) of a query that runs once. Raises as `execution` does."""
    accepted = [query_of(each) for each in gold]
    for each in accepted:
        _expect_gold(each, database, where)
    answer = _ask(query_of(query), accepted, database)
    return answer.get("equal") is True, "equal" in answer


def query_of(answer: str) -> str:
    """The query of an answer: its first fenced block or, without one, what begins with SELECT, WITH or VALUES, up to
    words behind a semicolon; without the semicolon at the end. A text of more than LONGEST characters is left as it is:
    no query."""
    if len(answer) > LONGEST:
        return answer
    block = _FENCE.search(answer)
    text = block[2] if block else answer
    begin = _BEGIN.search(text)
    text = text[begin.end() :] if begin else text
    end = bare(text).find(";")
    if end >= 0 and not block and not _STATEMENT.match(text, end + 1):
        text = text[:end]  # a sentence about the query follows it
    return text.strip().rstrip(";").rstrip()


_children: OrderedDict[Path, Child] = OrderedDict()
_good: set[tuple[Path, str]] = set()  # accepted queries that ran


def _expect_gold(query: str, database: Path, where: str) -> None:
    """Raises RiyazError for an accepted query that fails: no prediction could be right."""
    if (database, query) not in _good:
        answer = _ask(query, [query], database)
        if "error" in answer:
            hint = "correct the row: no prediction can be right"
            raise RiyazError(
                f"the accepted query {shown(query)} fails: {answer['error']}", where or database.name, hint
            )
        _good.add((database, query))


def _ask(query: str, gold: Sequence[str], database: Path) -> dict:
    if len(query) > QUERY:
        return {"error": f"more than {QUERY:,} characters"}
    request = {"query": query, "gold": list(gold), "cpu_seconds": CPU_SECONDS}
    try:
        return _child(database).ask(request, WALL_SECONDS, ANSWER)
    except Ended:
        return {"error": f"more than {CPU_SECONDS:g} s of CPU time, or more memory than it may have"}
    except RiyazError as error:
        raise RiyazError(error.what, str(database), "give an SQLite file") from None


def _child(database: Path) -> Child:
    """The process that has the database open. Raises RiyazError for a file that cannot be one."""
    if database not in _children:
        expect_database(database)
        _children[database] = Child(partial(module_command, "riyaz.metrics.sql_worker", str(database.absolute())))
        if len(_children) > OPEN:
            _children.popitem(last=False)[1].stop()
    _children.move_to_end(database)
    return _children[database]


def expect_database(database: Path) -> None:
    """Raises RiyazError where there is no such file, or a part of its content stands in a journal beside it."""
    if not database.is_file():
        refuse_device(database)
        raise RiyazError("no such file", str(database), "give an SQLite file")
    for ending in ("-wal", "-journal"):
        beside = database.with_name(database.name + ending)
        if beside.is_file() and beside.stat().st_size:
            hint = "close the program that writes it, so that the file holds everything"
            raise RiyazError(f"has changes that are not written yet, in {beside.name}", str(database), hint)
