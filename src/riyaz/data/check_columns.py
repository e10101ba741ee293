"""The columns of a table that say what the answer to each row is checked by: `tests`, `database`, `schema`, `slots`.

A column of such a name that holds something else, as the first row shows, is not read.
"""

import ast
import json
import warnings
from collections.abc import Container
from functools import lru_cache
from pathlib import Path

from riyaz.data.checks import Check
from riyaz.data.conversations import RowProblem, as_text
from riyaz.data.tables import Table
from riyaz.errors import RiyazError, brief
from riyaz.json_files import json_or

COLUMNS = ("tests", "database", "schema", "slots")
MAGIC = b"SQLite format 3\0"  # the first bytes of a database


def check_columns(table: Table, used: Container[str]) -> tuple[str, ...]:
    """The columns of checks that a table has, without those that make up the prompt, the answer or the group."""
    return tuple(name for name in COLUMNS if name in table.columns and name not in used and _is_check(table, name))


def _is_check(table: Table, name: str) -> bool:
    value = next((row[name] for _, row in table.rows if not _empty(row.get(name))), None)
    if name == "tests":
        return value is not None and _tests_problem(_tests(value)) == ""
    if name == "schema":
        return value is not None and _json_object(value) is not None
    return isinstance(value, str if name == "database" else (str, list, dict))


def check_of(row: dict[str, object], columns: tuple[str, ...], folder: Path, database: str) -> Check | None:
    """What the answer to a row is checked by; None for nothing. The path of a database is relative to `folder`;
    `database` counts where the row names none. Raises RowProblem."""
    values = {name: row.get(name) for name in columns if not _empty(row.get(name))}
    tests = _tests(values["tests"]) if "tests" in values else ""
    if tests and (problem := _tests_problem(tests)):
        raise RowProblem(f"'tests' {problem}")
    if "database" in values:
        named = as_text(values["database"], "database").strip()
        database = str((folder / named).absolute())
        if problem := database_problem(database):
            raise RowProblem(f"the database {brief(named)} {problem}")
    schema = ""
    if "schema" in values:
        document = _json_object(values["schema"])
        if document is None:
            raise RowProblem("'schema' holds no JSON Schema, which is an object of JSON")
        schema = json.dumps(document, ensure_ascii=False)
    check = Check(tests, database, schema, _slots(values["slots"]) if "slots" in values else ())
    return None if check == Check() else check


def one_database(path: Path | None) -> str:
    """The absolute path of the one database of all rows, "" for none. Raises RiyazError where it is no database."""
    if path is None:
        return ""
    if problem := database_problem(str(path)):
        raise RiyazError(f"the database {problem}", str(path), "name an SQLite file with --database")
    return str(path.absolute())


def database_problem(path: str) -> str:
    """What is wrong with a file as a database, "" if nothing."""
    try:
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
