"""The pictures of report.html: each is a function of the arms that fills a figure, drawn wide or narrow.

One colour and one mark stand for a method everywhere, and names stand at the marks. A picture for which nothing was
measured is None.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from riyaz.report.arms import about, beaten_by, known, measured
from riyaz.report.markup import Markup, element
from riyaz.report.svg import FAINT, PAPER, Box, colour, inset, label, picture, place, spread
from riyaz.report.words import number

NARROW, HALF, FULL = 340.0, 520.0, 1040.0  # widths in pixels
SLICES_SHOWN = 12
Draw = Callable[[Figure], None]


def quality_cost(arms: list[dict], pick: str | None, metric: str, width: float, name: str) -> Markup | None:
    """Score with interval against ms per answer on a log scale; what answers without a model stands apart."""
    shown = sorted(measured(arms, "score", "ms_per_answer"), key=lambda arm: arm["ms_per_answer"])
    shown = [arm for arm in shown if arm["ms_per_answer"] > 0]
    if len(shown) < 2:
        return None
    groups = _apart(shown)

    def draw(figure: Figure) -> None:
        narrow = width < HALF
        share = 0.42 if narrow else 0.16
        ratios = [share, 1 - share] if len(groups) == 2 else [1]
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False, width_ratios=ratios)[0]
        inset(figure, 40, 24, 34, 46, wspace=0.06 if not narrow else 0.1)
        low, high = score_limits(shown)
        for panel, group in zip(panels, groups, strict=True):
            _cost_axis(panel, [arm["ms_per_answer"] for arm in group])
            panel.set_ylim(low, high)
            panel.grid(axis="y", lw=0.7)
            if panel is panels[-1]:
                _front(panel, shown, panels)
        for panel, group in zip(panels, groups, strict=True):
            _marks(panel, group, arms, "ms_per_answer", pick)
        if len(groups) == 2:
            panels[1].spines["left"].set(linestyle=(0, (2, 3)))
        panels[0].set_title(f"{metric}, with 95 % interval", pad=14)
        figure.text(1 - 24 / width, 6 / _height(figure), "ms for one answer (log scale)", ha="right", va="bottom")

    height = 400 if width < HALF else 420
    return picture(draw, width, height, name, f"{metric} against milliseconds for one answer")


def _apart(shown: list[dict]) -> list[list[dict]]:
    """The arms in one group, or in two when the quickest are a decade or more away from the others."""
    for place_, (one, other) in enumerate(pairwise(shown), 1):
        if other["ms_per_answer"] > 10 * one["ms_per_answer"] and place_ <= max(len(shown) // 2, 1):
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


def score_limits(shown: list[dict]) -> tuple[float, float]:
    """Limits of a score axis that hold every interval."""
    lows = [arm["score"] if known(arm, "ci_low") is None else arm["ci_low"] for arm in shown]
    highs = [arm["score"] if known(arm, "ci_high") is None else arm["ci_high"] for arm in shown]
    room = max(0.12 * (max(highs) - min(lows)), 0.03)
    return min(lows) - room, max(highs) + room


def _front(panel: Axes, shown: list[dict], panels: Sequence[Axes]) -> None:
    """The stepped line through the arms that no other beats, in the last panel; it comes in from the left."""
    front = [arm for arm in shown if beaten_by(arm, shown) is None]
    left, right = panel.get_xlim()
    inside = [arm for arm in front if arm["ms_per_answer"] >= left]
    before = [arm["score"] for arm in front if arm["ms_per_answer"] < left]
    xs, ys = [arm["ms_per_answer"] for arm in inside], [arm["score"] for arm in inside]
    if before:
        xs, ys = [left, *xs], [max(before), *ys]
    if xs:
        panel.step([*xs, right], [*ys, ys[-1]], where="post", color=FAINT, lw=1.2, linestyle=(0, (4, 3)), zorder=1)


def _marks(panel: Axes, group: list[dict], arms: list[dict], key: str, pick: str | None) -> None:
    """Marks with intervals and names: filled on the front, hollow where another arm is better in both."""
    busy: list[Box] = []
    for arm in group:
        shade, x, y = colour(about(arm["method"]).colour), arm[key], arm["score"]
        if known(arm, "ci_low") is not None and known(arm, "ci_high") is not None:
            panel.plot([x, x], [arm["ci_low"], arm["ci_high"]], color=shade, lw=1.6, alpha=0.75, zorder=2)
            low, high = (panel.transData.transform((x, arm[end])) for end in ("ci_low", "ci_high"))
            busy.append((low[0] - 3, low[1], high[0] + 3, high[1]))
        hollow = key == "ms_per_answer" and beaten_by(arm, arms) is not None
        face = PAPER if hollow else shade
        panel.plot([x], [y], about(arm["method"]).mark, color=shade, mfc=face, mec=shade, mew=1.8, ms=9, zorder=3)
    points = [(arm[key], arm["score"], label(arm["method"])) for arm in group]
    place(panel, points, busy, label(pick or ""))


def forgetting(arms: list[dict], pick: str | None, metric: str, width: float, name: str) -> Markup | None:
    """Score against the change on general text, in nats per token; None when no arm changed."""
    shown = measured(arms, "score", "forgetting_nats")
    if not any(arm["forgetting_nats"] for arm in shown):
        return None

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        inset(figure, 40, 24, 34, 46)
        values = [arm["forgetting_nats"] for arm in shown]
        room = max(0.16 * (max(values) - min(values)), 0.02)
        panel.set_xlim(min(*values, 0) - room, max(*values, 0) + room * (2.4 if width < HALF else 1.6))
        panel.set_ylim(*score_limits(shown))
        panel.grid(axis="y", lw=0.7)
        panel.axvline(0, color=FAINT, lw=1, linestyle=(0, (2, 3)))
        panel.xaxis.set_major_locator(MaxNLocator(5))
        _marks(panel, shown, arms, "forgetting_nats", pick)
        panel.set_title(f"{metric}, with 95 % interval", pad=14)
        below(figure, "nats per token lost on general text")

    return picture(draw, width, 360, name, f"{metric} against forgetting")


def below(figure: Figure, text: str) -> None:
    """The name of the horizontal axis, at the right end."""
    width = figure.get_size_inches()[0] * 72
    figure.text(1 - 14 / width, 6 / _height(figure), text, ha="right", va="bottom")


def _height(figure: Figure) -> float:
    return float(figure.get_size_inches()[1]) * 72


def curve_points(arm: dict, key: str) -> list[tuple[float, float]]:
    """(step, loss) of an arm's curve where this loss was measured."""
    curve = arm.get("curve")
    points = [p for p in curve if isinstance(p, dict)] if isinstance(curve, list) else []
    return [(p["step"], p[key]) for p in points if known(p, "step") is not None and known(p, key) is not None]


