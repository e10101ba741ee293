"""Scores of answers that are run where they can do no harm: queries on their row's database, code with its tests.

Each answer runs once: its verdict is kept, since several scores of it are asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz.data import Example
from riyaz.data.text_keys import first_of_equals, text_keys
from riyaz.errors import RiyazError

if TYPE_CHECKING:
    from riyaz.metrics.code import Verdict

KEPT = 4096  # verdicts
TOGETHER, CHARACTERS = 30, 120_000  # rows whose tests run in one process, and of them


def expect_ready(metric: str, rows: Sequence[Example], unsafe_code: bool = False) -> None:
    """Makes sure, before anything long begins, that answers can be run: code is confined, or the user wants it without,
    the tests of every row fail for an empty answer and pass for an accepted one, and every accepted query runs. Raises
    RiyazError naming the first row that judges nothing, or wrongly."""
    if metric == "pass@1":
        from riyaz.metrics.code import judge_rightly, require_confinement

        require_confinement(unsafe_code)
        first = first_of_equals(text_keys(repr((row.answers, _tests(row))) for row in rows))
        for batch in _batches(compress(rows, first)):
            if not judge_rightly([(row.answer, _tests(row)) for row in batch]):
                for row in batch:
                    _expect_tests(row)
    if metric == "sql":
        for row in rows:
            sql(row.answer, row)


def _batches(rows: Iterable[Example]) -> Iterator[list[Example]]:
    """The rows in parts whose tests may run in one process."""
    batch: list[Example] = []
    size = 0
    for row in rows:
        length = len(row.answer) + len(_tests(row))
        if batch and (len(batch) == TOGETHER or size + length > CHARACTERS):
            yield batch
            batch, size = [], 0
        batch, size = [*batch, row], size + length
    if batch:
        yield batch


def _expect_tests(row: Example) -> None:
    """Raises RiyazError where the tests of a row pass with an empty answer, or fail for every accepted one."""
    tests = _tests(row)
    if _verdict("", tests).passed:
        what = "the tests pass with an empty answer, so they judge nothing"
        hint = "call the test functions: end the tests with check(NAME), test_it() or unittest.main(), for example"
        raise RiyazError(what, row.where, hint)
    first = _verdict(row.answer, tests)
    if not first.passed and not any(_verdict(answer, tests).passed for answer in row.answers[1:]):
        what = f"the accepted answer fails its tests: {first.why}"
        raise RiyazError(what, row.where, "correct the answer or its tests: no score would count")


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
