"""Scores of answers that are run where they can do no harm: queries on their row's database, code with its tests.

Each answer runs once: its verdict is kept, since several scores of it are asked for.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz.data import Example

if TYPE_CHECKING:
    from riyaz.metrics.code import Verdict

KEPT = 4096  # verdicts


def expect_ready(metric: str, rows: Iterable[Example], unsafe_code: bool = False) -> None:
    """Makes sure, before anything long begins, that answers can be run: code is confined, or the user wants it without,
    and every accepted query of the rows runs. Raises RiyazError."""
    if metric == "pass@1":
        from riyaz.metrics.code import require_confinement

        require_confinement(unsafe_code)
    if metric == "sql":
        for row in rows:
            sql(row.answer, row)


def sql(prediction: str, row: Example) -> float:
    """1 if the predicted query has the rows of an accepted one on the row's database."""
    return float(_queried(prediction, row.answers, _database(row), row.where)[0])


def query_runs(prediction: str, row: Example) -> float:
    """1 if the predicted query runs on the row's database."""
    return float(_queried(prediction, row.answers, _database(row), row.where)[1])


def passes(prediction: str, row: Example) -> float:
    """1 if the predicted code passes the row's tests."""
    return float(_verdict(prediction, _tests(row)).passed)


def code_runs(prediction: str, row: Example) -> float:
    """1 if the predicted code runs to its end without the tests."""
    return float(_verdict(prediction, _tests(row)).runs)


def _database(row: Example) -> str:
    assert row.check is not None and row.check.database, "task.check_judged"
    return row.check.database


def _tests(row: Example) -> str:
    assert row.check is not None and row.check.tests, "task.check_judged"
    return row.check.tests


@lru_cache(KEPT)
def _queried(query: str, gold: tuple[str, ...], database: str, where: str) -> tuple[bool, bool]:
    from riyaz.metrics.sql import verdict

    return verdict(query, gold, Path(database), where)


@lru_cache(KEPT)
def _verdict(answer: str, tests: str) -> "Verdict":
    from riyaz.metrics.code import passes as tried

    return tried(answer, tests)
