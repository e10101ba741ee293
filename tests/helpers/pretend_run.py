"""A run for the tests of the page: a command that trains nothing, but writes, is stopped and is killed like one."""

import itertools
import json
import os
import sys
from pathlib import Path

from waiting import until

from riyaz import events, folders
from riyaz.events import EVENTS, Note, Progress
from riyaz.json_files import write_json

RUN = Path(__file__)


def pretend(out: Path, command: str) -> None:
    """Lock a folder, mark it as a run, and tell of step after step until a signal comes, or who started it ends."""
    steps, parent = itertools.count(1), os.getppid()
    with folders.locked(out, lambda _: True, lambda: True):
        write_json(out / "settings.json", {"settings": {"seed": 1}})
        (out / "arms").mkdir(exist_ok=True)
        with events.recorded(out / EVENTS, command, events.quiet) as listen:
            listen(Note("it runs"))

            def told() -> bool:
                step = next(steps)
                listen(Progress("train", step, 10**6, "lora", metrics={"step": step, "valid_loss": 1 / step}))
                return os.getppid() != parent

            until(told, "a signal")


def lines(path: Path) -> list[dict]:
    """The lines of a run's events."""
    return [json.loads(line) for line in (path / EVENTS).read_text().splitlines()]


if __name__ == "__main__":
    from riyaz.cli import signals

    words = sys.argv[1:]
    if go := os.environ.get("PAGE_RUNS_GO"):  # a file; until it is there the command reads its data
        until(Path(go).exists, "the test lets it go on")
    if "refuse" in " ".join(words):
        sys.exit("error: rows.jsonl:1: has no answer; name the column")
    with signals.heard():
        pretend(Path(words[words.index("--out") + 1]), f"riyaz {' '.join(words)}")
