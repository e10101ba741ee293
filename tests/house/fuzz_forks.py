"""Workers of riyaz for fuzz_readers.py without their start: a process that has imported what they import forks one for
each input, which limits itself and reads as a fresh one does.

A fresh process imports pyarrow for a second before it reads two kilobytes for a millisecond.
"""

import importlib
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

IMPORTS = {
    "riyaz.data.parquet_worker": ("pyarrow", "pyarrow.compute", "pyarrow.parquet", "riyaz.data.arrow_batches"),
    "riyaz.retrieval.pdf_worker": ("pypdfium2",),
}


class Forks:
    """In the place of a module's `subprocess`: `run` of a worker of IMPORTS forks it from the process that is started
    with the first one."""

    TimeoutExpired, DEVNULL, PIPE = subprocess.TimeoutExpired, subprocess.DEVNULL, subprocess.PIPE

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, command: Sequence[str], input: bytes = b"", env: dict[str, str] | None = None, **_: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """What the worker of a command, `python -P -m MODULE ARGUMENT…`, writes to stdout, and its status."""
        module, *arguments = command[command.index("-m") + 1 :]
        if self._process is None:
            paths = os.pathsep.join([os.path.dirname(__file__), (env or {}).get("PYTHONPATH", "")])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fuzz_forks", module], env={**(env or {}), "PYTHONPATH": paths},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None and answers is not None
        for each in ("\0".join(arguments).encode(), input):
            asked.write(len(each).to_bytes(8, "little") + each)
        asked.flush()
        status = int.from_bytes(answers.read(8), "little", signed=True)
        size = int.from_bytes(answers.read(8), "little")
        return subprocess.CompletedProcess(list(command), status, answers.read(size))


def forked(module: Any, arguments: Sequence[str], content: bytes) -> tuple[int, bytes]:
    """(the status of a fork that runs the module's `main` with the content on stdin, what it writes to stdout)."""
    with tempfile.TemporaryFile() as given:
        given.write(content)
        given.seek(0)
        read, write = os.pipe()  # a worker writes no files
        child = os.fork()
        if child == 0:
            os.dup2(given.fileno(), 0)
            os.dup2(write, 1)
            os.closerange(3, 64)
            status = 1
            try:
                sys.argv = ["worker", *arguments]
                sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
                module.main()
                sys.stdout.flush()
                status = 0
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            made = pipe.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), made


def main() -> None:
    """Answers on stdout what comes on stdin, until that ends."""
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}  # as parquet_worker.py says
    for name in IMPORTS[sys.argv[1]]:
        importlib.import_module(name)
    module = importlib.import_module(sys.argv[1])
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := asked.read(8):
        arguments = asked.read(int.from_bytes(head, "little")).decode().split("\0")
        status, made = forked(module, arguments, asked.read(int.from_bytes(asked.read(8), "little")))
        answers.write(status.to_bytes(8, "little", signed=True) + len(made).to_bytes(8, "little") + made)
        answers.flush()


if __name__ == "__main__":
    main()
