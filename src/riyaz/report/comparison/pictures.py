"""The pictures of report.html: functions from the arms to an SVG element, None when nothing was measured.

A method has the same colour and mark in every picture. `width` is in CSS pixels, `name` is the prefix of SVG ids.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from riyaz.report.comparison.arms import Mark, about, beaten_by, priced
from riyaz.report.comparison.short_names import short_names, side_room
from riyaz.report.media.markup import Markup, element
from riyaz.report.media.svg import FAINT, PAPER, Box, colour, inset, label, picture, place, spread
from riyaz.report.words import number
from riyaz.results import ArmResult, CurveScore

NARROW, HALF, FULL = 340.0, 520.0, 1040.0  # widths in pixels
SLICES_SHOWN = 12
MARK = 9.0  # diameter of a mark in points
Draw = Callable[[Figure], None]
Points = list[tuple[float, float]]


def quality_cost(arms: list[ArmResult], pick: str | None, metric: str, width: float, name: str) -> Markup | None:
    """Score with interval against ms per answer on a log scale; far quicker arms get a panel of their own."""
    shown = sorted((mark for mark in priced(arms) if mark.cost > 0), key=lambda mark: mark.cost)
    if len(shown) < 2:
        return None
    groups = _apart(shown)

    def draw(figure: Figure) -> None:
        narrow = width < HALF
        share = 0.42 if narrow else 0.16
        ratios = [share, 1 - share] if len(groups) == 2 else [1]
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False, width_ratios=ratios)[0]
        inset(figure, 40, 24, 34, 46, wspace=0.06 if not narrow else 0.1)
        low, high = score_limits([mark.arm for mark in shown])
        for panel, group in zip(panels, groups, strict=True):
            _cost_axis(panel, [mark.cost for mark in group])
            panel.set_ylim(low, high)
            panel.grid(axis="y", lw=0.7)
            if panel is panels[-1]:
                _front(panel, shown, panels)
        for panel, group in zip(panels, groups, strict=True):
            _marks(panel, group, pick, shown, hollow=[mark for mark in group if beaten_by(mark.arm, arms)])
        if len(groups) == 2:
            panels[1].spines["left"].set(linestyle=(0, (2, 3)))
        panels[0].set_title(f"{metric}, with 95 % interval", pad=14)
        figure.text(1 - 24 / width, 6 / _height(figure), "ms for one answer (log scale)", ha="right", va="bottom")

    height = 400 if width < HALF else 420
    height += 8 * max(0, len(shown) - 12)  # room for the names of many
    return picture(draw, width, height, name, f"{metric} against milliseconds for one answer")


def _apart(shown: list[Mark]) -> list[list[Mark]]:
    """The arms in one group, or in two when the quickest are more than ten times faster than the next."""
    for place_, (one, other) in enumerate(pairwise(shown), 1):
        if other.cost > 10 * one.cost and place_ <= max(len(shown) // 2, 1):
            return [shown[:place_], shown[place_:]]
    return [shown]


def _cost_axis(panel: Axes, costs: list[float]) -> None:
    panel.set_xscale("log")
    low, high = min(costs), max(costs)
    room = 1.6 if len(costs) > 1 else 3.0
    panel.set_xlim(low / room, high * room)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = (1, 2, 5) if high / low < 200 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [tick for tick in ticks if low / room <= tick <= high * room]
    ticks = [low] if len(costs) == 1 and low < 1 else ticks or [low]
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.2g}" if value < 1 else f"{value:,.0f}"))


def score_limits(shown: Sequence[ArmResult | CurveScore]) -> tuple[float, float]:
    """Limits of a score axis that hold every score and interval."""
    lows = [low for one in shown for low in [one.score if one.ci_low is None else one.ci_low] if low is not None]
    highs = [high for one in shown for high in [one.score if one.ci_high is None else one.ci_high] if high is not None]
    room = max(0.12 * (max(highs) - min(lows)), 0.03)
    return min(lows) - room, max(highs) + room


def _front(panel: Axes, shown: list[Mark], panels: Sequence[Axes]) -> None:
    """Draws the Pareto front as steps in the last panel; a front arm of the left panel starts it at the left edge."""
    front = [mark for mark in shown if beaten_by(mark.arm, [other.arm for other in shown]) is None]
    left, right = panel.get_xlim()
    inside = [mark for mark in front if mark.cost >= left]
    before = [mark.score for mark in front if mark.cost < left]
    xs, ys = [mark.cost for mark in inside], [mark.score for mark in inside]
    if before:
        xs, ys = [left, *xs], [max(before), *ys]
    if xs:
        panel.step([*xs, right], [*ys, ys[-1]], where="post", color=FAINT, lw=1.2, linestyle=(0, (4, 3)), zorder=1)


def _marks(
    panel: Axes, group: list[Mark], pick: str | None, everything: Sequence[Mark], hollow: Sequence[Mark] = ()
) -> None:
    """Draws each arm's mark, interval and name, which tells it from all marks of the picture, `everything`; marks in
    `hollow` are not filled. Of arms on several bases a mark is the larger the more memory its arm needs."""
    busy: list[Box] = []
    names = short_names([mark.arm for mark in everything])
    for mark in group:
        arm, shade, x = mark.arm, colour(about(mark.arm).colour), mark.cost
        if arm.ci_low is not None and arm.ci_high is not None:
            panel.plot([x, x], [arm.ci_low, arm.ci_high], color=shade, lw=1.6, alpha=0.75, zorder=2)
            low, high = (panel.transData.transform((x, end)) for end in (arm.ci_low, arm.ci_high))
            busy.append((low[0] - 3, low[1], high[0] + 3, high[1]))
        face = PAPER if mark in hollow else shade
        sign = about(arm).mark
        panel.plot(
            [x], [mark.score], sign, color=shade, mfc=face, mec=shade, mew=1.8, ms=_size(arm, everything), zorder=3
        )
    points = [(mark.cost, mark.score, names[mark.arm.name]) for mark in group]
    place(panel, points, busy, names.get(pick or "", ""))


def _size(arm: ArmResult, everything: Sequence[Mark]) -> float:
    """The diameter of an arm's mark in points."""
    memory = {mark.arm.name: mark.arm.serving_mb for mark in everything if mark.arm.base}
    most = max((mb for mb in memory.values() if mb), default=None)
    mb = arm.serving_mb
    return MARK if not memory or most is None or mb is None else 0.7 * MARK + 0.8 * MARK * math.sqrt(mb / max(most, mb))


