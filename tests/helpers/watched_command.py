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


def _watched(folder: Path, script: list[str], stdin: str, environment: dict[str, str]) -> Watched:
    hook, logs = folder / "hook", {name: folder / f"{name}.log" for name in ("network", "torch")}
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(HOOK)
    for log in logs.values():
        log.write_text("")
    known = os.environ | OFFLINE | {
        "PYTHONPATH": os.pathsep.join([str(hook), *filter(None, sys.path)]), "NETWORK_LOG": str(logs["network"]),
        "TORCH_LOG": str(logs["torch"]),
    } | environment  # fmt: skip
    command = [sys.executable, "-c", *script]
    done = subprocess.run(command, cwd=folder, input=stdin, env=known, capture_output=True, text=True, timeout=600)
    lines = {name: log.read_text().splitlines() for name, log in logs.items()}
    return Watched(done.returncode, done.stderr, **lines)
