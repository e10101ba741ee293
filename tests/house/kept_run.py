"""What a run of pytest did, kept in a file: how every test ended, and its seconds.

`KEEP_RUN=FILE pytest` writes it at the end of the run; `make test` does so. `second_chance.py` reads which tests
failed, `changed.py` how long each file takes.
"""

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

VARIABLE = "KEEP_RUN"
RED = {"failed", "error", "subtests failed"}  # pytest's words for what is wrong


@dataclass
class KeptTest:
    """One test: how often pytest counted it as what (`failed` and, at its end, `error`), and how long it took."""

    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def red(self) -> bool:
        return bool(RED & self.outcomes.keys())

    @property
    def passed(self) -> bool:
        return not self.red and "passed" in self.outcomes


@dataclass
class KeptRun:
    """A run that came to its end: pytest's exit status, and its tests by node id. A file that cannot be collected is
    one too, by its name."""

    status: int
    tests: dict[str, KeptTest]


def read(path: Path) -> KeptRun | None:
    """The run kept in a file; None where there is none, since pytest did not come to its end."""
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    return KeptRun(data["status"], {name: KeptTest(**test) for name, test in data["tests"].items()})


class Keeper:
    """The plugin: counts what pytest reports as the closing line does."""

    def __init__(self, path: Path, config: pytest.Config) -> None:
        self.path, self.config = path, config
        self.tests: dict[str, KeptTest] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid, KeptTest())
        test.seconds = round(test.seconds + getattr(report, "duration", 0.0), 3)
        self.count(report.nodeid, self.config.hook.pytest_report_teststatus(report=report, config=self.config)[0])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.count(report.nodeid, "error")

    def count(self, name: str, category: str) -> None:
        """Counts one report, but not that a test was set up and taken down."""
        if category:
            test = self.tests.setdefault(name, KeptTest())
            test.outcomes = dict(Counter(test.outcomes) + Counter([category]))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        data = asdict(KeptRun(int(exitstatus), self.tests))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(data, indent=0) + "\n", encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the run where it is asked for: not in the processes that share its tests, nor in a pytest that a test
    starts."""
    path = os.environ.get(VARIABLE)
    inner = hasattr(config, "workerinput") or "PYTEST_XDIST_WORKER" in os.environ or "PYTEST_CURRENT_TEST" in os.environ
    if path and not inner and not config.option.collectonly:
        Path(path).unlink(missing_ok=True)
        config.pluginmanager.register(Keeper(Path(path).absolute(), config), "kept_run_keeper")