def forgetting(arms: list[ArmResult], pick: str | None, metric: str, width: float, name: str) -> Markup | None:
    """Score against forgetting in nats per token; None when no arm forgot anything or improved."""
    shown = [
        Mark(arm, arm.score, arm.forgetting_nats)
        for arm in arms
        if arm.score is not None and arm.forgetting_nats is not None
    ]
    if not any(mark.cost for mark in shown):
        return None

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        inset(figure, 40, 24, 34, 46)
        values = [mark.cost for mark in shown]
        room = max(0.16 * (max(values) - min(values)), 0.02)
        panel.set_xlim(min(*values, 0) - room, max(*values, 0) + room * (2.4 if width < HALF else 1.6))
        panel.set_ylim(*score_limits([mark.arm for mark in shown]))
        panel.grid(axis="y", lw=0.7)
        panel.axvline(0, color=FAINT, lw=1, linestyle=(0, (2, 3)))
        panel.xaxis.set_major_locator(MaxNLocator(5))
        _marks(panel, shown, pick, shown)
        panel.set_title(f"{metric}, with 95 % interval", pad=14)
        below(figure, "forgetting, nats per token")

    return picture(draw, width, 360, name, f"{metric} against forgetting")


def below(figure: Figure, text: str) -> None:
    """Writes the title of the horizontal axis at its right end."""
    width = figure.get_size_inches()[0] * 72
    figure.text(1 - 14 / width, 6 / _height(figure), text, ha="right", va="bottom")


def _height(figure: Figure) -> float:
    return float(figure.get_size_inches()[1]) * 72


def _losses(arm: ArmResult) -> tuple[Points, Points]:
    """The (step, loss) points of an arm: training, validation."""
    train: Points = [(point.step, point.loss) for point in arm.curve if point.loss is not None]
    return train, [(point.step, point.valid_loss) for point in arm.curve if point.valid_loss is not None]


def learning_curves(arms: list[ArmResult], pick: str | None, width: float, name: str) -> Markup | None:
    """Validation loss per step of every trained arm, with the training loss drawn faint."""
    shown = [arm for arm in arms if any(_losses(arm))]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        inset(figure, 40, side_room(shown), 34, 46)
        ends, names = [], short_names(shown, 16)
        for arm in shown:
            shade = colour(about(arm).colour)
            train, valid = _losses(arm)
            if train:
                panel.plot(*zip(*train, strict=True), color=shade, lw=1.1, alpha=0.35)
            if valid:
                panel.plot(*zip(*valid, strict=True), color=shade, lw=2, marker=about(arm).mark, ms=5)
            ends.append(((valid or train)[-1], names[arm.name], shade))
        panel.set_ylim(*_loss_limits(shown))
        panel.set_xlim(left=0)
        panel.margins(x=0.02)
        panel.grid(axis="y", lw=0.7)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        end_names(panel, ends, names.get(pick or "", ""))
        panel.set_title("loss in nats: validation, and training faint", pad=14)
        below(figure, "steps")

    return picture(draw, width, 360, name, "Loss over the training steps")


def _loss_limits(shown: list[ArmResult]) -> tuple[float, float]:
    """Axis limits that hold all validation losses and the training losses without their extremes."""
    losses = [_losses(arm) for arm in shown]
    train, valid = (sorted(loss for pair in losses for _, loss in pair[kind]) for kind in (0, 1))
    low = min([*valid, *train[int(0.02 * len(train)) :][:1]])
    high = max([*valid, *train[: max(int(0.95 * len(train)), 1)][-1:]])
    room = max(0.06 * (high - low), 0.02)
    return max(low - room, 0) if low >= 0 else low - room, high + room


