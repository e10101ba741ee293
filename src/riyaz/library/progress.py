"""How a call of the library shows that it works: lines or live rows on stderr, or one display of a notebook."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riyaz import events
from riyaz.events import Estimate, Event, Listen, Note, Progress
from riyaz.library.hints import in_notebook, in_words_of_python
from riyaz.library.showing import FAINT
from riyaz.report.comparison import terminal
from riyaz.report.comparison.terminal import Arm, Board
from riyaz.report.media.markup import Markup, element, join, printable
from riyaz.report.media.screen import console
from riyaz.report.words import count, duration

EVERY = 0.25  # seconds between two drawings of the same phase
NO_WIDGETS = "IProgress not found"  # what tqdm, which other packages import, says in a kernel without ipywidgets
CELL = "text-align: left; padding: 0.1em 1.2em 0.1em 0"


class Stopped(KeyboardInterrupt):
    """A call that was interrupted; the text says how it goes on, and is all that a notebook shows."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass
class NotebookProgress:
    """One display of a notebook that changes with the events of a call; `draw` shows this object again.

    At the end one line is left and what riyaz noted: the result, which the call returns, shows itself. Where the call
    was stopped or failed, what every arm had reached stays.
    """

    draw: Callable[[], object]
    clock: Callable[[], float] = time.monotonic
    board: Board = field(init=False)
    notes: list[str] = field(default_factory=list)
    estimate: str = ""  # shown until the whole call has ended
    ended: bool = False
    whole: bool = False  # ended without an error
    drawn_at: float = field(init=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.board = Board(began=self.clock())
        self.drawn_at = -EVERY

    def hear(self, event: Event) -> None:
        """Take one event in, and draw what has changed; steps of one phase are drawn every EVERY seconds."""
        now = self.clock()
        self.board.apply(event, now)
        if isinstance(event, Note):
            self.notes.append(in_words_of_python(event.text))
        elif isinstance(event, Estimate):
            self.estimate = terminal.estimate_line(event)
        if not isinstance(event, Progress) or event.done >= event.total or now - self.drawn_at >= EVERY:
            self._draw(now)

    def end(self, whole: bool) -> None:
        """Draw for the last time: after the whole call, or after an error or an interruption."""
        self.ended, self.whole = True, whole
        self._draw(self.clock())

    def _draw(self, now: float) -> None:
        self.drawn_at, self.seconds = now, now - self.board.began
        self.draw()

    @property
    def line(self) -> str:
        """How long it has taken, and how much of the plan is left."""
        if not self.ended:
            return f"{duration(self.seconds)} so far{self.board.left(self.seconds + self.board.began)}"
        arms = [arm for arm in self.board.arms.values() if arm.outcome]
        methods = f"{count(len(arms), 'method')} in " if arms else ""
        return f"{methods if self.whole else 'stopped after '}{duration(self.seconds)}"

    @property
    def heads(self) -> list[str]:
        """The lines above the arms: what riyaz noted, then the estimate."""
        return [*self.notes, *([self.estimate] if self.estimate and not self.whole else [])]

    @property
    def rows(self) -> list[Arm]:
        """The arms that are shown: none after the whole call."""
        return [] if self.whole else list(self.board.arms.values())

    def _repr_html_(self) -> str:
        rows = [
            element(
                "tr", element("td", arm.name, style=CELL), element("td", _bar(arm, self.ended), style=CELL),
                element("td", terminal.says(arm), style=CELL),
            )
            for arm in self.rows
        ]  # fmt: skip
        heads = [element("div", head, style=FAINT) for head in self.heads]
        return join(*heads, element("table", *rows) if rows else None, element("div", self.line, style=FAINT))

    def __repr__(self) -> str:
        rows = [f"{arm.name or 'riyaz'}: {arm.status}, {terminal.says(arm)}" for arm in self.rows]
        return printable("\n".join([*self.heads, *rows, self.line]))


def _bar(arm: Arm, ended: bool) -> Markup:
    """A bar while the arm is at work, else its status."""
    if arm.status != "running" or ended:
        return element("span", "stopped" if arm.status == "running" else arm.status)
    of = {"value": f"{arm.done:g}", "max": f"{arm.total:g}"} if arm.total else {}
    return element("progress", aria_label=f"{arm.name} {arm.phase}", **of)


@contextmanager
def heard(listen: Listen | None, quiet: bool) -> Iterator[Listen]:
    """The listener of a call: the one that is given, none, the display of a notebook, or the progress that the commands
    show on stderr."""
    if listen is not None or quiet:
        yield listen or events.quiet
    elif in_notebook():
        with warnings.catch_warnings(), notebook_listener(_new_display()) as shown:
            warnings.filterwarnings("ignore", NO_WIDGETS)
            yield shown
    else:
        with terminal.listener(console(stderr=True)) as shown:
            yield shown


@contextmanager
def notebook_listener(show: Callable[[object], object]) -> Iterator[Listen]:
    """The listener of a display that is shown by `show`, which is told the same object again when it has changed."""
    shown = NotebookProgress(lambda: show(shown))
    try:
        yield shown.hear
    except BaseException:
        shown.end(whole=False)
        raise
    shown.end(whole=True)


def _new_display() -> Callable[[object], object]:
    """A function that shows an object in the cell, in the place of what it showed before."""
    from IPython.display import display

    handle: Any = None

    def show(shown: object) -> None:
        nonlocal handle
        if handle is None:
            handle = display(shown, display_id=True)
        else:
            handle.update(shown)

    return show


@contextmanager
def resumable(place: Path | None = None, again: str = "the same call goes on") -> Iterator[None]:
    """An interruption inside says in one line that the call can go on, in which folder, and how. Raises Stopped."""
    try:
        yield
    except KeyboardInterrupt as stop:
        line = in_words_of_python(str(stop)).replace("the same command", "the same call")
        kept = f" in {place}" if place is not None and place.is_dir() else ""
        raise Stopped(line or f"stopped; {again}{kept}") from None
