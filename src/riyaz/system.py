"""What only some operating systems have: locks of files, signals to processes, limits of resources, network interfaces.

On Linux each function calls the system directly. Elsewhere it gives the answer that is written in its docstring.
"""

import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

fcntl: Any
resource: Any
try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None
try:
    import resource
except ImportError:  # on Windows
    resource = None

ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR
KILLED = -getattr(signal, "SIGKILL", 0) or None  # return code of a process that the system has killed; None: not known
CPU_LIMIT_REACHED = -getattr(signal, "SIGXCPU", 0) or None  # that of a process that reached its limit of CPU time
# Flags of os.open: no link is followed, and Windows writes the bytes as they are. Windows has no O_NOFOLLOW.
PLAIN_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
OPENS_FOLDERS = sys.platform != "win32"  # to lock or to sync them


def try_lock(handle: IO[Any] | int, wait: bool = False) -> bool:
    """Take the lock of an open file or folder, if `wait` when another process has given it up; False when another
    process has it. The lock ends with the process. True without a lock where the system has none (Windows)."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def lives(process: int) -> bool:
    """Whether there is a process of this number, or may be; True on Windows, where asking would end it."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        pass
    return True


def user() -> int | None:
    """The number of the user that this process works for; None on Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else None


def open_folder(folder: Path, follow: bool = False) -> int | None:
    """An open descriptor of a folder, to lock or to sync it; None on Windows, which opens no folder. Raises OSError,
    also for a link unless it is to `follow` it."""
    if not OPENS_FOLDERS:
        return None
    return os.open(folder, os.O_RDONLY | (0 if follow else PLAIN_FILE))


def usable_cores() -> int:
    """Cores that this process is allowed to run on (its CPU affinity); all cores where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def since_boot(ticks: int) -> float | None:
    """Seconds from a time that Linux gives in ticks after its start until now; None where no clock tells."""
    if not hasattr(time, "CLOCK_BOOTTIME") or not hasattr(os, "sysconf"):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def in_forks(function: Callable[[], None]) -> None:
    """Call a function in every process that is forked from this one; does nothing where no process forks (Windows)."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def limit(name: str) -> tuple[float, float]:
    """The limit of a resource such as "NOFILE" and the most that it may be raised to; infinity: none, or not known."""
    number = getattr(resource, f"RLIMIT_{name}", None)
    if number is None:
        return float("inf"), float("inf")
    soft, hard = resource.getrlimit(number)
    none = resource.RLIM_INFINITY
    return float("inf") if soft == none else soft, float("inf") if hard == none else hard


def set_limit(name: str, soft: float, hard: float) -> None:
    """Set the limit of a resource; does nothing where the system has no such limit. Raises ValueError and OSError."""
    number = getattr(resource, f"RLIMIT_{name}", None)
    if number is not None:
        none = resource.RLIM_INFINITY
        resource.setrlimit(number, tuple(none if each == float("inf") else int(each) for each in (soft, hard)))


def most_memory() -> int:
    """Peak resident memory of this process in bytes, as getrusage reports it; 0 where there is none (Windows)."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def c_function(name: str) -> Any:
    """A function of the C library that this process runs with; None where it has none of this name, or on Windows."""
    if sys.platform == "win32":
        return None
    import ctypes  # 10 ms, which no command should take to start

    return getattr(ctypes.CDLL(None), name, None)


def address_of(socket: int, interface: str) -> bytes:
    """The four bytes of an interface's address, asked through an open socket. Raises OSError where it has none, and
    where the system does not tell."""
    if fcntl is None:
        raise OSError(f"{sys.platform} does not tell the address of an interface")
    answer: bytes = fcntl.ioctl(socket, ADDRESS_OF_INTERFACE, struct.pack("256s", interface.encode()[:15]))
    return answer[20:24]