def end_names(panel: Axes, ends: Sequence[tuple[tuple[float, float], str, str]], bold: str) -> None:
    """Writes names right of the axes at the heights where the lines end, moved apart, each with a line to its end."""
    right = panel.get_xlim()[1]
    pixels = [panel.transData.transform(point) for point, _, _ in ends]
    edge = panel.transAxes.transform((1, 1))
    heights = spread([y for _, y in pixels], 17, panel.transAxes.transform((0, 0))[1], edge[1])
    for ((x, y), text, shade), height in zip(ends, heights, strict=True):
        at = panel.transAxes.inverted().transform((edge[0] + 16, height))
        panel.annotate(
            text, (min(x, right), y), xytext=(float(at[0]), float(at[1])), textcoords="axes fraction", va="center",
            fontweight="bold" if text == bold else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": shade, "lw": 0.9, "alpha": 0.7, "shrinkA": 1, "shrinkB": 4},
        )  # fmt: skip


def slices(arms: list[ArmResult], pick: str | None, width: float, name: str) -> Markup | None:
    """One panel per slice, one line per arm: its score as a mark with the number beside it."""
    shown = [arm for arm in arms if arm.slices]
    counts: dict[str, int] = {}
    for arm in shown:
        for title, part in arm.slices.items():
            counts[title] = max(part.n or 0, counts.get(title, 0))
    titles = sorted(counts, key=lambda title: -counts[title])[:SLICES_SHOWN]
    if not titles:
        return None
    # log-probabilities begin at the lowest and end at 0
    least = min(0.0, *(part.score for arm in shown for part in arm.slices.values() if part.score is not None))
    columns = min(len(titles), 1 if width < HALF else 4)
    lines = math.ceil(len(titles) / columns)
    names = side_room(shown) - 2
    tall = 20 * len(shown) + 12
    height = lines * (tall + 50) + 4

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, squeeze=False)
        between = (width - names - 22) / columns
        gap = 18 / (between - 18)
        inset(figure, names, 22, 30, 24, wspace=gap, hspace=50 / tall)
        for place_, panel in enumerate(panels.flat):
            if place_ >= len(titles):
                panel.set_visible(False)
                continue
            rows = f" ({counts[titles[place_]]})" if counts[titles[place_]] else ""
            panel.set_title(label(titles[place_], 24) + rows, fontweight="bold", pad=6)
            _slice_panel(panel, shown, titles[place_], pick, place_ % columns == 0, least)

    return picture(draw, width, height, name, "Scores of every method in every slice")


def _slice_panel(panel: Axes, shown: list[ArmResult], title: str, pick: str | None, named: bool, least: float) -> None:
    left, right = (least, 0.0) if least < 0 else (0.0, 1.0)
    room = 0.04 * (right - left)
    panel.set_xlim(left - room, right + room)
    panel.set_ylim(len(shown) - 0.4, -0.6)
    panel.set_yticks([])
    names = short_names(shown, 16)
    for line, arm in enumerate(shown if named else []):
        weight = "bold" if arm.name == pick else "normal"
        panel.annotate(
            names[arm.name], (left - room, line), xytext=(-8, 0), textcoords="offset points", ha="right",
            va="center_baseline", fontweight=weight, annotation_clip=False,
        )  # fmt: skip
    ticks = [left, (left + right) / 2, right]
    panel.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    panel.grid(axis="x", lw=0.7)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.tick_params(axis="x", length=0)
    for line, arm in enumerate(shown):
        score, shade = arm.slices[title].score if title in arm.slices else None, colour(about(arm).colour)
        if score is None:
            continue
        panel.plot([left, score], [line, line], color=shade, lw=1.4, alpha=0.45)
        panel.plot([score], [line], about(arm).mark, color=shade, ms=7, clip_on=False)
        far = score > left + 0.6 * (right - left)
        panel.annotate(
            number(score, 2), (score, line), xytext=(-8 if far else 8, 0), textcoords="offset points",
            ha="right" if far else "left", va="center_baseline", fontsize=11,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}, zorder=2,
        )  # fmt: skip


def interval_bar(arm: ArmResult, ends: tuple[float, float] = (0.0, 1.0)) -> Markup | None:
    """A score and its interval as a small bar whose ends are these scores; None for a score outside them."""
    if arm.score is None or not ends[0] <= arm.score <= ends[1]:
        return None
    score, low, high = (None if x is None else (x - ends[0]) / (ends[1] - ends[0])
                        for x in (arm.score, arm.ci_low, arm.ci_high))  # fmt: skip
    shade = f"var(--c{about(arm).colour})"
    parts = [element("line", x1=0, x2=100, y1=6, y2=6, stroke="var(--rule)", stroke_width=2)]
    if low is not None and high is not None:
        sides = {"x1": f"{100 * low:.1f}", "x2": f"{100 * high:.1f}"}
        parts.append(element("line", **sides, y1=6, y2=6, stroke=shade, stroke_width=5, stroke_opacity=0.45))
    parts.append(element("circle", cx=f"{100 * (score or 0.0):.1f}", cy=6, r=4, fill=shade))
    return element("svg", *parts, viewBox="-4 0 108 12", class_="bar", aria_hidden="true", focusable="false")
