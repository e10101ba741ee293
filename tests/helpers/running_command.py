"""A `riyaz` command in a process of its own, which a test can stop or kill anywhere."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from waiting import HANG, until

# `riyaz` with short recipes that says every bit of progress, so that a test can stop it anywhere
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a script starts behind itself
sys.path.insert(0, {helpers!r})
import tiny_comparison
import pytest
from riyaz.cli.main import main
from riyaz.report.comparison import terminal
tiny_comparison.shorten_recipes(pytest.MonkeyPatch())
terminal.LINE_SECONDS = 0
sys.exit(main())
"""


class Running:
    """A `riyaz` command in a process group of its own."""

    def __init__(self, arguments: tuple, **environment: str) -> None:
        program = PROGRAM.format(helpers=str(Path(__file__).parent))
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        self.lines: list[str] = []
        self.watchdog = threading.Timer(HANG, self.process.kill)
        self.watchdog.start()

    def until(self, *words: str) -> None:
        """Read what it says until a line has all the words."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if all(word in line for word in words):
                return
        raise AssertionError(f"never said {words}: {self.lines}")

    def end(self) -> int:
        """Read the rest; the exit status."""
        assert self.process.stderr is not None
        self.lines += [line.rstrip() for line in self.process.stderr]
        self.watchdog.cancel()
        return self.process.wait()


def alive(folder: Path) -> list[str]:
    """Workers that have this folder on their command line."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "command="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if "riyaz.comparison.worker" in line and str(folder) in line]


def wait_until(holds: Callable[[], bool], seconds: float = HANG) -> None:
    """Until it holds."""
    until(holds, "what the test waits for")
