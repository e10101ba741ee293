"""The picture of who did what when: a row for each place of a comparison, a bar for each process."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from riyaz.report.comparison import schedule
from riyaz.report.comparison.arms import about
from riyaz.report.media.markup import Markup
from riyaz.report.media.svg import FAINT, INK, PAPER, WIDE_LETTER, colour, inset, label, picture
from riyaz.report.words import duration
from riyaz.results import ArmResult, Comparison, Turn

ROW, SMALL = 34.0, 11.0  # pixels of a place, and of a name inside a bar


def drawn(comparison: Comparison, width: float, name: str) -> Markup | None:
    """A bar for every turn, `width` CSS pixels wide; None where this machine alone has worked."""
    turns = schedule.ended_turns(comparison)
    if not turns:
        return None
    places = list(dict.fromkeys(turn.place for turn in turns))
    arms = {arm.name: arm for arm in comparison.arms}
    names = max(len(label(place, 18)) for place in places) * WIDE_LETTER * 13 + 16
    end = max(turn.ended or turn.began for turn in turns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        inset(figure, names, 20, 12, 44)
        axes.set_xlim(0, max(end, 1e-6))
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.set_yticks(range(len(places)), [label(place, 18) for place in places])
        axes.xaxis.set_major_locator(MaxNLocator(4 if width < 400 else 8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
        axes.grid(axis="x", lw=0.7)
        axes.set_xlabel("since the command began")
        for turn in turns:
            _bar(axes, turn, places.index(turn.place), arms.get(turn.arm), (width - names - 20) / max(end, 1e-6))

    return picture(draw, width, ROW * len(places) + 60, name, "Which place worked on which method, and when")


def _bar(axes: Axes, turn: Turn, row: int, arm: ArmResult | None, pixels: float) -> None:
    """One turn, with the arm's name inside where it has room; a second is `pixels` wide."""
    long = (turn.ended or turn.began) - turn.began
    shade = FAINT if arm is None else colour(about(arm).colour)
    lost, fits = turn.outcome == "lost", turn.work != "evaluate"
    axes.barh(
        row, long, left=turn.began, height=0.62, color="none" if lost else shade, edgecolor=shade if lost else PAPER,
        linewidth=1.2, linestyle=(0, (3, 2)) if lost else "solid", alpha=1.0 if fits or lost else 0.45,
    )  # fmt: skip
    text = label(f"{turn.arm} {schedule.part_words(turn)}".strip(), 24)
    if fits and len(text) * WIDE_LETTER * SMALL + 6 < long * pixels:
        axes.text(
            turn.began + long / 2, row, text, ha="center", va="center", fontsize=SMALL, color=INK if lost else PAPER
        )
