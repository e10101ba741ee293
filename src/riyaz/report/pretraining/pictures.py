"""The pictures of a pretraining run's page: SVG elements, None when nothing was measured.

`width` is in CSS pixels, `name` is the prefix of SVG ids.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from riyaz.report.comparison.pictures import below
from riyaz.report.media.markup import Markup, element
from riyaz.report.media.svg import FAINT, INK, PAPER, colour, inset, picture
from riyaz.report.pretraining.words import HeldOut, held_out, points
from riyaz.report.words import number
from riyaz.results import PretrainRun, StepMetrics

SHADE, OTHER = colour(2), colour(5)
DRAWN = 400  # most points of a line; longer lines are drawn as means of neighbours
MARKED = 40  # most validations that are drawn with a mark each
HEIGHT = 340.0
ROOM = 26.0  # pixels below a mark that its name needs
Points = list[tuple[float, float]]


def loss(run: PretrainRun, metrics: list[StepMetrics], width: float, name: str) -> Markup | None:
    """Training and validation loss over the steps, the finished model's, and that of guessing all tokens evenly."""
    train, valid = points(metrics, "loss"), points(metrics, "valid_loss")
    if not train and not valid:
        return None
    vocabulary = run.tokenizer.vocab if run.tokenizer else 0
    evenly = math.log(vocabulary) if vocabulary > 1 else None

    mark = held_out(run, metrics)

    def draw(figure: Figure) -> None:
        panel = _panel(figure)
        thinned = thin(train)
        if thinned:
            panel.plot(*zip(*thinned, strict=True), color=SHADE, lw=1.1, alpha=0.4)
        _line(panel, valid)
        values = [value for _, value in (*thinned, *valid)] + ([mark.loss] if mark else [])
        low, high = min(values), max([*values, *([evenly] if evenly else [])])
        panel.set_ylim(max(low - 0.16 * (high - low), 0), high + 0.08 * (high - low) + 0.05)
        if evenly:
            panel.axhline(evenly, color=FAINT, lw=1, linestyle=(0, (4, 3)))
            text = f"every token equally likely: {number(evenly, 2)}"
            panel.annotate(text, (1, evenly), xycoords=("axes fraction", "data"), xytext=(0, -5),
                           textcoords="offset points", ha="right", va="top")  # fmt: skip
        panel.set_title("nats per token; training faint", pad=14)
        _steps(figure, panel)
        _named(panel, mark, mark.loss if mark else None)

    return picture(draw, width, HEIGHT, name, "Loss over the training steps")


def bits(run: PretrainRun, metrics: list[StepMetrics], width: float, name: str) -> Markup | None:
    """Bits per byte of validation text over the steps, and the finished model's."""
    line = points(metrics, "bits_per_byte")
    if not line:
        return None

    mark = held_out(run, metrics)

    def draw(figure: Figure) -> None:
        panel = _panel(figure)
        _line(panel, line)
        values = [value for _, value in line] + ([mark.bits] if mark and mark.bits is not None else [])
        room = max(0.12 * (max(values) - min(values)), 0.05)
        panel.set_ylim(max(min(values) - 1.5 * room, 0), max(values) + room)
        panel.set_title("bits per byte on validation", pad=14)
        _steps(figure, panel)
        _named(panel, mark, mark.bits if mark else None)

    return picture(draw, width, HEIGHT, name, "Bits per byte over the training steps")


def rate(metrics: list[StepMetrics], width: float, name: str) -> Markup | None:
    """The learning rate over the steps."""
    line = points(metrics, "learning_rate")
    if len(line) < 2:
        return None

    def draw(figure: Figure) -> None:
        panel = _panel(figure, left=62)
        panel.plot(*zip(*thin(line), strict=True), color=SHADE, lw=2)
        panel.set_ylim(0, 1.12 * max(value for _, value in line) or 1)
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
        panel.set_title("learning rate", pad=14)
        _steps(figure, panel)

    return picture(draw, width, HEIGHT - 60, name, "Learning rate over the training steps")


