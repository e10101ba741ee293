"""Pretends that a process runs on Windows or macOS: what only Linux has is taken away, then riyaz' modules are imported
or commands are run.

    python tests/helpers/elsewhere.py '[["win32", "imports", []], ["darwin", "commands", [["models"], ["doctor"]]]]'

Python's own modules and other packages are imported before, once: they choose by the real system how they work. Each of
the jobs has a fork of this process, and prints one line of JSON: its exit status and what each command has printed, or
the modules that cannot be imported. Commands run one after the other until one fails.
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

import pytest

PACKAGES = (
    *("rich.console", "cyclopts", "numpy", "scipy.stats", "scipy.optimize", "torch", "torch.distributed"),
    "matplotlib.font_manager",  # which finds the fonts when it is imported
    *("uvicorn", "starlette.testclient", "sacrebleu", "bm25s", "pyarrow", "openpyxl", "huggingface_hub", "llguidance"),
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


def import_all() -> tuple[int, list[str]]:
    """Import every module of riyaz; returns how many cannot be imported, and why."""
    import riyaz

    failed = []
    for module in pkgutil.walk_packages(riyaz.__path__, "riyaz."):
        if module.name in CHILDREN or module.name.endswith(("__main__", "._native")):
            continue
        try:
            importlib.import_module(module.name)
        except Exception:
            failed.append(f"{module.name} {traceback.format_exc(limit=-1)}")
    return len(failed), failed


def run_all(lines: list[list[str]]) -> tuple[int, list[str]]:
    """Run commands until one fails; returns the last one's exit status, and what each has printed."""
    import tiny_comparison

    from riyaz import extras
    from riyaz.cli.main import main as riyaz

    tiny_comparison.workers_inside(pytest.MonkeyPatch())  # a process would see Linux whole
    extras._tried = lambda name: ""  # type: ignore[assignment]  # `doctor` need not start a process: all are imported
    printed, status = [], 0
    for words in lines:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = riyaz(words)
        printed.append(out.getvalue())
        if status:
            break
    return status, printed


def main(jobs: str) -> int:
    """Do each job on its pretended platform; returns 0 if every fork has come to its end."""
    for package in PACKAGES:
        importlib.import_module(package)
    importlib.import_module("threadpoolctl").ThreadpoolController._load_libraries = lambda self: None
    for platform, what, lines in json.loads(jobs):
        child = os.fork()
        if not child:
            try:
                pretend(platform)
                print(json.dumps(import_all() if what == "imports" else run_all(lines)), flush=True)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
