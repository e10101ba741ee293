"""Progress and results on the terminal: live rows and colours on a terminal, plain lines elsewhere.

`listener(console)` turns events into live rows (one per arm, with the time left) or into throttled lines;
`print_comparison(comparison, console)` prints the table, the pick, further measurements and the arms that failed.
The caller passes a console on stderr for progress and one on stdout for results.
"""

import io
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from riyaz.events import ArmDone, Estimate, Event, Listen, Note, Phase, Progress, quiet
from riyaz.json_files import from_json
from riyaz.report.comparison import confidence, extra_findings, questions, schedule
from riyaz.report.comparison.precisions import merged_line, served_line
from riyaz.report.comparison.worth import worth_lines
from riyaz.report.media.screen import PLAIN_WIDTH, print_lines
from riyaz.report.media.stacked import Cells, table
from riyaz.report.words import (
    busy,
    columns,
    count,
    decided_alone,
    duration,
    extras,
    floor_line,
    has_bases,
    headline,
    in_groups,
    interval,
    measured_again,
    metric_name,
    number,
    outcome,
    slices,
    tenths,
    troubles,
    verdict,
)
from riyaz.results import ArmResult, Comparison, TargetScores, in_words

BAR, LEAST_BAR = 18, 8  # character cells of a progress bar
WORDS = 66  # character cells for what stands beside it
LINE_SECONDS = 60.0  # between two plain progress lines of a phase
NEXT = 13  # columns of the titles before the next commands
LEAST_LEFT = 0.05  # seconds; less would be said as "0.0 s left" while work goes on
STAGES = ("fit", "search", "train", "evaluate")  # of an arm, in a plan
PLAN_TEXTS = ("method", "learning rates")  # columns of a plan that are aligned left
STYLES = {"ok": "green", "cut": "yellow", "failed": "red", "skipped": "dim", "waiting": "dim"}
# columns that stand below the others on a narrow terminal, the first of them first
LATER = ("artifact MB", "peak MB", "fit", "of prose", "forgetting")


@dataclass
class Arm:
    """The state of one arm, from the events."""

    name: str
    status: str = "waiting"
    phase: str = ""
    detail: str = ""
    done: float = 0
    total: float = 0
    unit: str = ""  # of done and total
    loss: float | None = None
    extra: str = ""  # further text of the last Progress event
    seconds_left: float | None = None
    estimate: float | None = None
    outcome: str = ""
    since: float = 0.0  # when the present phase began, in the clock's seconds
    start: float = 0  # `done` when the present phase began
    printed: str | None = None  # the phase of its last plain line, and when that was printed
    printed_at: float = 0.0


@dataclass
class Board:
    """The state of all arms, from the events; it prints nothing."""

    began: float
    arms: dict[str, Arm] = field(default_factory=dict)
    seconds: float | None = None

    def apply(self, event: Event, now: float) -> Arm | None:
        """Update the state by one event; returns the event's arm, or None."""
        if isinstance(event, Estimate):
            self.seconds, self.arms = event.seconds, {}  # the estimate's own measurements are over
            for planned in event.arms:
                self._arm(planned.method).estimate = planned.seconds
        elif isinstance(event, Phase):
            arm = self._started(event.method)
            arm.status, arm.phase, arm.detail, arm.outcome = "running", event.phase, event.detail, ""
            arm.done, arm.total, arm.loss, arm.seconds_left, arm.since, arm.start = 0, 0, None, None, now, 0
            arm.extra = ""
            return arm
        elif isinstance(event, Progress):
            return self._progress(event, now)
        elif isinstance(event, ArmDone):
            done = from_json(ArmResult, event.arm, "event")
            arm = self._arm(done.name)
            arm.status, arm.outcome = done.status, outcome(done)
            return arm
        return None

    def _arm(self, name: str) -> Arm:
        return self.arms.setdefault(name, Arm(name))

    def _started(self, started: str) -> Arm:
        """The arm that is at work; before there is an estimate, one piece of work ends where the next one begins."""
        if self.seconds is None:
            self.arms = {name: arm for name, arm in self.arms.items() if name == started or arm.outcome}
        return self._arm(started)

    def _progress(self, event: Progress, now: float) -> Arm:
        arm = self._started(event.method)
        phase, arm.unit, arm.extra = event.phase, event.unit, event.extra
        arm.done, arm.total, arm.loss = event.done, event.total, event.loss
        if arm.status != "running" or phase != arm.phase:
            arm.status, arm.phase, arm.detail = "running", phase, ""
            arm.since, arm.start = now, arm.done
        arm.seconds_left = event.seconds_left
        if arm.seconds_left is None and arm.start < arm.done < arm.total:
            arm.seconds_left = (now - arm.since) * (arm.total - arm.done) / (arm.done - arm.start)
        return arm

    def left(self, now: float) -> str:
        """How much of the estimate for the whole command is left; empty without one."""
        if self.seconds is None:
            return ""
        left = self.seconds - (now - self.began)
        if left < LEAST_LEFT:
            return f", longer than the {duration(self.seconds)} planned"
        return f", about {duration(left)} left by the plan"


