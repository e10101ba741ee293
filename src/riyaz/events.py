"""What a command tells while it works: small values, each one line of JSON that another process or a page can read.

    {"event": "progress", "version": 1, "phase": "train", "done": 40, "total": 120, "method": "lora", ...}

Work calls the function `listen` that it was given with every event; a terminal, a file or a pipe stands behind it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from riyaz.errors import RiyazError
from riyaz.files import from_json as read
from riyaz.files import parse_json
from riyaz.files import to_json as write

VERSION = 1  # of the lines; a reader passes over those of another one


@dataclass(frozen=True)
class Phase:
    """An arm, or the command itself, begins a piece of work such as "fit" or "measure"."""

    phase: str
    detail: str = ""
    method: str = ""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` of a phase; in training also the loss, the seconds left and the step's line of metrics."""

    phase: str
    done: float
    total: float
    method: str = ""
    unit: str = ""  # of both numbers
    loss: float | None = None
    seconds_left: float | None = None
    extra: str = ""  # further figures, as text
    metrics: dict[str, Any] | None = None


@dataclass(frozen=True)
class Note:
    """One sentence that the user should know."""

    text: str


@dataclass(frozen=True)
class Planned:
    """Seconds that one arm is planned to take."""

    method: str
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What the whole command will take, before anything long starts."""

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
    """The command is finished; `document` is what it wrote, such as compare.json."""

    document: dict[str, Any]


Event = Phase | Progress | Note | Estimate | ArmDone | Failed | Done
Listen = Callable[[Event], None]

KINDS: dict[str, type[Event]] = {
    "phase": Phase, "progress": Progress, "note": Note, "estimate": Estimate, "arm": ArmDone, "failed": Failed,
    "done": Done,
}  # fmt: skip
NAMES = {kind: name for name, kind in KINDS.items()}


def quiet(event: Event) -> None:
    """The listener of a caller who wants no events."""


def about(method: str, listen: Listen) -> Listen:
    """A listener that adds the method's name to what it hands on."""
    return lambda event: listen(replace(event, method=method) if isinstance(event, Phase | Progress) else event)


def to_json(event: Event) -> str:
    """The event as one line of ASCII, without its end of line."""
    return write({"event": NAMES[type(event)], "version": VERSION, **asdict(event)}, ascii=True)


def from_json(line: str) -> Event | None:
    """The event of a line; None for a line that is none, or one of another version. Unknown keys are passed over."""
    try:
        document = parse_json(line.encode("utf-8", "replace"), "event")
        if not isinstance(document, dict) or document.pop("version", None) != VERSION:
            return None
        kind = KINDS[document.pop("event", "")]
        event: Event = read(kind, document, "event", unknown=True)
        return event
    except (RiyazError, KeyError, TypeError):
        return None
