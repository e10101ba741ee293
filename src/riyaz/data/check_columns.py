"""The columns of a table that say what the answer to each row is checked by: `tests`, `database`, `schema`, `slots`.

A column of such a name that holds something else, as its first values show, is not read.
"""

import ast
import json
import os
import stat
import warnings
from collections.abc import Container, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from riyaz.data import normalise
from riyaz.data.checks import Check
from riyaz.data.conversations import RowProblem, as_text
from riyaz.data.schema import schema_text
from riyaz.data.tables import Table
from riyaz.errors import RiyazError, brief
from riyaz.json_files import json_or

COLUMNS = ("tests", "database", "schema", "slots")
MAGIC = b"SQLite format 3\0"  # the first bytes of a database
FIRST = 20  # rows that show whether a column holds tests or slots


def check_columns(tables: Sequence[Table], used: Container[str], answer: str) -> tuple[str, ...]:
    """The columns of checks that the tables of a path have, without those that make up the prompt, the answer (whose
    column is `answer`) or the group."""
    columns = {name for table in tables for name in table.columns}
    return tuple(name for name in COLUMNS if name in columns and name not in used and _is_check(tables, name, answer))


def _is_check(tables: Sequence[Table], name: str, answer: str) -> bool:
    filled = ((table, row) for table in tables for _, row in table.rows if not _empty(row.get(name)))
    first = list(islice(filled, FIRST))
    if not first:
        return False
    if name == "tests":
        return 2 * sum(_tests_problem(_tests(row[name])) == "" for _, row in first) >= len(first)
    table, row = first[0]
    value = row[name]
    if name == "schema":
        return _json_object(value) is not None
    if name == "database":
        return isinstance(value, str) and database_problem(str(table.path.parent / value.strip())) == ""
    asking = sum(_are_slots(row[name], row.get(answer)) for _, row in first)
    return 2 * asking > len(first)


def _are_slots(value: object, answer: object) -> bool:
    """Whether a cell can hold slots: texts of which one has a letter, or that all occur in the row's own answer."""
    if not isinstance(value, (str, list, dict)):
        return False
    try:
        wanted = _slots(value)
    except RowProblem:
        return False
    said = normalise(str(answer))
    return bool(wanted) and (
        any(letter.isalpha() for text in wanted for letter in text) or all(normalise(text) in said for text in wanted)
    )


def check_of(row: dict[str, object], columns: tuple[str, ...], folder: Path, database: str) -> Check | None:
    """What the answer to a row is checked by; None for nothing. The path of a database is relative to `folder`
    and must lie in it; `database` counts where the row names none. Raises RowProblem."""
    values = {name: row.get(name) for name in columns if not _empty(row.get(name))}
    tests = _tests(values["tests"]) if "tests" in values else ""
    if tests and (problem := _tests_problem(tests)):
        raise RowProblem(f"'tests' {problem}")
    if "database" in values:
        named = as_text(values["database"], "database").strip()
        database = str((folder / named).absolute())
        if problem := _outside(folder, database) or database_problem(database):
            raise RowProblem(f"the database {brief(named)} {problem}")
    schema = ""
    if "schema" in values:
        document = _json_object(values["schema"])
        if document is None:
            raise RowProblem("'schema' holds no JSON Schema, which is an object of JSON")
        try:
            schema = schema_text(json.dumps(document), "schema")
        except (RiyazError, RecursionError) as error:
            raise RowProblem(f"'schema': {error.what if isinstance(error, RiyazError) else 'too deep'}") from None
    check = Check(tests, database, schema, _slots(values["slots"]) if "slots" in values else ())
    return None if check == Check() else check


def one_database(path: Path | None) -> str:
    """The absolute path of the one database of all rows, "" for none. Raises RiyazError where it is no database."""
    if path is None:
        return ""
    if problem := database_problem(str(path)):
        raise RiyazError(f"the database {problem}", str(path), "name an SQLite file with --database")
    return str(path.absolute())


def _outside(folder: Path, path: str) -> str:
    """What is wrong with a file as one in the folder of the rows, "" if nothing: they may be a stranger's."""
    try:
        whole = os.path.realpath(path)  # links are followed
    except ValueError:  # a null character
        return "is no path"
    inside = Path(whole).is_relative_to(os.path.realpath(folder))
    return "" if inside else "lies outside the folder of the rows: copy it there, or name it with --database"


def database_problem(path: str) -> str:
    """What is wrong with a file as a database, "" if nothing."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, a device has no end
            return "is no file"
        with open(path, "rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:  # a null character
        return "is no path"
    return "" if start == MAGIC else "is no SQLite file"


def texts_of(value: object, column: str, *, lines: bool) -> list[str]:
    """The texts of a list, of a JSON list in a table's cell, or with `lines` of a text that `|` or line ends part.
    Raises RowProblem."""
    if isinstance(value, str):
        listed = json_or(value) if value.lstrip().startswith("[") else None
        if not isinstance(listed, list):
            listed = value.replace("|", "\n").split("\n") if lines else []
        value = listed
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [text for each in values if (text := as_text(each, column).strip())]


def _slots(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts_of(value, "slots", lines=True)))


def _tests(value: object) -> str:
    """The lines of tests, which a list may hold one by one; "" for what is neither text nor such a list."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return value if isinstance(value, str) else ""


@lru_cache(maxsize=1024)  # many rows may share their tests
def _tests_problem(text: str) -> str:
    """What is wrong with a text as Python that can fail, "" if nothing. It is parsed, never run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        return f"is not Python: {error.msg} in its line {error.lineno}"
    except (ValueError, RecursionError, MemoryError):
        return "is not Python"
    can_fail = (ast.Assert, ast.Raise, ast.Call)
    return "" if any(isinstance(node, can_fail) for node in ast.walk(tree)) else "holds nothing that can fail"


def _json_object(value: object) -> dict[str, object] | None:
    value = json_or(value) if isinstance(value, str) else value
    return value if isinstance(value, dict) else None


def _empty(value: object) -> bool:
    """Whether a cell holds nothing; pandas writes NaN where a value is missing."""
    return value is None or value == "" or value == [] or value == {} or value != value