def says(arm: Arm) -> str:
    """An arm's present work or its outcome as text: `train, 40/120, loss 1.234, 1m 20s left`."""
    if arm.outcome:
        return arm.outcome
    if arm.status == "waiting":
        return f"{duration(arm.estimate)} planned" if arm.estimate else ""
    named = arm.phase == arm.name and arm.detail  # its name says the phase already
    parts = [arm.detail if named else f"{arm.phase} {arm.detail}".strip()]
    if arm.total:
        parts.append(f"{arm.done:,.10g}/{arm.total:,.10g} {arm.unit}".rstrip())
    if arm.loss is not None:
        parts.append(f"loss {arm.loss:.3f}")
    parts.append(arm.extra)
    if arm.seconds_left is not None and arm.seconds_left >= LEAST_LEFT and arm.done < arm.total:
        parts.append(f"{duration(arm.seconds_left)} left")
    return ", ".join(part for part in parts if part)


def estimate_line(estimate: Estimate) -> str:
    """`estimate: 8m 20s, 1,900 MB of memory, 320 MB of disk`."""
    memory, disk = number(estimate.peak_rss_mb or None), number(estimate.disk_mb)
    return f"estimate: {duration(estimate.seconds)}, {memory} MB of memory, {disk} MB of disk"


@contextmanager
def listener(talk: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Listen]:
    """Gives the function that shows events while a command runs: live rows on a terminal, else plain lines."""
    board = Board(began=clock())
    if talk.quiet:
        yield quiet
        return
    if not talk.is_terminal:
        yield lambda event: _write_line(board, event, talk, clock())
        return

    def rows() -> RenderableType:
        return _rows(board, clock(), talk.width, talk.height)

    with Live(get_renderable=rows, console=talk, transient=True, refresh_per_second=4):
        yield lambda event: _show(board, event, talk, clock())
    if any(arm.outcome for arm in board.arms.values()):
        talk.print(_grid(list(board.arms.values()), talk.width, ended=True))


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
        new = arm.phase != arm.printed
        if finished or isinstance(event, Phase) or new or now - arm.printed_at >= LINE_SECONDS:
            arm.printed, arm.printed_at = arm.phase, now
            name, status = arm.name or "riyaz", f"{arm.status}, " if finished else ""
            _plain(talk, f"{name}: {status}{says(arm)}")


def _plain(talk: Console, line: str) -> None:
    talk.print(" ".join(line.split()), soft_wrap=True)


def _rows(board: Board, now: float, width: int, height: int) -> RenderableType:
    """The live rows; where there are more than the terminal has lines, those at work and how many the others are."""
    so_far = f"{duration(now - board.began)} so far{board.left(now)}"
    for shown in (list(board.arms.values()), [arm for arm in board.arms.values() if arm.status == "running"]):
        rows, other = _grid(shown, width), len(board.arms) - len(shown)
        lines = Console(width=width, file=io.StringIO()).render_lines(rows)
        if len(lines) < height:
            break
    more = f"; {count(other, 'other arm')} not shown" if other else ""
    return Group(rows, Text(so_far + more, style="dim"))


def _grid(arms: Sequence[Arm], width: int, *, ended: bool = False) -> Table:
    """A row for each arm: its name, its bar or status, and what it says, wrapped where it is too long."""
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True, min_width=max((len(arm.name) for arm in arms), default=0))
    grid.add_column(no_wrap=True, min_width=len("skipped"))
    grid.add_column(overflow="fold")
    for arm in arms:
        bar: RenderableType = Text(arm.status, style=STYLES.get(arm.status, ""))
        if arm.status == "running" and not ended:
            cells = max(LEAST_BAR, min(BAR, width - WORDS))
            bar = ProgressBar(total=arm.total or None, completed=arm.done, width=cells, pulse=not arm.total)
        grid.add_row(arm.name, bar, says(arm))
    return grid


def arms_table(arms: Sequence[ArmResult], pick: str | None, width: int = PLAIN_WIDTH) -> list[Text]:
    """The lines of the table of the arms in the given order; on a narrow terminal the columns of LATER follow below."""
    chosen = columns(arms, pick)
    cells = [Cells(column.title, [column.fill(arm) for arm in arms], column.text) for column in chosen]
    rows = ["bold" if arm.name == pick else "" for arm in arms]
    names = 2 if has_bases(arms) else 1  # the columns by which an arm is known
    return table(cells, width, LATER, rows, [STYLES[arm.status] for arm in arms], names)


def print_comparison(comparison: Comparison, out: Console) -> None:
    """Prints table, floor, pick, retrieval, seeds and data curve, then why arms were cut, skipped or failed."""
    arms = comparison.ranked
    print_lines(arms_table(arms, comparison.pick, out.width), out)
    if line := floor_line(comparison):
        out.print(Text(line, style="dim"))
    out.print()
    out.print(Text(headline(comparison), style="bold"))
    out.print(textwrap.fill(verdict(comparison), out.width))
    further = [("more rows", extra_findings.curve_line(comparison))]
    further.append(("worst slice", extra_findings.worst_slice_line(comparison)))
    further.append(("worth", " ".join(worth_lines(comparison))))
    further += [("place", line) for line in schedule.lines(comparison)]
    _print_findings(arms, [each for each in further if each[1]], out, comparison.pick)
    _print_troubles(comparison.arms, out)


