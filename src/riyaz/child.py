"""A child process that answers one line of JSON with another, and which can be killed at a time limit.

What it works on comes from a stranger or a model, so it may die or not answer in time. The next question starts a
fresh one.
"""

import atexit
import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from riyaz.errors import RiyazError
from riyaz.system import CPU_LIMIT_REACHED, in_forks

SECONDS_TO_START = 60.0
CHUNK = 1 << 16
Command = Callable[[], tuple[list[str], dict[str, str]]]  # arguments and environment


class Ended(Exception):
    """The process ended without an answer; `late`: at a limit of wall or CPU time."""

    def __init__(self, late: bool) -> None:
        super().__init__(late)
        self.late = late


class Child:
    """Started on demand, killed at its time limit, not shared with forks of this process. Its first line says that it
    is `ready` or why it `refused`."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.stop)
        in_forks(self._forget)

    @property
    def pid(self) -> int | None:
        """The number of the running process, if one runs."""
        return None if self._process is None else self._process.pid

    def ask(self, request: Mapping[str, object], seconds: float, most: int) -> dict:
        """The answer, of at most `most` bytes, within `seconds` of wall time. Raises Ended where there is none, and
        RiyazError where the process refuses to start."""
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            return self._exchange(self._started(), line, seconds, most)

    def start(self) -> None:
        """Starts the process if none runs. Raises RiyazError with its reason where it refuses."""
        with self._lock:
            self._started()

    def stop(self) -> None:
        """Kills the process and waits for its end."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        arguments, environment = self._command()
        try:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,  # a fork of this process must not inherit half-written data
                env=environment,
            )
        except OSError as error:
            raise RiyazError(f"the process for it failed to start: {error}") from None
        try:
            first = self._exchange(process, b"", SECONDS_TO_START, CHUNK)
        except Ended as ended:
            said = "is not ready in time" if ended.late else "ends at once"
            raise RiyazError(f"the process for it failed to start: it {said}") from None
        if "refused" in first:
            _end(process)
            raise RiyazError(str(first["refused"]))
        self._process = process
        return process

    def _exchange(self, process: "subprocess.Popen[bytes]", line: bytes, seconds: float, most: int) -> dict:
        """Writes `line` and reads a JSON object of one line and at most `most` bytes. Raises Ended, with the process
        killed, where there is none."""
        deadline = time.monotonic() + seconds
        # killing it unblocks a write that it does not read and a read that it does not answer
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.daemon = True
        answer = None
        try:
            watchdog.start()
            answer = _object(_talk(process, line, most))
        finally:
            watchdog.cancel()
            if answer is None:  # dead, late, or Ctrl-C: a late answer must not be taken for the next request's
                self._process = None
                _end(process)
        if answer is None:
            raise Ended(late=time.monotonic() >= deadline or process.returncode == CPU_LIMIT_REACHED)
        return answer

    def _forget(self) -> None:
        """In a forked child: closes the pipes of the process, which belongs to the parent."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            process.returncode = 0  # not this process's child, so it must not wait for it
            _close(process)


def _talk(process: "subprocess.Popen[bytes]", line: bytes, most: int) -> bytes:
    """Writes `line` and reads a line; empty for one that is longer than `most` bytes, or none."""
    assert process.stdin is not None and process.stdout is not None
    answer = bytearray()
    try:
        view = memoryview(line)
        while view:
            view = view[process.stdin.write(view) :]
        while not answer.endswith(b"\n"):
            piece = process.stdout.read(CHUNK)
            if not piece or len(answer) > most:
                return b""
            answer += piece
    except OSError:  # the process ended with its pipe open
        return b""
    return bytes(answer)


def _object(line: bytes) -> dict | None:
    with suppress(ValueError, RecursionError):
        answer = json.loads(line)
        return answer if isinstance(answer, dict) else None
    return None


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    _close(process)


def _close(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