def learning(arms: list[dict], pick: str | None, width: float, name: str) -> Markup | None:
    """Validation loss per step of every trained arm, with the training loss faint behind it."""
    shown = [arm for arm in arms if curve_points(arm, "loss") or curve_points(arm, "valid_loss")]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        inset(figure, 40, 122, 34, 46)
        ends = []
        for arm in shown:
            shade = colour(about(arm["method"]).colour)
            train, valid = curve_points(arm, "loss"), curve_points(arm, "valid_loss")
            if train:
                panel.plot(*zip(*train, strict=True), color=shade, lw=1.1, alpha=0.35)
            if valid:
                panel.plot(*zip(*valid, strict=True), color=shade, lw=2, marker=about(arm["method"]).mark, ms=5)
            ends.append(((valid or train)[-1], label(arm["method"], 16), shade))
        panel.set_ylim(*_loss_limits(shown))
        panel.set_xlim(left=0)
        panel.margins(x=0.02)
        panel.grid(axis="y", lw=0.7)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        end_names(panel, ends, label(pick or "", 16))
        panel.set_title("loss in nats: validation, and training faint", pad=14)
        below(figure, "steps")

    return picture(draw, width, 360, name, "Loss over the training steps")


def _loss_limits(shown: list[dict]) -> tuple[float, float]:
    """From the lowest to the highest validation loss, with most of the training loss in sight."""
    valid = sorted(loss for arm in shown for _, loss in curve_points(arm, "valid_loss"))
    train = sorted(loss for arm in shown for _, loss in curve_points(arm, "loss"))
    low = min([*valid, *train[int(0.02 * len(train)) :][:1]])
    high = max([*valid, *train[: max(int(0.95 * len(train)), 1)][-1:]])
    room = max(0.06 * (high - low), 0.02)
    return max(low - room, 0) if low >= 0 else low - room, high + room


