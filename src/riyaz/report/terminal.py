"""What a person sees while a command works and when it ends: rich on a terminal, plain lines elsewhere.

`listener(console)` turns events into live rows (one per arm, with the time left) or into throttled lines;
`print_comparison(document, console)` is the table, the pick, what else was found and the arms that failed.
Talk goes to a console on stderr, data to one on stdout; the caller chooses by the console it hands in.
"""

import os
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from riyaz.events import ArmDone, Estimate, Event, Listen, Note, Phase, Progress
from riyaz.files import from_json
from riyaz.report import extra_findings
from riyaz.report.markup import printable
from riyaz.report.words import (
    columns,
    duration,
    extras,
    headline,
    interval,
    metric_name,
    number,
    outcome,
    slices,
    tenths,
    troubles,
    verdict,
)
from riyaz.results import ArmResult, Comparison, TargetScores

PLAIN_WIDTH = 100  # columns when no terminal says how many there are
BAR = 18  # cells of a progress bar
LINE_SECONDS = 10.0  # at most one plain line of progress per arm in this time
STYLES = {"ok": "green", "cut": "yellow", "failed": "red", "skipped": "dim", "waiting": "dim"}
# a narrow terminal gives up these columns, the first ones first; report.md has them all
DISPENSABLE = ("artifact MB", "peak MB", "train", "forgetting")


class PipeConsole(Console):
    """A console whose text a terminal only shows, and which lets the command line end the program when nobody reads
    any more."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to write; labels, answers and documents bring no control signs of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Called inside the handler of a BrokenPipeError: hand it on instead of exiting here."""
        raise


