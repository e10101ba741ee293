"""Whether the answers of rows are what a model can write under the schema that answers keep to, or under their own."""

from collections.abc import Sequence
from typing import NamedTuple

from riyaz.config import TOOLS
from riyaz.data import Example
from riyaz.data.schema import OPTION, expect_tools
from riyaz.data.task import Task
from riyaz.engine.grammar import expect_schema, misfit
from riyaz.engine.tool_grammar import call_misfit
from riyaz.errors import RiyazError


class Misfit(NamedTuple):
    """A row whose answer the schema does not allow: where it stands, and in which way."""

    where: str
    why: str


def misfits(schema: str, rows: Sequence[Example]) -> list[Misfit]:
    """The rows whose answer the schema, or with TOOLS their own tools, do not allow, in their order. Raises RiyazError
    for a schema that cannot be followed, and without llguidance."""
    reasons = ((row.where, _misfit(schema, row)) for row in rows)
    return [Misfit(where, why) for where, why in reasons if why]


def _misfit(schema: str, row: Example) -> str:
    if schema != TOOLS:
        return misfit(schema, row.answer, OPTION)
    expect_tools(row.tools, row.where)
    return call_misfit(row.tools, row.answer, row.where)


def schema_notes(schema: str, rows: Sequence[Example]) -> list[str]:
    """What is said of training rows whose answers the schema does not allow: at most one line. Raises RiyazError where
    it allows none of them, as then no right answer can be given."""
    wrong = misfits(schema, rows) if schema else []
    if not wrong:
        return []
    first = wrong[0]
    if len(wrong) == len(rows):
        what = f"the schema allows none of the {len(rows):,} training answers; of this one, {first.why}"
        raise RiyazError(what, first.where, f"correct the schema of {OPTION}, or write the answers by it")
    share = f"{len(wrong):,} of {len(rows):,} training answers do not keep to the schema"
    return [f"{share}, so a model cannot give them; the first is {first.where}: {first.why}"]


def own_schema_notes(task: Task, rows: Sequence[Example]) -> list[str]:
    """What is said of rows whose accepted answer does not fit their own schema, by which `fits_schema` judges generated
    answers: at most one line. Raises RiyazError for a schema that cannot be followed, and without llguidance."""
    if task.kind in ("closed", "questions"):
        return []
    having, wrong, first = 0, 0, ""
    for row in rows:
        if not row.check or not row.check.schema:
            continue
        having += 1
        expect_schema(row.check.schema, f"column `schema`, {row.where}")
        if why := misfit(row.check.schema, row.answer, row.where):
            wrong += 1
            first = first or f"{row.where}: {why}"
    share = f"{wrong:,} of {having:,} accepted answers do not fit the schema of their own row"
    return [f"{share}; the first is {first}"] if wrong else []
