"""`riyaz ui` in a process of its own, which a test kills and starts again on the same port, and runs to be killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from waiting import until

from riyaz.events import EVENTS

ROOT = Path(__file__).parents[2]


class Server:
    """The page of a folder; `mounted` bytes: the folder is a disk of that size, which only the server sees. The store
    of models is `home`, or an empty one."""

    def __init__(self, folder: Path, *options: str, mounted: int = 0, home: Path | None = None) -> None:
        self.folder = folder
        self.home = home or folder / ".home"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "riyaz.cli.main",
            "ui",
            ".",
            "--port",
            str(self.port),
            "--no-browser",
            *options,
        ]
        mount = f'mount -t tmpfs -o size={mounted} page "$0" && cd "$0" && exec "$@"'
        disk = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]
        self.command = [*disk, *command] if mounted else command
        self.start()

    def start(self) -> None:
        """Start it, with a new token, and wait for its link."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RIYAZ_HOME": str(self.home)}
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        self.link = self.process.stdout.readline().strip()
        self.url, _, self.token = self.link.partition("/#token=")
        assert self.token, "the server did not start"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it, or stop it for a while, without a word."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for path in self.folder.glob(f"runs/*/{EVENTS}"):
            kill_run(path.parent)


def kill_run(folder: Path) -> None:
    """Kill the process of a run and wait for its end."""
    begun = [event for event in events_of(folder) if event["event"] == "begun"]
    process = int(begun[-1]["process"])

    def ended() -> bool:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            return True
        return _is_zombie(process)

    until(ended, "the end of the run's process")


def _is_zombie(process: int) -> bool:
    """Whether only its parent has not heard of its end yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def events_of(folder: Path) -> list[dict]:
    """The whole lines of a run's events."""
    return [json.loads(line) for line in (folder / EVENTS).read_text().splitlines() if line.endswith("}")]