def console(*, stderr: bool) -> Console:
    """A console on stderr (talk) or stdout (data), wide enough for the table when it is not a terminal."""
    made = PipeConsole(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = PLAIN_WIDTH
    return made


@dataclass
class Arm:
    """One arm as the events tell it."""

    method: str
    status: str = "waiting"
    phase: str = ""
    detail: str = ""
    done: float = 0
    total: float = 0
    unit: str = ""  # of both
    loss: float | None = None
    extra: str = ""  # what else its work says of itself
    seconds_left: float | None = None
    estimate: float | None = None
    outcome: str = ""
    since: float = 0.0  # when the present phase began,
    start: float = 0  # with this much done
    said: float = -1e9  # when its last plain line was written


@dataclass
class Board:
    """All arms, fed by events; a value without any output."""

    began: float
    arms: dict[str, Arm] = field(default_factory=dict)
    seconds: float | None = None

    def apply(self, event: Event, now: float) -> Arm | None:
        """Take one event in; the arm it was about, or None."""
        if isinstance(event, Estimate):
            self.seconds, self.arms = event.seconds, {}  # what was measured for it is done
            for planned in event.arms:
                self._arm(planned.method).estimate = planned.seconds
        elif isinstance(event, Phase):
            arm = self._arm(event.method)
            arm.status, arm.phase, arm.detail, arm.outcome = "running", event.phase, event.detail, ""
            arm.done, arm.total, arm.loss, arm.seconds_left, arm.since, arm.start = 0, 0, None, None, now, 0
            arm.extra = ""
            return arm
        elif isinstance(event, Progress):
            return self._progress(event, now)
        elif isinstance(event, ArmDone):
            done = from_json(ArmResult, event.arm, "event")
            arm = self._arm(done.method)
            arm.status, arm.outcome = done.status, outcome(done)
            return arm
        return None

    def _arm(self, method: str) -> Arm:
        return self.arms.setdefault(method, Arm(method))

    def _progress(self, event: Progress, now: float) -> Arm:
        arm = self._arm(event.method)
        phase, arm.unit, arm.extra = event.phase, event.unit, event.extra
        arm.done, arm.total, arm.loss = event.done, event.total, event.loss
        if arm.status != "running" or phase != arm.phase:
            arm.status, arm.phase, arm.detail = "running", phase, ""
            arm.since, arm.start = now, arm.done
        arm.seconds_left = event.seconds_left
        if arm.seconds_left is None and arm.start < arm.done < arm.total:
            arm.seconds_left = (now - arm.since) * (arm.total - arm.done) / (arm.done - arm.start)
        return arm

    def left(self, now: float) -> float | None:
        """Seconds the whole command still needs by its own estimate."""
        return None if self.seconds is None else max(self.seconds - (now - self.began), 0.0)


def says(arm: Arm) -> str:
    """What an arm is doing, in words: `train, 40/120, loss 1.234, 1m 20s left`."""
    if arm.outcome:
        return arm.outcome
    if arm.status == "waiting":
        return f"about {duration(arm.estimate)}" if arm.estimate else ""
    parts = [f"{arm.phase} {arm.detail}".strip()]
    if arm.total:
        parts.append(f"{arm.done:,.10g}/{arm.total:,.10g} {arm.unit}".rstrip())
    if arm.loss is not None:
        parts.append(f"loss {arm.loss:.3f}")
    parts.append(arm.extra)
    if arm.seconds_left is not None and arm.done < arm.total:
        parts.append(f"{duration(arm.seconds_left)} left")
    return ", ".join(part for part in parts if part)


def estimate_line(estimate: Estimate) -> str:
    """`estimate: 8m 20s, 1,900 MB of memory, 320 MB of disk`."""
    memory, disk = number(estimate.peak_rss_mb), number(estimate.disk_mb)
    return f"estimate: {duration(estimate.seconds)}, {memory} MB of memory, {disk} MB of disk"


@contextmanager
def listener(talk: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Listen]:
    """The function to hand events to while a command works: live rows on a terminal, else plain lines."""
    board = Board(began=clock())
    if not talk.is_terminal:
        yield lambda event: _write_line(board, event, talk, clock())
        return
    live = Live(get_renderable=lambda: _rows(board, clock()), console=talk, transient=True, refresh_per_second=4)
    with live:
        yield lambda event: _show(board, event, talk, clock())
    if any(arm.outcome for arm in board.arms.values()):
        talk.print(_rows(board, clock(), ended=True))


def _show(board: Board, event: Event, talk: Console, now: float) -> None:
    board.apply(event, now)
    if isinstance(event, Note | Estimate):
        talk.print(event.text if isinstance(event, Note) else estimate_line(event), style="dim")


def _write_line(board: Board, event: Event, talk: Console, now: float) -> None:
    arm = board.apply(event, now)
    if isinstance(event, Estimate):
        _plain(talk, estimate_line(event))
    elif isinstance(event, Note):
        _plain(talk, event.text)
    elif arm is not None:
        finished = isinstance(event, ArmDone)
        if finished or isinstance(event, Phase) or now - arm.said >= LINE_SECONDS:
            arm.said = now
            name, status = arm.method or "riyaz", f"{arm.status}, " if finished else ""
            _plain(talk, f"{name}: {status}{says(arm)}")


def _plain(talk: Console, line: str) -> None:
    talk.print(" ".join(line.split()), soft_wrap=True)


def _rows(board: Board, now: float, ended: bool = False) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=max(map(len, board.arms), default=0))
    table.add_column(no_wrap=True, min_width=len("skipped"))
    table.add_column(no_wrap=True, overflow="ellipsis")
    for arm in board.arms.values():
        bar: RenderableType = Text(arm.status, style=STYLES.get(arm.status, ""))
        if arm.status == "running" and not ended:
            bar = ProgressBar(total=arm.total or None, completed=arm.done, width=BAR, pulse=not arm.total)
        table.add_row(arm.method, bar, says(arm))
    if ended:
        return table
    left = board.left(now)
    foot = f"{duration(now - board.began)} so far"
    foot += f", about {duration(left)} left" if left is not None else ""
    return Group(table, Text(foot, style="dim"))


