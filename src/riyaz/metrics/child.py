"""A child process that answers one line of JSON with another, and which can be killed: `sql` and `code` have one each.

What it works on comes from a model, so it may die or not answer in time. The next question starts a fresh one.
"""

import atexit
import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from riyaz.errors import RiyazError

SECONDS_TO_START = 60.0
CHUNK = 1 << 16
Command = Callable[[], tuple[list[str], dict[str, str]]]  # arguments and environment


class Child:
    """Started on demand, killed at its time limit, not shared with forks of this process. Its first line says that it
    is `ready` or why it `refused`."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    @property
    def pid(self) -> int | None:
        """The number of the running process, if one runs."""
        return None if self._process is None else self._process.pid

    def ask(self, request: Mapping[str, object], seconds: float, most: int) -> dict | None:
        """The answer, of at most `most` bytes, within `seconds` of wall time; None where it ends instead or is late.
        Raises RiyazError where it refuses to start."""
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            return _object(self._exchange(self._started(), line, seconds, most))

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
        first = _object(self._exchange(process, b"", SECONDS_TO_START, CHUNK)) or {
            "refused": "its process ends at once"
        }
        if "refused" in first:
            _end(process)
            raise RiyazError(str(first["refused"]))
        self._process = process
        return process

    def _exchange(self, process: "subprocess.Popen[bytes]", line: bytes, seconds: float, most: int) -> bytes:
        """Writes `line` and reads a line of at most `most` bytes; empty, and the process killed, if there is none."""
        # killing it unblocks a write that it does not read and a read that it does not answer
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.daemon = True
        answer = b""
        try:
            watchdog.start()
            answer = _talk(process, line, most)
        finally:
            watchdog.cancel()
            if not answer:  # dead, late, or Ctrl-C: a late answer must not be taken for the next request's
                self._process = None
                _end(process)
        return answer

    def _forget(self) -> None:
        """In a forked child: closes the pipes of the process, which belongs to the parent."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            process.returncode = 0  # not this process's child, so it must not wait for it
            _close(process)


def _talk(process: "subprocess.Popen[bytes]", line: bytes, most: int) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    with suppress(OSError):  # it ended with its pipe open
        view = memoryview(line)
        while view:
            view = view[process.stdin.write(view) :]
        answer = bytearray()
        while not answer.endswith(b"\n"):
            piece = process.stdout.read(CHUNK)
            if not piece or len(answer) > most:
                return b""
            answer += piece
        return bytes(answer)
    return b""


def _object(line: bytes) -> dict | None:
    with suppress(ValueError):
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