def print_next(commands: Sequence[tuple[str, str]], out: Console) -> None:
    """Prints what to do next, each command whole on a line of its own so that it can be pasted."""
    if commands:
        out.print("\nnext", style="dim")
    for title, command in commands:
        out.print(Text.assemble((f"  {title:<{NEXT}}", "dim"), command), soft_wrap=True)


def print_arm(arm: ArmResult, out: Console) -> None:
    """Prints the row of one arm, its retrieval and seeds, and why it was cut or failed."""
    print_lines(arms_table([arm], None, out.width), out)
    _print_findings([arm], [], out)
    _print_troubles([arm], out)


def _print_findings(
    arms: list[ArmResult], further: list[tuple[str, str]], out: Console, pick: str | None = None
) -> None:
    """Prints one line for every question, every retrieval, every arm with several seeds, a latency measured twice or an
    adapter, the machine's load, the answers that differ alone, and the `further` lines."""
    lines = [(f"question  {name}", line) for name, line in questions.lines(arms, pick)]
    lines += [("retrieval", line) for line in extra_findings.retrieval_lines(arms)]
    lines += [("earlier task", line) for arm in arms if (line := extra_findings.earlier_line(arm))]
    lines += [("teacher", line) for arm in arms if (line := extra_findings.teacher_line(arm))]
    lines += [("seeds", f"{arm.name}: {scores}") for arm in arms if (scores := extra_findings.seeds(arm))]
    lines += [("latency", f"{arm.name}: {times}") for arm in arms if (times := measured_again(arm))]
    lines += [("merged", f"{arm.name}: {times}") for arm in arms if (times := merged_line(arm))]
    lines += [("precision", f"{arm.name}: {served}") for arm in arms if (served := served_line(arm))]
    lines += [("ECE", line) for line in [confidence.line(arms)] if line]
    lines += [("load", line) for line in [busy(arms)] if line]
    lines += [("alone", line) for line in (extra_findings.flips_line(arms), decided_alone(arms)) if line]
    for title, line in lines + further:
        out.print(Text.assemble((f"{title}  ", "dim"), " ".join(line.split())))


def _print_troubles(arms: list[ArmResult], out: Console) -> None:
    for method, status, reason in troubles(arms):
        out.print(Text.assemble((f"{status}  ", STYLES[status]), f"{method}: {reason}"))


def print_scores(scored: TargetScores, out: Console) -> None:
    """Prints one target's scores: the main metric with its interval, the others, latency, slices."""
    name, rows = metric_name(scored.metric), f" on {number(scored.n_test)} rows{in_groups(scored)}"
    out.print(f"{name:<16}{number(scored.score, 3)}  ({interval(scored)}, 95 %){rows}")
    for metric, value in extras(scored):
        out.print(f"{metric:<16}{value}")
    for one in scored.questions or ():
        out.print(f"{one.name:<16}{questions.line(one)}")
    if scored.calibration:
        out.print(f"{'ECE':<16}{confidence.error(scored.calibration)}")
    out.print(f"{'ms per answer':<16}{tenths(scored.ms_per_answer)}")
    if scored.served:
        out.print(f"{'weights in':<16}{in_words(scored.served)}")
    for title, score in slices(scored):
        out.print(f"{'slice':<16}{title}  {score}")


class _Planned(Protocol):
    """The fields of an arm's plan that `print_plan` shows."""

    @property
    def name(self) -> str: ...
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


def plan_rows(arms: Sequence[_Planned]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the plan of a dry run: seconds per stage, steps and learning rates of every arm."""
    rows = []
    for arm in arms:
        seconds = dict(arm.seconds)
        seconds["fit"] = seconds.get("fit", 0) + seconds.pop("start", 0)  # fitting includes the start of its process
        steps = f"{arm.steps}/{arm.recipe_steps}" if arm.recipe_steps else ""
        rates = " ".join(f"{rate:g}" for rate in arm.learning_rates)
        rows.append([arm.name, *(duration(seconds.get(stage) or None) for stage in STAGES), steps, rates])
    return ["method", *STAGES, "steps", "learning rates"], rows


def print_plan(arms: Sequence[_Planned], estimate: Mapping[str, float], out: Console) -> None:
    """Prints the plan of a dry run, why arms are skipped, then the estimate."""
    titles, rows = plan_rows(arms)
    cells = [Cells(title, [row[place] for row in rows], title in PLAN_TEXTS) for place, title in enumerate(titles)]
    print_lines(table(cells, out.width), out)
    for arm in arms:
        if arm.skipped:
            out.print(Text.assemble(("skipped  ", STYLES["skipped"]), f"{arm.name}: {arm.skipped}"))
    out.print(estimate_line(Estimate(estimate["seconds"], estimate["peak_rss_mb"], estimate["disk_mb"])))