def arms_table(arms: Sequence[ArmResult], pick: str | None, width: int = PLAIN_WIDTH) -> Table:
    """The arms in this order; columns that do not fit in `width` are left out."""
    chosen = columns(next((arm.metric for arm in arms if arm.metric), None), pick)
    for title in ("", *DISPENSABLE):
        chosen = [column for column in chosen if column.title != title]
        widths = [max([len(c.title), *(len(c.fill(arm)) for arm in arms)]) for c in chosen]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            break
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in chosen:
        table.add_column(column.title, justify="left" if column.text else "right", no_wrap=True)
    for arm in arms:
        cells = [Text(column.fill(arm)) for column in chosen]
        cells[-1].stylize(STYLES[arm.status])
        table.add_row(*cells, style="bold" if arm.method == pick else "")
    return table


def print_comparison(comparison: Comparison, out: Console) -> None:
    """The table, the pick beneath it, what else was found, then why arms were cut, skipped or failed."""
    arms = comparison.ranked
    out.print(arms_table(arms, comparison.pick, out.width))
    out.print()
    out.print(Text.assemble(("pick  ", "dim"), (headline(comparison), "bold")))
    out.print(textwrap.fill(verdict(comparison), out.width))
    line = extra_findings.curve_line(comparison)
    _print_findings(arms, [("more rows", line)] if line else [], out)
    _print_troubles(comparison.arms, out)


def print_arm(arm: ArmResult, out: Console) -> None:
    """The row of one arm, what else was found, and why it was cut."""
    out.print(arms_table([arm], None, out.width))
    _print_findings([arm], [], out)
    _print_troubles([arm], out)


def _print_findings(arms: list[ArmResult], more: list[tuple[str, str]], out: Console) -> None:
    """What was looked at beside the scores, as far as it was, one line each."""
    found = [("retrieval", line) for line in extra_findings.retrieval_lines(arms)]
    found += [("seeds", f"{arm.method}: {said}") for arm in arms if (said := extra_findings.seeds(arm))]
    for title, line in found + more:
        out.print(Text.assemble((f"{title}  ", "dim"), " ".join(line.split())))


def _print_troubles(arms: list[ArmResult], out: Console) -> None:
    for method, status, reason in troubles(arms):
        out.print(Text.assemble((f"{status}  ", STYLES[status]), f"{method}: {reason}"))


def print_scores(scored: TargetScores, out: Console) -> None:
    """One target's scores: the deciding one with its interval, the others, slices, latency."""
    name, rows = metric_name(scored.metric), f" on {number(scored.n_test)} rows"
    out.print(f"{name:<16}{number(scored.score, 3)}  ({interval(scored)}, 95 %){rows}")
    for metric, value in extras(scored):
        out.print(f"{metric:<16}{value}")
    out.print(f"{'ms per answer':<16}{tenths(scored.ms_per_answer)}")
    for title, score in slices(scored):
        out.print(f"{'slice':<16}{title}  {score}")


class _Planned(Protocol):
    """What the table of a plan shows of an arm."""

    @property
    def method(self) -> str: ...
    @property
    def seconds(self) -> dict[str, float]: ...
    @property
    def steps(self) -> int: ...
    @property
    def recipe_steps(self) -> int: ...
    @property
    def learning_rates(self) -> tuple[float, ...]: ...
    @property
    def skipped(self) -> str: ...


def print_plan(arms: Sequence[_Planned], estimate: Mapping[str, float], out: Console) -> None:
    """What a dry run found: the time planned for each arm and its stages, steps and rates, then the estimate."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    stages = ("fit", "search", "train", "evaluate")
    for title in ("method", *stages, "steps", "learning rates", ""):
        table.add_column(title, justify="left" if title in ("method", "learning rates", "") else "right", no_wrap=True)
    for arm in arms:
        seconds = dict(arm.seconds)
        seconds["fit"] = seconds.get("fit", 0) + seconds.pop("start", 0)  # a process that starts is part of fitting
        steps = f"{arm.steps}/{arm.recipe_steps}" if arm.recipe_steps else ""
        rates = " ".join(f"{rate:g}" for rate in arm.learning_rates)
        cells = [duration(seconds.get(stage) or None) for stage in stages]
        table.add_row(arm.method, *cells, steps, rates, arm.skipped)
    out.print(table)
    out.print(estimate_line(Estimate(estimate["seconds"], estimate["peak_rss_mb"], estimate["disk_mb"])))
