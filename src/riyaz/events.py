"""Progress events of a running command: small dataclasses, each one JSON line that another process or a page can read.

    {"event": "progress", "version": 1, "phase": "train", "done": 40, "total": 120, "method": "lora", ...}

A command calls the function `listen` with every event; the listener prints it, writes it to a pipe or ignores it. A run
also keeps its events in its folder (`recorded`), where the page follows them.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from riyaz.errors import RiyazError
from riyaz.json_files import from_json as read
from riyaz.json_files import parse_json
from riyaz.json_files import to_json as write
from riyaz.system import PLAIN_FILE

VERSION = 1  # of the lines; a reader ignores lines of another version
EVENTS = "events.jsonl"  # in the folder of a run
EVERY = 0.5  # seconds between two lines about the progress of one phase


@dataclass(frozen=True)
class Phase:
    """An arm (`method`) or the command itself begins a phase such as "fit" or "measure"."""

    phase: str
    detail: str = ""
    method: str = ""
    memory_mb: float | None = None  # the peak so far of the arm's process


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of a phase; in training also the loss, the seconds left and the step's metrics."""

    phase: str
    done: float
    total: float
    method: str = ""
    unit: str = ""  # of `done` and `total`
    loss: float | None = None
    seconds_left: float | None = None
    extra: str = ""  # further numbers, as text
    metrics: dict[str, Any] | None = None
    memory_mb: float | None = None  # the peak so far of the arm's process


@dataclass(frozen=True)
class Note:
    """One sentence for the user."""

    text: str


@dataclass(frozen=True)
class Planned:
    """Planned seconds of one arm."""

    method: str
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """Time, peak memory and disk space that the whole command will need, reported before the long work starts."""

    seconds: float
    peak_rss_mb: float
    disk_mb: float
    arms: tuple[Planned, ...] = ()


@dataclass(frozen=True)
class ArmDone:
    """An arm is finished; `arm` is its row of compare.json."""

    arm: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The work cannot go on; `reason` is one line for the user."""

    reason: str


@dataclass(frozen=True)
class Done:
    """The command is finished; `document` is the content of its result file, such as compare.json."""

    document: dict[str, Any]


@dataclass(frozen=True)
class Begun:
    """A command begins or goes on with a run, in this process."""

    command: str
    process: int


@dataclass(frozen=True)
class Ended:
    """The command of the latest `Begun` ends; where there is none, its process was killed, or still runs."""

    status: Literal["done", "stopped", "failed"]
    reason: str = ""


Event = Phase | Progress | Note | Estimate | ArmDone | Failed | Done | Begun | Ended
Listen = Callable[[Event], None]

KINDS: dict[str, type[Event]] = {
    "phase": Phase, "progress": Progress, "note": Note, "estimate": Estimate, "arm": ArmDone, "failed": Failed,
    "done": Done, "begun": Begun, "ended": Ended,
}  # fmt: skip
NAMES = {kind: name for name, kind in KINDS.items()}


def quiet(event: Event) -> None:
    """A listener that ignores every event."""


def both(first: Listen, second: Listen) -> Listen:
    """A listener that calls two."""

    def listen(event: Event) -> None:
        first(event)
        second(event)

    return listen


def about(method: str, listen: Listen) -> Listen:
    """A listener that sets the method's name in Phase and Progress events and forwards every event to `listen`."""
    return lambda event: listen(replace(event, method=method) if isinstance(event, Phase | Progress) else event)


@contextlib.contextmanager
def recorded(path: Path, command: str, listen: Listen) -> Iterator[Listen]:
    """A listener that forwards every event and appends it to a file, with its time. Of a phase's progress there is a
    line every EVERY seconds, and one for each validation; `Done` is the run's result file, and left out. A disk that is
    full ends the record, not the run, which will say so itself."""
    latest: dict[tuple[str, str], float] = {}

    def keep(event: Event) -> None:
        if isinstance(event, Done) or (isinstance(event, Progress) and _is_soon(event, latest)):
            return
        with contextlib.suppress(OSError):
            file.write(to_json(event, time=round(time.time(), 3)).encode() + b"\n")

    with _appending(path) as file:
        keep(Begun(command, os.getpid()))
        try:
            yield both(keep, listen)
        except KeyboardInterrupt:
            keep(Ended("stopped"))
            raise
        except BaseException as error:
            keep(Ended("failed", " ".join(str(error).split())))
            raise
        keep(Ended("done"))


def _is_soon(event: Progress, latest: dict[tuple[str, str], float]) -> bool:
    """Whether there was a line about this phase just before, and this one says nothing of its own."""
    phase, now = (event.method, event.phase), time.monotonic()
    telling = event.done >= event.total or "valid_loss" in (event.metrics or {})
    if not telling and now - latest.get(phase, -EVERY) < EVERY:
        return True
    latest[phase] = now
    return False


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[IO[bytes]]:
    """The file, unbuffered, after a line that a killed process began; the null device where it cannot be written."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | PLAIN_FILE, 0o666)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    with os.fdopen(descriptor, "ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            size = os.fstat(descriptor).st_size
            if size and os.lseek(descriptor, -1, os.SEEK_END) >= 0 and os.read(descriptor, 1) != b"\n":
                file.write(b"\n")
        yield file


def to_json(event: Event, **more: float) -> str:
    """The event as one line of ASCII JSON, without a line end; `more` are further keys, which readers may ignore."""
    return write({"event": NAMES[type(event)], "version": VERSION, **more, **asdict(event)}, ascii=True)


def from_json(line: str) -> Event | None:
    """The event of a line; None for a line of another version or that is no event. Unknown keys are ignored."""
    try:
        document = parse_json(line.encode("utf-8", "replace"), "event")
        if not isinstance(document, dict) or document.pop("version", None) != VERSION:
            return None
        kind = KINDS[document.pop("event", "")]
        event: Event = read(kind, document, "event", unknown=True)
        return event
    except (RiyazError, KeyError, TypeError):
        return None
