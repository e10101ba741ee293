"""What only some systems have is asked for in `riyaz.system`; the modules that still ask themselves are listed here."""

import ast
import re
from pathlib import Path

import pytest
from house_rules import ROOT, modules, tree_of

HOME = "riyaz.system"
PACKAGES = {"fcntl", "resource", "pwd", "grp", "termios", "ctypes", "winreg", "msvcrt"}
OF_OS = {
    *("fork", "forkpty", "setsid", "setpgid", "killpg", "kill", "waitpid", "geteuid", "getegid", "getuid", "getgid"),
    *("sched_getaffinity", "sched_setaffinity", "sched_yield", "pread", "pwrite", "sysconf", "statvfs", "getloadavg"),
    *("register_at_fork", "mkfifo", "O_NOFOLLOW", "O_CLOEXEC", "O_DIRECTORY", "O_BINARY", "startfile"),
}
OF_SIGNAL = {"SIGKILL", "SIGHUP", "SIGXCPU", "SIGPIPE", "SIGALRM", "SIGUSR1", "SIGCHLD", "setitimer"}
OF = {"os": OF_OS, "signal": OF_SIGNAL}
STARTS = {"start_new_session", "preexec_fn", "process_group"}  # arguments of subprocess
FOLDERS = ("/proc", "/sys/", "proc/", "sys/fs")
# Most modules hold none of them in any form, and are not parsed.
SPOKEN = re.compile("|".join(map(re.escape, sorted(PACKAGES | OF_OS | OF_SIGNAL | STARTS | {*FOLDERS}))))
# Only ever take names away from this list.
STILL = {
    "riyaz.cli.signals": {"SIGHUP"},  # where there is one
    "riyaz.hardware": {"proc/", "sys/fs"},  # a file that is missing reads as empty
    "riyaz.layers.fast.threads": {"/proc"},  # the same
    "riyaz.metrics.code_worker": {  # a process that runs on Linux only
        *("fcntl", "resource", "fork", "kill", "waitpid", "SIGKILL", "SIGXCPU"),
    },
    "riyaz.metrics.namespaces": {"ctypes", "geteuid", "getegid", "statvfs", "/proc"},  # the same
    "riyaz.serve.page.starting": {"kill", "start_new_session"},  # Windows ends a process with it, and ignores the other
}


def asked(path: Path) -> set[str]:
    """The names of a module's code that only some systems have: packages, members of os and signal, folders."""
    if not SPOKEN.search(path.read_text(encoding="utf-8")):
        return set()
    tree = tree_of(path)
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names} & PACKAGES
        elif isinstance(node, ast.ImportFrom):
            imported = {alias.name for alias in node.names}
            names |= {(node.module or "").partition(".")[0]} & PACKAGES
            names |= imported & {"riyaz.system": PACKAGES, "os": OF_OS, "signal": OF_SIGNAL}.get(
                node.module or "", set()
            )
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names |= {node.attr} & OF.get(node.value.id, set())
        elif isinstance(node, ast.keyword):
            names |= {str(node.arg)} & STARTS
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            names |= {node.value} & (OF_OS | OF_SIGNAL)  # of getattr and hasattr
            names |= {folder for folder in FOLDERS if node.value.startswith(folder)}
    return names


def test_no_other_module_asks_for_what_only_some_systems_have() -> None:
    names = {module: asked(path) for module, path in modules(ROOT / "src").items() if module != HOME}
    assert {module: each for module, each in names.items() if each} == STILL, "move it to src/riyaz/system.py"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import fcntl", "fcntl"),
        ("from ctypes import CDLL", "ctypes"),
        ("from riyaz.system import resource", "resource"),
        ("import os\nos.fork()", "fork"),
        ("from os import setsid", "setsid"),
        ("import os\nflag = getattr(os, 'O_NOFOLLOW', 0)", "O_NOFOLLOW"),
        ("import signal\nprint(signal.SIGKILL)", "SIGKILL"),
        ("start(preexec_fn=print)", "preexec_fn"),
        ("text = open('/proc/meminfo').read()", "/proc"),
        ("text = open(root / f'proc/{number}/stat').read()", "proc/"),
    ],
)
def test_each_name_is_seen(tmp_path: Path, code: str, name: str) -> None:
    (tmp_path / "module.py").write_text(code + "\n")
    assert asked(tmp_path / "module.py") == {name}


@pytest.mark.parametrize(
    "code", ['"""Of /proc."""', "import os\nos.getpid()", "from riyaz.system import user", "a = 'process'"]
)
def test_what_every_system_has_is_not(tmp_path: Path, code: str) -> None:
    (tmp_path / "module.py").write_text(code + "\n")
    assert asked(tmp_path / "module.py") == set()
