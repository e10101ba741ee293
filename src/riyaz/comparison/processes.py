"""One piece of work in a process of its own: its peak memory is its own, and so is its crash.

The child writes JSON lines to stdout, which become events; what it says otherwise goes to `log.txt`.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from riyaz.errors import RiyazError
from riyaz.events import Failed, Listen, from_json

PARENT = "RIYAZ_PARENT"  # tells a child whose it is: it may start after that one has ended
PATIENCE = 5  # seconds between asking a child to end and ending it


def run(arguments: list[str], log: Path, listen: Listen) -> str:
    """Run `python -m riyaz.comparison.worker ARGUMENTS…`; "" when it went well, else the reason in one line."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "riyaz.comparison.worker", *arguments]
    reason = ""
    with log.open("a") as errors, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True,
        env={**os.environ, PARENT: str(os.getpid())},
    ) as child:  # fmt: skip
        try:
            assert child.stdout is not None
            for line in child.stdout:
                event = from_json(line)  # None for something a library printed
                if isinstance(event, Failed):
                    reason = event.reason
                elif event is not None:
                    listen(event)
            child.wait()
        except BaseException:  # Ctrl-C reaches the child as well; never leave one behind
            child.terminate()
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
    if child.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    return "" if child.returncode == 0 else reason or _why(child.returncode, log)


def run_or_raise(arguments: list[str], log: Path, listen: Listen) -> None:
    """Run work that everything else depends on. Raises RiyazError with its reason."""
    reason = run(arguments, log, listen)
    if reason:
        raise RiyazError(reason)


def _why(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        return "killed by the system, most often for want of memory"
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}; see {log}"
    return f"ended with exit code {code}; see {log}"
