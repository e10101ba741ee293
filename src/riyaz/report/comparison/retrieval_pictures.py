"""The pictures of retrieval and of the data curve in report.html; None when nothing was measured."""

from matplotlib.figure import Figure

from riyaz.report.comparison.arms import about
from riyaz.report.comparison.extra_findings import contexts as scores_of
from riyaz.report.comparison.extra_findings import curve_points, recall_points
from riyaz.report.comparison.pictures import HALF, below, end_names, score_limits
from riyaz.report.comparison.short_names import short_names, side_room
from riyaz.report.media.markup import Markup
from riyaz.report.media.svg import INK, colour, inset, picture
from riyaz.report.words import number
from riyaz.results import ArmResult, Comparison, Retrieval

Pairs = list[tuple[ArmResult, Retrieval]]


def recall(pairs: Pairs, width: float, name: str) -> Markup | None:
    """Recall at k, one line per arm that retrieves."""
    shown = [(arm, points) for arm, retrieval in pairs if (points := recall_points(retrieval))]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        inset(figure, 40, side_room([arm for arm, _ in shown]), 34, 46)
        ranks = sorted({k for _, points in shown for k, _ in points})
        for arm, points in shown:
            shade = colour(about(arm).colour)
            xs, ys = [ranks.index(k) for k, _ in points], [value for _, value in points]
            panel.plot(xs, ys, color=shade, lw=2, marker=about(arm).mark, ms=7)
        panel.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
        low = min(value for _, points in shown for _, value in points)
        panel.set_ylim(max(min(low - 0.08, 0.8), 0), 1.02)
        panel.grid(axis="y", lw=0.7)
        names = short_names([arm for arm, _ in shown], 16)
        ends = [
            ((ranks.index(points[-1][0]), points[-1][1]), names[arm.name], colour(about(arm).colour))
            for arm, points in shown
        ]
        end_names(panel, ends, "")
        panel.set_title("recall: right document in the first k", pad=14)
        below(figure, "k passages")

    return picture(draw, width, 320, name, "Recall at k")


CONTEXTS = ("no passages", "retrieved passages", "right documents")


def contexts(pairs: Pairs, metric: str, width: float, name: str) -> Markup | None:
    """Score without passages, with the retrieved passages and with the right documents."""
    scored = [(arm, scores_of(retrieval)) for arm, retrieval in pairs]
    shown = [(arm, scores) for arm, scores in scored if any(score is not None for score in scores)]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        inset(figure, 134, 30, 34, 46)
        high, names, apart = 0.0, short_names([arm for arm, _ in shown], 12), min(0.3, 0.9 / len(shown))
        for place_, (arm, scores) in enumerate(shown):
            shade, away = colour(about(arm).colour), apart * (place_ - (len(shown) - 1) / 2)
            for line, score in enumerate(scores):
                if score is None:
                    continue
                high = max(high, score)
                panel.plot([0, score], [line + away] * 2, color=shade, lw=1.4, alpha=0.45)
                panel.plot([score], [line + away], about(arm).mark, color=shade, ms=8, clip_on=False)
                text = f"{number(score, 2)} {names[arm.name]}"
                panel.annotate(text, (score, line + away), xytext=(9, 0), textcoords="offset points", va="center")
        panel.set_xlim(0, max(high * (1.9 if width < HALF else 1.45), 1))
        panel.set_ylim(2.6, -0.6)
        panel.set_yticks(range(len(CONTEXTS)), CONTEXTS)
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panel.grid(axis="x", lw=0.7)
        panel.set_title("passages in the prompt", pad=14)
        below(figure, metric)

    return picture(draw, width, 320, name, f"{metric} without, with retrieved and with the right passages")


def data_curve(comparison: Comparison, metric: str, width: float, name: str) -> Markup | None:
    """Score of one method against the number of its training rows."""
    points, arm = curve_points(comparison), comparison.arm(comparison.curve_method)
    if not points or arm is None:
        return None

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        inset(figure, 40, 24, 34, 46)
        xs, ys = [point.rows for point in points], [point.score for point in points]
        shade = colour(about(arm).colour)
        for point in points:
            if point.ci_low is not None and point.ci_high is not None:
                panel.plot([point.rows] * 2, [point.ci_low, point.ci_high], color=shade, lw=1.6, alpha=0.75)
        panel.plot(xs, ys, color=shade, lw=2, marker=about(arm).mark, ms=8)
        for x, y in zip(xs, ys, strict=True):
            panel.annotate(number(y, 3), (x, y), xytext=(9, -11), textcoords="offset points", color=INK)
        panel.set_xlim(0, max(xs) * 1.14)
        panel.set_xticks(xs, [number(x) for x in xs])
        panel.set_ylim(*score_limits(points))
        panel.grid(axis="y", lw=0.7)
        panel.set_title(f"{metric}, with 95 % interval", pad=14)
        below(figure, "training rows")

    return picture(draw, width, 320, name, f"{metric} with more training rows")