def speed(metrics: list[StepMetrics], width: float, name: str) -> Markup | None:
    """Tokens per second over the steps, with the share of the machine's peak on the right axis."""
    line = points(metrics, "tokens_s")
    if len(line) < 2:
        return None
    pairs = [(entry.tokens_s or 0, entry.peak_share or 0) for entry in metrics]
    whole = sorted(peak / tokens for tokens, peak in pairs if tokens > 0 and peak > 0)

    def draw(figure: Figure) -> None:
        panel = _panel(figure, left=62, right=54 if whole else 24)
        panel.plot(*zip(*thin(line), strict=True), color=SHADE, lw=2)
        high = 1.15 * max(value for _, value in thin(line)) or 1
        panel.set_ylim(0, high)
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        title = "tokens per second"
        if whole:
            factor = whole[len(whole) // 2]
            side = panel.secondary_yaxis("right", functions=(_scaled(factor), _scaled(1 / factor)))
            side.yaxis.set_major_locator(MaxNLocator(4))
            side.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
            side.spines["right"].set_visible(False)
            title += "; right: share of peak"
        panel.set_title(title, pad=14)
        _steps(figure, panel)

    return picture(draw, width, HEIGHT - 60, name, "Tokens per second over the training steps")


def _scaled(factor: float) -> Callable[[Any], Any]:
    return lambda value: factor * value


def chance_bar(p: float, most: float, lasting: bool) -> Markup:
    """A probability as a bar, full at `most`; in the run's colour if the token is `lasting`, else grey."""
    long = 100 * p / most if most > 0 else 0.0
    shade = "var(--c2)" if lasting else "var(--faint)"
    rule = element("rect", x=0, y=0, width=100, height=10, fill="var(--panel)")
    drawn = element("rect", x=0, y=0, width=f"{min(max(long, 0.4), 100):.1f}", height=10, fill=shade)
    return element("svg", rule, drawn, viewBox="0 0 100 10", preserveAspectRatio="none", class_="chance",
                   aria_hidden="true", focusable="false")  # fmt: skip


def thin(line: Points, most: int = DRAWN) -> Points:
    """At most `most` points, each the mean of equally many neighbouring points."""
    if len(line) <= most:
        return line
    edges = [round(i * len(line) / most) for i in range(most + 1)]
    parts = [line[start:end] for start, end in pairwise(edges)]
    return [(sum(x for x, _ in one) / len(one), sum(y for _, y in one) / len(one)) for one in parts]


def _panel(figure: Figure, left: float = 44, right: float = 24) -> Axes:
    panel = figure.subplots()
    inset(figure, left, right, 34, 46)
    panel.grid(axis="y", lw=0.7)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return panel


def _steps(figure: Figure, panel: Axes) -> None:
    """Starts the horizontal axis at 0 and names it; called after the lines are drawn."""
    panel.margins(x=0.02)
    panel.set_xlim(left=0)
    below(figure, "steps")


def _line(panel: Axes, line: Points) -> None:
    if line:
        mark = "o" if len(line) <= MARKED else ""
        panel.plot(*zip(*line, strict=True), color=SHADE, lw=2, marker=mark, ms=5, zorder=3)


def _named(panel: Axes, entry: HeldOut | None, value: float | None) -> None:
    """Marks the figure on held-out text that the page states, and writes it below or above the mark."""
    if entry is None or value is None:
        return
    panel.plot([entry.step], [value], "o", color=SHADE, mfc=PAPER, mew=2, ms=9, zorder=4)
    right, title = entry.step > 0.8 * panel.get_xlim()[1], "finished" if entry.finished else "best"
    bottom = panel.transAxes.transform((0, 0))[1]
    under = right and panel.transData.transform((0, value))[1] - bottom > ROOM  # above it the line comes down
    panel.annotate(
        f"{title}: {number(value, 3)}", (entry.step, value), xytext=(4 if right else 0, -14 if under else 14),
        textcoords="offset points", ha="right" if right else "center", va="top" if under else "bottom", color=INK,
        fontweight="bold", bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}, zorder=5,
    )  # fmt: skip
