"""From a matplotlib figure to SVG that lives inside a page: text stays text, and colours are the page's variables.

A picture is drawn in the colours of page.css in its light theme; in the SVG they become `currentColor` and CSS
variables, so that it follows the theme. Lengths are CSS pixels. Inline styles become presentation attributes, which a
strict content security policy allows.
"""

import io
import itertools
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from riyaz.report.media.markup import Markup, clean, element

INK, RULE, FAINT, PAPER = "#21201d", "#d9d5cc", "#8f8a80", "#fcfbf8"
COLOURS = (
    "#6f6c66", "#3d9bd4", "#00598c", "#009e73", "#a38b00", "#c98100", "#d55e00", "#c0649a", "#7a5230", "#5b61b5",
    "#b3274f", "#4d7c0f", "#8a3ffc", "#0f766e", "#a21caf", "#475569",
)  # fmt: skip
NAMES = {
    INK: "currentColor", RULE: "var(--rule)", FAINT: "var(--faint)", PAPER: "var(--paper)",
    **{shade: f"var(--c{number})" for number, shade in enumerate(COLOURS)},
}  # fmt: skip
SIZE = 13.0  # font size in pixels
WIDE_LETTER = 0.58  # mean width of a letter as a share of the font size
PRESENTED = {
    "fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin",
    "stroke-opacity", "fill-opacity", "opacity", "text-anchor", "font-size", "font-weight",
}  # fmt: skip
SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "riyaz", "text.parse_math": False, "font.size": SIZE, "figure.dpi": 72,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": RULE, "xtick.color": RULE, "ytick.color": RULE,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "grid.color": RULE, "axes.spines.top": False,
    "axes.spines.right": False, "axes.facecolor": "none", "figure.facecolor": "none", "axes.titlesize": SIZE,
    "axes.titlelocation": "left", "axes.axisbelow": True, "ytick.major.size": 0, "xtick.major.size": 3,
    "xtick.minor.size": 0, "axes.unicode_minus": True, "savefig.facecolor": "none", "path.simplify": True,
}  # fmt: skip
Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


def colour(number: int) -> str:
    """The colour that becomes the page's variable `--c<number>`."""
    return COLOURS[number]


class Drawing(Figure):
    """A figure that a notebook shows as a PNG picture."""

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.savefig(written, format="png", dpi=self.dpi)
        return written.getvalue()


class Picture(Markup):
    """An SVG element with the matplotlib figure that it was made from, in the colours of the light theme."""

    figure: Drawing


def picture(draw: Callable[[Figure], None], width: float, height: float, name: str, title: str) -> Picture:
    """The figure that `draw` fills, `width` by `height` CSS pixels, as an SVG element named `title`.

    `name` is put before every id, so that ids stay unique on a page with several pictures.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs a font search on first use
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs its own font lacks: the page's font draws them
        figure = Drawing(figsize=(width / 72, height / 72))
        FigureCanvasSVG(figure)
        draw(figure)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(written.getvalue())
    inside = [_convert(child, name) for child in root]
    made = Picture(element(
        "svg", element("title", title, id=f"{name}-title"), *inside, viewBox=f"0 0 {width:g} {height:g}", role="img",
        aria_labelledby=f"{name}-title", stroke_linejoin="round", class_="drawn", focusable="false",
    ))  # fmt: skip
    figure.set(facecolor=PAPER, dpi=2 * 72)
    made.figure = figure
    return made


def _convert(node: ElementTree.Element, name: str) -> Markup | None:
    """An element and its children without styles and namespaces, `name` before every id."""
    tag = node.tag.rpartition("}")[2]
    if tag in ("metadata", "style"):
        return None
    attributes = {}
    for key, value in node.attrib.items():
        key = key.rpartition("}")[2]
        if key == "style":
            attributes.update(_presentation(value))
        elif key == "id":
            attributes[key] = f"{name}-{value}"
        elif value.startswith("#") and key == "href":
            attributes[key] = f"#{name}-{value[1:]}"
        elif key != "href":
            attributes[key] = re.sub(r"url\(#(.*?)\)", rf"url(#{name}-\1)", value)
    children = [_convert(child, name) for child in node]
    text = node.text if tag == "text" else None
    return element(tag, text, *children, **{key: _themed(value) for key, value in attributes.items()})


def _presentation(style: str) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for part in style.split(";"):
        key, _, value = (piece.strip() for piece in part.partition(":"))
        if key == "font":  # `700 13px 'DejaVu Sans'`: the page chooses the family
            size, weight = re.search(r"([\d.]+)px", value), re.match(r"\d00|bold", value)
            attributes |= {"font-size": size[1]} if size else {}
            attributes |= {"font-weight": weight[0]} if weight else {}
        elif key in PRESENTED:
            attributes[key] = value.removesuffix("px")
    return attributes


def _themed(value: str) -> str:
    return NAMES.get(value, value)


def inset(figure: Figure, left: float, right: float, top: float, bottom: float, **gaps: float) -> None:
    """Sets the margins around the axes, in pixels."""
    width, height = figure.get_size_inches() * 72
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height, **gaps
    )


def label(text: object, most: int = 28) -> str:
    """A name on one line, cut to `most` characters."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def text_box(x: float, y: float, text: str, align: str, size: float = SIZE) -> Box:
    """The estimated box of a text vertically centred on y, with x at its `align`: left, center or right."""
    width = WIDE_LETTER * size * len(text)
    left = {"left": x, "center": x - width / 2, "right": x - width}[align]
    return left, y - 0.6 * size, left + width, y + 0.6 * size


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box, frame: Box) -> float:
    return sum(max(gap, 0) for gap in (frame[0] - box[0], frame[1] - box[1], box[2] - frame[2], box[3] - frame[3]))


