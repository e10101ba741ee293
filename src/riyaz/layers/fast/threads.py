"""How torch's threads wait for each other: they spin on a quiet machine and sleep beside other work.

Most of torch's operations are shorter than it takes to wake a thread, so threads that spin between them train up to 1.5
times as fast. Where other processes have the cores, a thread that spins keeps one busy while the thread that it waits
for has none, and training takes several times as long as with threads that sleep.

GNU's OpenMP, which torch's wheels on Linux hold, reads GOMP_SPINCOUNT once, as it is loaded. But while more of its
threads exist than the process has cores, all spin for 100 turns only (libgomp, `gomp_throttled_spin_count_var`).
So this module makes them sleep by threads that do nothing else than to exist, and lets them spin by ending those.
"""

import threading
import time
from pathlib import Path

import torch

from riyaz import hardware

EVERY = 0.25  # seconds between two looks, at least
CROWDED = 0.10  # of the time since the last look the threads waited for a core
QUIET = 0.03
QUIET_LOOKS = 8  # in a row, until the threads spin again
CHUNK = 32_768  # numbers of an elementwise operation that torch gives one thread


class Threads:
    """The waiting of this process's OpenMP threads, settled anew by the time that they stood in the queue of a core. On
    systems that do not tell it, nothing changes."""

    def __init__(self) -> None:
        self.idle: list[tuple[threading.Thread, threading.Event]] = []  # the threads that only exist
        self.seen = (0.0, 0.0)  # clock and seconds in queues at the last look
        self.quiet = 0  # looks in a row at which the machine was quiet

    def tune_waiting(self) -> None:
        """Call often: lets the threads spin or sleep, by what the machine was like since the last look."""
        clock, (before, queued_before) = time.perf_counter(), self.seen
        if clock - before < EVERY:
            return
        queued = seconds_queued()
        self.seen = clock, queued
        if not before:
            return
        share = (queued - queued_before) / (clock - before)
        self.quiet = self.quiet + 1 if share < QUIET else 0
        if share > CROWDED:
            self.sleep()
        elif self.quiet >= QUIET_LOOKS:
            self.spin()

    def sleep(self) -> None:
        """Let waiting threads sleep at once."""
        team, cores = torch.get_num_threads(), hardware.cores()
        if self.idle or team < 2:
            return
        for _ in range(-(-(cores + 1 - team) // (team - 1))):  # each has a team whose other threads count
            made, end = threading.Event(), threading.Event()
            thread = threading.Thread(target=_exist, args=(team, made, end), daemon=True)
            thread.start()
            made.wait()
            self.idle.append((thread, end))

    def spin(self) -> None:
        """Let waiting threads spin."""
        for thread, end in self.idle:
            end.set()
            thread.join()
        self.idle.clear()


def _exist(team: int, made: threading.Event, end: threading.Event) -> None:
    """Make a team of OpenMP threads and keep it until the end."""
    torch.empty(2 * CHUNK * team).fill_(0)
    made.set()
    end.wait()


def seconds_queued(tasks: Path = Path("/proc/self/task")) -> float:
    """Seconds that the threads of this process were ready to run and had no core; 0 where Linux does not tell."""
    total = 0
    for path in tasks.glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
        except (OSError, IndexError):  # the thread has ended
            continue
    return total / 1e9


_threads = Threads()
tune_waiting = _threads.tune_waiting