def end_names(panel: Axes, ends: Sequence[tuple[tuple[float, float], str, str]], bold: str) -> None:
    """Names right of the axes, each at the height where its line ends, moved apart and tied to it."""
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


def slice_scores(arm: dict) -> dict[str, tuple[float, int | None]]:
    """Name -> (score, rows if counted) of the slices of an arm."""
    found = {}
    for title, value in (arm.get("slices") or {}).items():
        entry = value if isinstance(value, dict) else {"score": value}
        score = known(entry, "score")
        rows = known(entry, "n")
        if score is not None:
            found[title] = (score, None if rows is None else int(rows))
    return found


def slices(arms: list[dict], pick: str | None, width: float, name: str) -> Markup | None:
    """One small panel for a slice, one line for an arm, its score as a mark with the figure beside it."""
    shown = [arm for arm in arms if slice_scores(arm)]
    counts: dict[str, int] = {}
    for arm in shown:
        for title, (_, rows) in slice_scores(arm).items():
            counts[title] = max(rows or 0, counts.get(title, 0))
    titles = sorted(counts, key=lambda title: -counts[title])[:SLICES_SHOWN]
    if not titles:
        return None
    columns = min(len(titles), 1 if width < HALF else 4)
    lines = math.ceil(len(titles) / columns)
    names = 120
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
            _slice_panel(panel, shown, titles[place_], pick, place_ % columns == 0)

    return picture(draw, width, height, name, "Scores of every arm in every slice")


def _slice_panel(panel: Axes, shown: list[dict], title: str, pick: str | None, named: bool) -> None:
    panel.set_xlim(-0.04, 1.04)
    panel.set_ylim(len(shown) - 0.4, -0.6)
    panel.set_yticks([])
    for line, arm in enumerate(shown if named else []):
        weight = "bold" if arm["method"] == pick else "normal"
        panel.annotate(
            label(arm["method"], 16), (-0.04, line), xytext=(-8, 0), textcoords="offset points", ha="right",
            va="center_baseline", fontweight=weight, annotation_clip=False,
        )  # fmt: skip
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    panel.grid(axis="x", lw=0.7)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.tick_params(axis="x", length=0)
    for line, arm in enumerate(shown):
        if title not in slice_scores(arm):
            continue
        score, shade = slice_scores(arm)[title][0], colour(about(arm["method"]).colour)
        panel.plot([0, score], [line, line], color=shade, lw=1.4, alpha=0.45)
        panel.plot([score], [line], about(arm["method"]).mark, color=shade, ms=7, clip_on=False)
        far = score > 0.6
        panel.annotate(
            number(score, 2), (score, line), xytext=(-8 if far else 8, 0), textcoords="offset points",
            ha="right" if far else "left", va="center_baseline", fontsize=11,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}, zorder=2,
        )  # fmt: skip


def interval_bar(arm: dict) -> Markup | None:
    """A score and its interval as a small bar from 0 to 1, beside the figures that say the same."""
    if known(arm, "score") is None or not 0 <= arm["score"] <= 1:
        return None
    low, high = known(arm, "ci_low"), known(arm, "ci_high")
    shade = f"var(--c{about(arm['method']).colour})"
    parts = [element("line", x1=0, x2=100, y1=6, y2=6, stroke="var(--rule)", stroke_width=2)]
    if low is not None and high is not None:
        ends = {"x1": f"{100 * low:.1f}", "x2": f"{100 * high:.1f}"}
        parts.append(element("line", **ends, y1=6, y2=6, stroke=shade, stroke_width=5, stroke_opacity=0.45))
    parts.append(element("circle", cx=f"{100 * arm['score']:.1f}", cy=6, r=4, fill=shade))
    return element("svg", *parts, viewBox="-4 0 108 12", class_="bar", aria_hidden="true", focusable="false")