SIDES = [
    (12, 0, "left"), (-12, 0, "right"), (0, 15, "center"), (0, -15, "center"), (10, 13, "left"), (10, -13, "left"),
    (-10, 13, "right"), (-10, -13, "right"), (12, 24, "left"), (12, -24, "left"), (-12, 24, "right"),
    (-12, -24, "right"), (0, 28, "center"), (0, -28, "center"),
]  # fmt: skip


def place(axes: Axes, points: Sequence[tuple[float, float, str]], busy: Sequence[Box] = (), bold: str = "") -> None:
    """Writes each point's name beside it where it overlaps other marks, `busy` boxes and earlier names least.

    Points are in data units, boxes in pixels. A name far from its mark gets a thin line to it.
    """
    figure = axes.get_figure()
    assert figure is not None
    width = figure.bbox.width
    (left, bottom), (right, top) = axes.transAxes.transform([(0, 0), (1, 1)])
    frame = (left + 2, bottom + 2, min(right + 12, width - 2), top + 8)  # clear of the tick labels
    marks = [axes.transData.transform((x, y)) for x, y, _ in points]
    taken: list[Box] = [*busy, *((x - 6, y - 6, x + 6, y + 6) for x, y in marks)]
    for (px, py), (x, y, text) in zip(marks, points, strict=True):

        def cost(side: tuple[float, float, str], px: float = px, py: float = py, text: str = text) -> float:
            box = text_box(px + side[0], py + side[1], text, side[2])
            return sum(_overlap(box, other) for other in taken) + 40 * _outside(box, frame) + 0.1 * abs(side[1])

        best = min(SIDES, key=cost)
        taken.append(text_box(px + best[0], py + best[1], text, best[2]))
        far = abs(best[1]) > 20
        axes.annotate(
            text, (x, y), xytext=(best[0], best[1]), textcoords="offset points", ha=best[2],  # type: ignore[arg-type]
            va="center", fontweight="bold" if text == bold else "normal", annotation_clip=False, zorder=2.5,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5},
            arrowprops={"arrowstyle": "-", "color": RULE, "lw": 0.8, "shrinkA": 0, "shrinkB": 5} if far else None,
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The heights moved apart by one sweep up and one down, so that neighbours are `gap` apart between low and high."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    moved = list(heights)
    for before, here in itertools.pairwise(order):
        moved[here] = max(moved[here], moved[before] + gap)
    ceiling = high
    for here in reversed(order):
        moved[here] = min(moved[here], ceiling)
        ceiling = moved[here] - gap
    lift = max(low - min(moved, default=low), 0)
    return [height + lift for height in moved]
