"""Child processes that read what a stranger made: how they are started, and the limits that they set themselves.

Only the standard library is imported, so that they start quickly.
"""

import math
import os
import signal
import sys
import time
from pathlib import Path

from riyaz.system import limit, set_limit

# The environment variables a Python process needs; the others are withheld, since they may hold secrets.
ENVIRONMENT = "PATH HOME PYTHONHOME PYTHONUSERBASE LD_LIBRARY_PATH DYLD_LIBRARY_PATH"
ENVIRONMENT += " SYSTEMROOT APPDATA TZ LANG LC_ALL"


def module_command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of a process that runs one of riyaz's modules."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {name: os.environ[name] for name in ENVIRONMENT.split() if name in os.environ}
    # -P keeps the working folder, which may be an untrusted model's, out of the import path
    command = [sys.executable, "-P", "-m", module, *arguments]
    return command, environment | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def confine(memory_mib: int, files: int = 3) -> None:
    """Limits this process to so much memory, no new processes, no reaction to Ctrl-C, nothing written to a file, and
    file descriptors below `files`: with 3 it opens no more files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits = {"AS": memory_mib << 20, "NOFILE": files, "FSIZE": 0, "NPROC": 0, "CORE": 0}
    for name, value in limits.items():
        try:
            set_limit(name, value, value)
        except (ValueError, OSError):  # a stricter limit is set already
            continue


def limit_cpu(seconds: float) -> None:
    """Limits the CPU time from now on: the operating system kills an endless loop even when the parent is gone."""
    hard = limit("CPU")[1]
    set_limit("CPU", min(math.ceil(time.process_time() + seconds), hard), hard)
