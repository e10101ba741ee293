"""A `riyaz` command in a process of its own; each Python that it starts notes uses of the network, and torch."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Read by every Python that starts with it on its path
HOOK = """
import atexit, os, sys

def note_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "socket.sendto"):
        family = getattr(arguments[0], "family", None)
        if family is None or family.name != "AF_UNIX":
            with open(os.environ["NETWORK_LOG"], "a") as file:
                file.write(f"{event} {arguments[1:]} {sys.argv}\\n")

def note_torch():
    if "torch" in sys.modules:
        with open(os.environ["TORCH_LOG"], "a") as log:
            log.write(" ".join(sys.argv[1:]) + "\\n")

sys.addaudithook(note_network)
atexit.register(note_torch)
"""
COMMAND = "import sys; from riyaz.cli.main import main; sys.exit(main())"
COMMANDS = """
import json, sys
from riyaz.cli.main import main
for line in json.loads(sys.argv[1]):
    if status := main(line):
        sys.exit(status)
"""
OFFLINE = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}


@dataclass(frozen=True)
class Watched:
    """What a command did, and a line for each use of the network and each process that had torch at its end."""

    status: int
    err: str
    network: list[str]
    torch: list[str]  # arguments of the process


def watched(folder: Path, *arguments: object, stdin: str = "", **environment: str) -> Watched:
    """One command in `folder`, which is its own; `environment` is set beside this process's."""
    return _watched(folder, [COMMAND, *map(str, arguments)], stdin, environment)


def watched_in_turn(folder: Path, *lines: Sequence[object], **environment: str) -> Watched:
    """The same of several commands, in one process, until one fails."""
    return _watched(folder, [COMMANDS, json.dumps([[*map(str, line)] for line in lines])], "", environment)


def watched_script(folder: Path, script: str, *arguments: str, **environment: str) -> tuple[Watched, str]:
    """A script in place of a command, and what it prints."""
    return _run(folder, [script, *arguments], "", environment)


def hooked(folder: Path) -> dict[str, str]:
    """The variables with which every Python writes its notes into the folder, from an empty beginning."""
    hook = folder / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(HOOK)
    for log in _logs(folder).values():
        log.write_text("")
    variables = {f"{name.upper()}_LOG": str(log) for name, log in _logs(folder).items()}
    return variables | {"PYTHONPATH": os.pathsep.join(filter(None, [str(hook), os.environ.get("PYTHONPATH")]))}


def noted(folder: Path) -> dict[str, list[str]]:
    """The lines of both notes in a folder: "network" and "torch"."""
    return {name: log.read_text().splitlines() for name, log in _logs(folder).items()}


def _logs(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.log" for name in ("network", "torch")}


def _watched(folder: Path, script: list[str], stdin: str, environment: dict[str, str]) -> Watched:
    return _run(folder, script, stdin, environment)[0]


def _run(folder: Path, script: list[str], stdin: str, environment: dict[str, str]) -> tuple[Watched, str]:
    path = {"PYTHONPATH": os.pathsep.join([str(folder / "hook"), *filter(None, sys.path)])}
    known = os.environ | OFFLINE | hooked(folder) | path | environment
    command = [sys.executable, "-c", *script]
    done = subprocess.run(command, cwd=folder, input=stdin, env=known, capture_output=True, text=True, timeout=600)
    return Watched(done.returncode, done.stderr, **noted(folder)), done.stdout
