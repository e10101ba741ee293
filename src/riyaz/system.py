"""What only some operating systems have: locks of files, signals to processes, limits of resources, network interfaces.

On Linux each function calls the system directly. Elsewhere it gives the answer that is written in its docstring; where
there is none, `needs_linux` makes the error.
"""

import os
import signal
import struct
import sys
from typing import IO, Any

from riyaz.errors import RiyazError

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
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # flags of os.open that Windows lacks
CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)


def needs_linux(what: str) -> RiyazError:
    """The error of something that no other system has, in one line."""
    return RiyazError(f"{what} needs Linux, and this is {sys.platform}")


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
