"""A plugin of pytest for `make coverage`: what is measured while a test runs bears its name, and what tests and their
fixtures took is noted, so that tests/house/mutants.py finds the quickest tests that reach a line.

Beside coverage's data each process writes `tests-PID.jsonl`: a line for a fixture of more than one test when it is
made, a line for a test when it has ended.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

measured = coverage.Coverage.current()
ended: dict[str, pytest.TestReport] = {}  # of the test that runs: the report of its phase, or of the one that failed


def note(**line: Any) -> None:
    """Adds a line to the file of this process, which may be a fork."""
    assert measured is not None
    folder = Path(str(measured.get_option("run:data_file"))).parent
    with (folder / f"tests-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        print(json.dumps(line), file=file)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """The lines of a test are its own, with those of the fixtures that are made for it."""
    assert measured is not None
    ended.clear()
    measured.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        measured.switch_context("")
        call = ended.get("call")
        passed = all(report.passed for report in ended.values())
        skipped = any(report.skipped for report in ended.values())
        fixtures = sorted(set(getattr(item, "fixturenames", ())))
        note(test=item.nodeid, ended="passed" if passed else "skipped" if skipped else "failed",
             seconds=round(call.duration, 3) if call else 0, fixtures=fixtures)  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """Keeps how each phase of the test ended."""
    report = yield
    ended[call.when] = report
    return report


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> Iterator[None]:
    """How long a fixture took that several tests share: a test alone would have it made for itself."""
    begun = time.perf_counter()
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            note(fixture=fixturedef.argname, of=fixturedef.baseid, seconds=round(time.perf_counter() - begun, 3))
