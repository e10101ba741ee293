"""Pretends that this process runs on Windows or macOS: what only Linux has is taken away, then a function is run.

    python tests/helpers/elsewhere.py win32|darwin imports
    python tests/helpers/elsewhere.py win32|darwin commands '[["models"], ["doctor", "--json"]]'

The commands run one after the other, and the last line is what each has printed, as a list of JSON.

Python's own modules and other packages are imported before: they choose by the real system how they work.
"""

import asyncio  # noqa: F401
import builtins
import contextlib
import ctypes  # noqa: F401
import importlib
import io
import json
import logging.handlers  # noqa: F401
import multiprocessing  # noqa: F401
import os
import pkgutil
import signal
import socket  # noqa: F401
import subprocess
import sys
import tempfile  # noqa: F401
import traceback
from collections.abc import Callable
from typing import Any

PACKAGES = (
    *("rich.console", "cyclopts", "numpy", "scipy.stats", "scipy.optimize", "torch", "torch.distributed"),
    "matplotlib.font_manager",  # which finds the fonts when it is imported
    *("uvicorn", "starlette.testclient", "sacrebleu", "pyarrow", "openpyxl", "huggingface_hub", "llguidance"),
    *("pypdfium2", "docx", "tokenizers"),
)
MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
OF_OS = ("fork", "forkpty", "setsid", "killpg", "geteuid", "getuid", "getgid", "register_at_fork", "sched_getaffinity",
         "sched_setaffinity", "sched_yield", "pread", "O_NOFOLLOW", "O_CLOEXEC", "sysconf", "getloadavg")  # fmt: skip
OF_SIGNAL = ("SIGKILL", "SIGHUP", "SIGXCPU", "SIGPIPE", "SIGALRM", "SIGUSR1", "setitimer")
HIDDEN = ("/proc", "/sys")
CHILDREN = ("riyaz.lm_eval",)  # needs the package lm-eval


def pretend(platform: str) -> None:
    """Take away what this platform has not."""
    subprocess.Popen.kill = lambda self: self.send_signal(9)  # type: ignore[method-assign]
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for owner, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)
    for owner, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "scandir"), (os, "listdir")):
        setattr(owner, name, hiding(getattr(owner, name)))
    if platform == "win32":
        os.open = without_folders(os.open)
    sys.platform = platform


def without_folders(function: Callable[..., int]) -> Callable[..., int]:
    """The function, which opens no folder, as on Windows."""

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if isinstance(path, str | os.PathLike) and os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return function(path, *arguments, **named)

    return opened


def hiding(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, for which there is nothing below /proc and /sys."""

    def hidden(path: Any = ".", *arguments: Any, **named: Any) -> Any:
        if isinstance(path, str | os.PathLike) and str(path).startswith(HIDDEN):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return function(path, *arguments, **named)

    return hidden


def import_all() -> int:
    """Import every module of riyaz; prints each that cannot be imported and returns how many."""
    import riyaz

    failed = 0
    for module in pkgutil.walk_packages(riyaz.__path__, "riyaz."):
        if module.name in CHILDREN or module.name.endswith(("__main__", "._native")):
            continue
        try:
            importlib.import_module(module.name)
        except Exception:
            failed += 1
            print(module.name, traceback.format_exc(limit=-1))
    return failed


def run_all(lines: list[list[str]]) -> int:
    """Run commands until one fails, and print what each has printed; returns the last one's exit status."""
    from riyaz.cli.main import main as riyaz

    printed = []
    for words in lines:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = riyaz(words)
        printed.append(out.getvalue())
        if status:
            break
    print(json.dumps(printed))
    return status


def main(platform: str, what: str, lines: str = "[]") -> int:
    """Run what was asked for on the pretended platform."""
    for package in PACKAGES:
        importlib.import_module(package)
    importlib.import_module("threadpoolctl").ThreadpoolController._load_libraries = lambda self: None
    pretend(platform)
    return import_all() if what == "imports" else run_all(json.loads(lines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
