"""Runs in the page's folder: found by their files, whoever started them, and what those files say now."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from riyaz import events
from riyaz.events import EVENTS, ArmDone, Begun, Ended, Estimate, Note, Phase, Progress
from riyaz.json_files import parse_json
from riyaz.results import (
    COMPARE,
    LEARNED,
    LIMITS,
    RUN,
    TERNARIZE,
    Comparison,
    Limits,
    PretrainRun,
    TernarizeRun,
    arm_name,
)
from riyaz.serve.page.place import UPLOADS
from riyaz.system import PLAIN_FILE, lives, try_lock

State = Literal["planned", "running", "done", "cut", "failed", "stopped", "unreadable"]  # cut: its process was killed
SETTINGS, ARMS, LOCK = "settings.json", "arms", ".lock"
KEPT = "kept"  # the part of an arm whose artifact is the arm's
KINDS = {SETTINGS: "compare", RUN: "pretrain", TERNARIZE: "ternarize", LIMITS: "limits"}  # by the file that marks them
RESULTS: dict[str, tuple[str, type[Comparison | PretrainRun | TernarizeRun | Limits]]] = {
    "compare": (COMPARE, Comparison), "pretrain": (RUN, PretrainRun), "ternarize": (TERNARIZE, TernarizeRun),
    "limits": (LIMITS, Limits),
}  # fmt: skip
SKIPPED = (ARMS, UPLOADS, "checkpoints", "node_modules", "work")
DEEPEST, MOST_FOLDERS, MOST_RUNS = 4, 2000, 200
LATEST = 8 * 2**20  # bytes at the end of a run's events that are read
Document = Comparison | PretrainRun | TernarizeRun | Limits | None


@dataclass(frozen=True)
class Run:
    """A run's folder, and what its latest command did."""

    path: Path
    kind: str
    begun: Begun | None = None
    ended: Ended | None = None  # None: it runs, or was killed
    started: float | None = None  # seconds since 1970

    @classmethod
    def of(cls, path: Path) -> "Run | None":
        """The run in a folder; None where there is none."""
        kind = next((kind for name, kind in KINDS.items() if (path / name).is_file()), None)
        if kind is None and not (path / EVENTS).is_file():
            return None
        begun = ended = started = None
        for line in read_events(path):
            if '"begun"' not in line and '"ended"' not in line:  # of the many others none is parsed
                continue
            event = events.from_json(line)
            if isinstance(event, Begun):
                begun, ended, started = event, None, _time(line)
            elif isinstance(event, Ended):
                ended = event
        if kind is None and (begun is None or not begun.command.startswith("riyaz limits ")):
            return None
        return cls(path, kind or "limits", begun, ended, started)  # whose only other file comes at its end

    @property
    def running(self) -> bool:
        """Whether its process lives and holds the folder's lock."""
        return self.begun is not None and self.ended is None and _lives(self.begun.process) and _held(self.path / LOCK)

    def state(self, done: bool) -> State:
        """What the run is at; `done`: its result is there."""
        if self.running:
            return "running"
        if done:
            return "done"
        if self.ended is not None:
            return self.ended.status
        if self.begun is None and self.kind == "compare" and not (self.path / ARMS).exists():
            return "planned"
        return "cut"


def find_runs(folder: Path) -> Iterator[Run]:
    """The runs below a folder; none within another one, behind a link or in a hidden folder."""
    left = MOST_FOLDERS
    for path, folders, _ in os.walk(folder):
        place = Path(path)
        run = Run.of(place)
        left -= 1
        if run is not None:
            yield run
        if run is not None or len(place.relative_to(folder).parts) >= DEEPEST or left <= 0:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)


def document_of(run: Run) -> Document:
    """The result file of a run; None where there is none yet. Raises RiyazError for one that cannot be read."""
    name, kind = RESULTS[run.kind]
    path = run.path / name
    return kind.read(path) if path.is_file() else None


def recorded_arms(run: Run) -> list[str]:
    """The arms of a comparison that have recorded what they learned, by name."""
    return sorted(path.parts[-3] for path in (run.path / ARMS).glob(f"*/{KEPT}/{LEARNED}") if path.is_file())


def is_done(document: Document) -> bool:
    """Whether a result file says that the run is finished."""
    return document is not None and getattr(document, "status", "done") == "done"


def read_events(path: Path) -> Iterator[str]:
    """The lines of a run's events, the oldest first; of very many the latest."""
    with contextlib.suppress(OSError), open(path / EVENTS, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > LATEST:
            file.seek(size - LATEST)
            file.readline()  # the rest of a line
        for line in file:
            yield line.decode("utf-8", "replace")


def progress_of(path: Path) -> dict[str, Any]:
    """What the events of a run's latest command add up to: an entry for each arm, notes, and the estimate."""
    arms: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    estimate: Estimate | None = None
    for line in read_events(path):
        event = events.from_json(line)
        if isinstance(event, Begun):
            arms, notes = {name: {"row": arm["row"]} for name, arm in arms.items() if "row" in arm}, []
        elif isinstance(event, Phase):
            arms.setdefault(event.method, {}).update(phase=event.phase, detail=event.detail, done=None, total=None)
        elif isinstance(event, Progress):
            latest = {"done": event.done, "total": event.total, "unit": event.unit, "extra": event.extra}
            latest |= {"phase": event.phase, "seconds_left": event.seconds_left}
            arms.setdefault(event.method, {}).update(latest, **({"loss": event.loss} if event.loss is not None else {}))
        elif isinstance(event, ArmDone):
            name = arm_name(str(event.arm.get("method")), event.arm.get("base"))
            arms.setdefault(name, {}).update(row=event.arm, phase="done", seconds_left=0)
        elif isinstance(event, Note):
            notes.append(event.text)
        elif isinstance(event, Estimate):
            estimate = event
            for planned in event.arms:
                arms.setdefault(planned.method, {}).update(planned_seconds=planned.seconds)
    return {"arms": [{"method": name, **arm} for name, arm in arms.items()], "notes": notes, "estimate": estimate}


def _time(line: str) -> float | None:
    """The time that `events.recorded` adds to a line."""
    time = parse_json(line.encode(), EVENTS).get("time")
    return time if isinstance(time, float | int) else None


def _lives(process: int) -> bool:
    return process > 0 and lives(process)


def _held(path: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | PLAIN_FILE)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
