"""Runs one piece of work in a child process, so that its peak memory is measured alone and a crash ends only it.

The child's stdout is JSON lines, which become events; its stderr goes to a log file.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from riyaz import folders, hardware, ranks
from riyaz.errors import RiyazError
from riyaz.events import Failed, Listen, from_json
from riyaz.system import KILLED

PARENT = "RIYAZ_PARENT"  # environment variable: process id of the parent, which may end before the child starts
PATIENCE = 5  # seconds between terminating a child and killing it
STOPPED = "stopped: it took longer than its limit"
_children: dict[int, "subprocess.Popen[str]"] = {}  # by the thread that waits for it


def run_worker(
    arguments: list[str], log: Path, listen: Listen, threads: int | None = None, limit: float | None = None
) -> str:
    """Run `python -m riyaz.comparison.worker ARGUMENTS…`; returns "" on success, else the reason in one line.

    `threads` is the number of threads the child computes with; None: as this process would. After `limit` seconds the
    child is killed, and the reason is STOPPED; what it writes, it writes whole or not at all.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "riyaz.comparison.worker", *arguments]
    reason = ""
    environment = ranks.environment() | {PARENT: str(os.getpid())}
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    with (
        folders.temporary(log.parent, folders.beside(log)) as scratch,  # a killed torch leaves files in TMPDIR
        log.open("a") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True,
            env=environment | {"TMPDIR": str(scratch.absolute())},
        ) as child,
    ):  # fmt: skip
        late = threading.Event()
        _children[threading.get_ident()] = child

        def stop() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(limit or 0.0, stop)
        if limit is not None:
            timer.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                event = from_json(line)  # None for a line that is not an event, printed by a library
                if isinstance(event, Failed):
                    reason = event.reason
                elif event is not None:
                    listen(event)
            child.wait()
        except BaseException:  # such as Ctrl-C; no child is left running
            child.terminate()
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
            raise
        finally:
            timer.cancel()
            _children.pop(threading.get_ident(), None)
    if late.is_set() and child.returncode:
        return STOPPED
    if child.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    return "" if child.returncode == 0 else reason or _why(child.returncode, log)


def end_worker(thread: int) -> None:
    """End the child that another thread, of this `threading.get_ident()`, waits for, if there is one."""
    child = _children.get(thread)
    if child is not None:
        child.terminate()


def run_or_raise(arguments: list[str], log: Path, listen: Listen, threads: int | None = None) -> None:
    """The same, for work that the comparison needs. Raises RiyazError with the reason."""
    reason = run_worker(arguments, log, listen, threads)
    if reason:
        raise RiyazError(reason, hint=hardware.MORE_MEMORY if reason == hardware.OUT_OF_MEMORY else "")


def _why(code: int, log: Path) -> str:
    if code == KILLED:
        return "killed by the system, most often because memory ran out"
    if code < 0:
        return f"ended by signal {signal.Signals(-code).name}; see {log}"
    return f"ended with exit code {code}; see {log}"
