"""Processes of one command as torchrun starts them, for tests: each with its rank in the environment."""

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from waiting import HANG

from riyaz.ranks import environment

HELPERS = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """How a process has ended, and what it said."""

    status: int
    out: str
    err: str


class Process(Protocol):
    """What has been started here or in `forked_ranks`."""

    @property
    def returncode(self) -> int | None: ...
    def kill(self) -> None: ...
    def communicate(self, *, timeout: float) -> tuple[str, str]: ...


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def of_all_ranks(count: int) -> dict[str, str]:
    """What torchrun tells every rank on this machine."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}  # fmt: skip


def start_ranks(
    count: int, arguments: Sequence[object], own: Mapping[int, Sequence[object]] | None = None
) -> list[subprocess.Popen[str]]:
    """`python ARGUMENTS…` once for each rank, with one thread. `own`: the ranks that are started, by default all, each
    with its further arguments."""
    own = dict.fromkeys(range(count), ()) if own is None else own
    told = of_all_ranks(count)
    return [
        subprocess.Popen(
            [sys.executable, *map(str, (*arguments, *more))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
            env=environment() | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank, more in own.items()
    ]  # fmt: skip


def ended(processes: Sequence[Process]) -> list[Ended]:
    """Wait for the processes."""
    try:
        texts = [process.communicate(timeout=HANG) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [Ended(process.returncode or 0, *text) for process, text in zip(processes, texts)]
