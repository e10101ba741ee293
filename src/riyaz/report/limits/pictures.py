"""The pictures of limits.json: intervals of one figure over its groups, and curves; None where there is nothing."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from riyaz.report.comparison.pictures import HALF, below
from riyaz.report.limits.words import shown
from riyaz.report.media.markup import Markup
from riyaz.report.media.svg import FAINT, colour, inset, label, picture
from riyaz.results import Curve, Figure, Part

LEAST, MOST = 3, 16  # groups of a picture
SHADE, ROW = 2, 26  # colour of the page, pixels of a row


def _tick(value: float, unit: str) -> str:
    return shown(value, unit).replace(".0 %", " %") if unit == "share" else f"{value:g}"


def compared(part: Part) -> list[Figure]:
    """The figures of one name over its groups, with intervals: those of the name that has most of them."""
    names = dict.fromkeys((figure.name, figure.unit) for figure in part.figures)
    by_name = [
        [f for f in part.figures if (f.name, f.unit) == name and f.low is not None and f.value is not None]
        for name in names
    ]
    best = max(by_name, key=len, default=[])
    return best[:MOST] if len(best) >= LEAST and best[0].unit in ("share", "nats", "score") else []


def intervals(part: Part, width: float, name: str) -> Markup | None:
    """A mark with its interval for every group, beside the value where nothing is found."""
    rows = compared(part)
    if not rows:
        return None

    def draw(canvas: Canvas) -> None:
        panel = canvas.subplots()
        narrow = width < HALF
        inset(canvas, 128 if narrow else 210, 20, 16, 46)
        for place, row in enumerate(rows):
            ends = [end for end in (row.low, row.high) if end is not None]
            panel.plot(ends, [place] * len(ends), color=colour(SHADE), lw=2, alpha=0.75)
            panel.plot([row.value or 0.0], [place], "o", color=colour(SHADE), ms=7)
        panel.set_yticks(range(len(rows)), [label(row.group, 15 if narrow else 25) for row in rows])
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.xaxis.set_major_formatter(lambda value, _: _tick(value, rows[0].unit))
        panel.xaxis.set_major_locator(MaxNLocator(3 if narrow else 5))
        panel.grid(axis="x", lw=0.7)
        if rows[0].even is not None:
            panel.axvline(rows[0].even, color=FAINT, lw=1.4, linestyle=(0, (4, 3)))
        below(canvas, rows[0].name)

    return picture(draw, width, 70 + ROW * len(rows), name, f"{rows[0].name}, by group, with 95 % intervals")


def curve(line: Curve, width: float, name: str) -> Markup | None:
    """A line of points."""
    if len(line.points) < 2:
        return None

    def draw(canvas: Canvas) -> None:
        panel = canvas.subplots()
        inset(canvas, 62, 20, 34, 46)
        x, y = zip(*line.points)
        doubled = doubles(x)
        places = range(len(x)) if doubled else x
        panel.plot(places, y, color=colour(SHADE), lw=2, marker="o" if len(x) < 20 else "", ms=5)
        panel.yaxis.set_major_formatter(lambda value, _: _tick(value, line.unit))
        if doubled:  # equal steps, else the first ones lie on one another
            step = 2 if width < HALF and len(x) > 6 else 1
            panel.set_xticks(range(0, len(x), step), [f"{value:,.0f}" for value in x[::step]])
        else:
            panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
            panel.xaxis.set_major_locator(MaxNLocator(4 if width < HALF else 6))
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.set_ylim(bottom=min(0.0, *(y for _, y in line.points)) if line.unit == "share" else None)
        panel.grid(axis="y", lw=0.7)
        panel.set_title(line.y, pad=14)
        below(canvas, line.x)

    return picture(draw, width, 300, name, f"{line.name}: {line.y} by {line.x}")


def doubles(x: Sequence[float]) -> bool:
    """Whether each number is twice the one before it, but for a beginning of 0 and 1."""
    return len(x) > 2 and all(after == 2 * before or (before, after) == (0, 1) for before, after in pairwise(x))


def points(line: Curve) -> list[list[str]]:
    """The points of a curve as rows of a table."""
    return [[f"{x:,.4g}", shown(y, line.unit)] for x, y in line.points]
