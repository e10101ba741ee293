"""Progress events of a running command: small dataclasses, each one JSON line that another process or a page can read.

    {"event": "progress", "version": 1, "phase": "train", "done": 40, "total": 120, "method": "lora", ...}

A command calls the function `listen` with every event; the listener prints it, writes it to a pipe or ignores it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from riyaz.errors import RiyazError
from riyaz.files import from_json as read
from riyaz.files import parse_json
from riyaz.files import to_json as write

VERSION = 1  # of the lines; a reader ignores lines of another version


@dataclass(frozen=True)
class Phase:
    """An arm (`method`) or the command itself begins a phase such as "fit" or "measure"."""

    phase: str
    detail: str = ""
    method: str = ""


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


Event = Phase | Progress | Note | Estimate | ArmDone | Failed | Done
Listen = Callable[[Event], None]

KINDS: dict[str, type[Event]] = {
    "phase": Phase, "progress": Progress, "note": Note, "estimate": Estimate, "arm": ArmDone, "failed": Failed,
    "done": Done,
}  # fmt: skip
NAMES = {kind: name for name, kind in KINDS.items()}


def quiet(event: Event) -> None:
    """A listener that ignores every event."""


def about(method: str, listen: Listen) -> Listen:
    """A listener that sets the method's name in Phase and Progress events and forwards every event to `listen`."""
    return lambda event: listen(replace(event, method=method) if isinstance(event, Phase | Progress) else event)


def to_json(event: Event) -> str:
    """The event as one line of ASCII JSON, without a line end."""
    return write({"event": NAMES[type(event)], "version": VERSION, **asdict(event)}, ascii=True)


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
