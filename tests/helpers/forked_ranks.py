"""Processes of one command as torchrun starts them, forked from one that has imported torch, so that each begins in no
time: for tests that start many. Those of `started_ranks` are Pythons of their own."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from threading import Thread
from typing import TextIO
from unittest.mock import patch

from started_ranks import of_all_ranks

from riyaz.joining import LOG_LEVEL
from riyaz.ranks import environment

CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = ("pytest", "rank_worker", "tiny_pretraining", "riyaz.cli.pretrain", "riyaz.export.check", "riyaz.export.hf",
            "riyaz.models.fresh", "riyaz.pretraining.following", "riyaz.pretraining.recording",
            "riyaz.pretraining.watch")  # fmt: skip


class Forked:
    """A process that runs `code` as `python -c CODE ARGUMENTS…`; what `subprocess.Popen` has and tests use."""

    def __init__(self, code: str, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        (out, says), (err, complains) = CONTEXT.Pipe(duplex=False), CONTEXT.Pipe(duplex=False)
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
        given = (code, arguments, dict(variables), os.getcwd(), cores, says, complains)
        self.process = CONTEXT.Process(target=_run, args=given)
        self.process.start()
        self.stderr, self._stdout, self._out = _text(err), _text(out), list[str]()
        says.close()
        complains.close()
        self._reader = Thread(target=lambda: self._out.append(self._stdout.read()), daemon=True)
        self._reader.start()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """The rest of both streams, at the end of the process."""
        errors = self.stderr.read()
        self._reader.join(timeout)
        self.process.join(timeout)
        assert self.process.exitcode is not None, errors
        return "".join(self._out), errors


def fork_ranks(
    count: int, code: str, arguments: Sequence[object], own: Mapping[int, Sequence[object]] | None = None
) -> list[Forked]:
    """As `started_ranks.start_ranks` starts `python -c CODE ARGUMENTS…`."""
    own = dict.fromkeys(range(count), ()) if own is None else own
    told = of_all_ranks(count)
    known = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", LOG_LEVEL: "FATAL"}
    CONTEXT.set_forkserver_preload([*IMPORTED])
    with patch.dict(os.environ, known):  # of the process that all are forked from
        return [
            Forked(code, [*map(str, (*arguments, *more))],
                   environment() | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank, more in own.items()
        ]  # fmt: skip


def _text(end: Connection) -> TextIO:
    """The reading end of a pipe."""
    with end:
        return os.fdopen(os.dup(end.fileno()), "r", encoding="utf-8")


def _run(
    code: str, arguments: list[str], variables: dict[str, str], folder: str, cores: set[int], says: Connection,
    complains: Connection,
) -> None:  # fmt: skip
    """What the process does: its streams are the pipes, its variables, folder and cores the test's."""
    for number, end in ((1, says), (2, complains)):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", buffering=1, encoding="utf-8")
    os.chdir(folder)
    if cores:
        os.sched_setaffinity(0, cores)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["-c", *arguments]
    status = 1
    try:
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
