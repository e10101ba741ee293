"""A run for the tests of the page: a command that trains nothing, but writes, is stopped and is killed like one."""

import json
import os
import sys
import time
from pathlib import Path

from riyaz import events, folders
from riyaz.events import EVENTS, Note, Progress
from riyaz.json_files import write_json

RUN = Path(__file__)


def pretend(out: Path, command: str, steps: int = 2000) -> None:
    """Lock a folder, mark it as a run, and tell of a step every 20 ms until a signal comes."""
    with folders.locked(out, lambda _: True, lambda: True):
        write_json(out / "settings.json", {"settings": {"seed": 1}})
        (out / "arms").mkdir(exist_ok=True)
        with events.recorded(out / EVENTS, command, events.quiet) as listen:
            listen(Note("it runs"))
            for step in range(1, steps + 1):
                listen(Progress("train", step, steps, "lora", metrics={"step": step, "valid_loss": 1 / step}))
                time.sleep(0.02)


def lines(path: Path) -> list[dict]:
    """The lines of a run's events."""
    return [json.loads(line) for line in (path / EVENTS).read_text().splitlines()]


if __name__ == "__main__":
    from riyaz.cli import signals

    words = sys.argv[1:]
    time.sleep(float(os.environ.get("PAGE_RUNS_WAIT", "0")))  # as a command that reads its data
    if "refuse" in " ".join(words):
        sys.exit("error: rows.jsonl:1: has no answer; name the column")
    with signals.heard():
        pretend(Path(words[words.index("--out") + 1]), f"riyaz {' '.join(words)}")
