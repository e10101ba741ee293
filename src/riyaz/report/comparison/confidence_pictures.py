"""The pictures of how sure answers are in report.html; None where no answer has a confidence."""

from matplotlib.figure import Figure

from riyaz.report.comparison.arms import about
from riyaz.report.comparison.confidence import calibrated
from riyaz.report.comparison.pictures import FULL, HALF, below, end_names
from riyaz.report.comparison.short_names import short_names, side_room
from riyaz.report.media.markup import Markup
from riyaz.report.media.svg import FAINT, colour, inset, label, picture
from riyaz.results import ArmResult, Calibration

SHOWN = 12  # methods
LEAST = 0.05  # share of answers from which on the curve is drawn: the first few rows are chance


def risk(arms: list[ArmResult], pick: str | None, width: float, name: str) -> Markup | None:
    """Share of wrong answers among those given, by how many are given, one line per arm."""
    curves = [(arm, [point for point in each.risk if point[0] >= LEAST]) for arm, each in calibrated(arms)]
    shown = [(arm, points) for arm, points in curves if len(points) > 1]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        inset(figure, 40, side_room([arm for arm, _ in shown]), 34, 46)
        for arm, points in shown:
            panel.plot(*zip(*points, strict=True), color=colour(about(arm).colour), lw=2)
        panel.set_xlim(0, 1)
        panel.set_ylim(0, min(1.0, 1.05 * max(wrong for _, points in shown for _, wrong in points) + 0.02))
        panel.grid(axis="y", lw=0.7)
        panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        names = short_names([arm for arm, _ in shown], 16)
        ends = [(points[-1], names[arm.name], colour(about(arm).colour)) for arm, points in shown]
        end_names(panel, ends, names.get(pick or "", ""))
        panel.set_title("wrong among the answers given", pad=14)
        below(figure, "answers given, the surest first")

    return picture(draw, width, 360, name, "Wrong answers among those given, by the share of answers given")


def reliability(arms: list[ArmResult], pick: str | None, width: float, name: str) -> Markup | None:
    """A panel for each arm: the share of right answers by their mean confidence, in bins."""
    names = short_names(arms, 16)
    shown = [(names[arm.name], arm, each) for arm, each in calibrated(arms)]
    return panels_of(shown, names.get(pick or ""), width, name)


def panels_of(
    shown: list[tuple[str, ArmResult, Calibration]], pick: str | None, width: float, name: str
) -> Markup | None:
    """A panel for each title, in its arm's colour and mark; that of `pick` in bold."""
    shown = shown[:SHOWN]
    if not shown:
        return None
    columns = 2 if width < HALF else 3 if width < FULL else 4
    lines = -(-len(shown) // columns)
    side = (width - 40 - 24) / columns - 34
    height = lines * (side + 62) + 24

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        inset(figure, 40, 24, 30, 46, wspace=34 / side, hspace=62 / side)
        for place, panel in enumerate(panels.flat):
            if place >= len(shown):
                panel.set_visible(False)
                continue
            title, arm, each = shown[place]
            shade = colour(about(arm).colour)
            panel.plot([0, 1], [0, 1], color=FAINT, lw=1, linestyle=(0, (4, 3)))
            sure, right, _ = zip(*each.bins, strict=True)
            panel.plot(sure, right, about(arm).mark, color=shade, ms=6, alpha=0.85, clip_on=False)
            panel.set(xlim=(0, 1), ylim=(0, 1))
            panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            panel.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
            panel.tick_params(labelbottom=True, labelleft=place % columns == 0)
            panel.grid(lw=0.7)
            panel.set_title(label(title, 16), fontweight="bold" if title == pick else "normal", pad=8)
        below(figure, "confidence; upwards: share that is right")

    return picture(draw, width, height, name, "Share of right answers by their confidence, for each panel")
