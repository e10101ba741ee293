"""What a model cannot do, as a section of report.html, and as a page of its own."""

from collections.abc import Mapping

from riyaz.report.comparison.pictures import HALF, NARROW
from riyaz.report.limits import pictures as limits_pictures
from riyaz.report.limits import words as limits_words
from riyaz.report.media.markup import Markup, element, join
from riyaz.report.media.page import Section, asset, page
from riyaz.report.media.tables import figure, grid
from riyaz.report.words import duration
from riyaz.results import Limits, Part, Suite

TITLE = "What it cannot do"
MANY = 12  # rows from which on a table is behind a summary


def section(measured: Mapping[str, Limits]) -> Markup | None:
    """The limits of the arms of a comparison that were measured, side by side, then each in detail."""
    if not measured:
        return None
    parts = [element("p", limits_words.LEAD)]
    titles, rows = limits_words.side_by_side(measured)
    if rows:
        parts.append(grid(titles, rows, "The same figures of every method that was measured. Intervals: 95 %."))
    for place, (method, document) in enumerate(measured.items()):
        inside = join(*(_suite(suite, f"m{place}s{number}", 4) for number, suite in enumerate(document.suites)))
        summary = element("summary", f"{method}: {limits_words.facts(document)}")
        parts.append(element("details", summary, inside, open=len(measured) == 1))
    return join(*parts)


def whole_page(document: Limits) -> str:
    """The page of one target."""
    parts = [part for suite in document.suites for part in suite.parts]
    lines = limits_words.findings(parts)
    head = element(
        "header",
        element("p", element("b", "Riyaz"), " · limits", class_="over"),
        element("h1", f"What {limits_words.called(document)} cannot do"),
        element("p", limits_words.facts(document), class_="quiet facts-line"),
        element("p", limits_words.LEAD, class_="lead"),
        element("p", limits_words.BEYOND) if lines else None,
        element("ul", *(element("li", line) for line in lines)) if lines else None,
    )
    sections: list[Section] = [
        (suite.name, limits_words.title(suite), limits_words.title(suite), _suite(suite, f"s{place}", 3, heading=False))
        for place, suite in enumerate(document.suites)
    ]
    foot = "Made by riyaz from limits.json; this file fetches nothing."
    return page(
        f"Riyaz: what {limits_words.called(document)} cannot do", head, sections, foot, style=asset("media/page.css")
    )


def _suite(suite: Suite, name: str, level: int, heading: bool = True) -> Markup:
    took = element("p", f"Measured in {duration(suite.seconds)}.", class_="quiet") if suite.parts else None
    left_out = [element("li", line) for line in suite.left_out]
    return join(
        element(f"h{level - 1}", limits_words.title(suite)) if heading else None,
        took,
        *(_part(part, f"{name}p{place}", level) for place, part in enumerate(suite.parts)),
        element("p", "Left out:", class_="quiet") if left_out else None,
        element("ul", *left_out) if left_out else None,
    )


def _part(part: Part, name: str, level: int) -> Markup:
    titles, rows = limits_words.joined(*limits_words.table(part))
    table = grid(titles, rows, f"{part.name}: {part.source}")
    drawn = [limits_pictures.intervals(part, width, f"{name}{end}") for width, end in ((HALF, "w"), (NARROW, "n"))]
    figures = []
    if drawn[0]:
        known = limits_pictures.compared(part)[0].even is not None
        caption = "Mark and line: value and 95 % interval." + (" Dashed: where nothing is found." if known else "")
        figures.append(figure(drawn, caption, None))
    for place, line in enumerate(part.curves):
        ends = ((HALF, f"c{place}w"), (NARROW, f"c{place}n"))
        lines = [limits_pictures.curve(line, width, f"{name}{end}") for width, end in ends]
        if lines[0]:
            points = grid([line.x, line.y], limits_pictures.points(line), line.name, text=0)
            figures.append(figure(lines, f"{line.name[:1].upper()}{line.name[1:]}.", points))
    long = len(rows) > MANY and figures
    return join(
        element(f"h{level}", f"{part.name[:1].upper()}{part.name[1:]}"),
        element("p", part.what),
        element("div", *figures, class_="pair") if figures else None,
        element("details", element("summary", "The figures"), table) if long else table,
        element("ul", *(element("li", note) for note in part.notes)) if part.notes else None,
        element("p", element("b", "It cannot see: "), part.blind, class_="note"),
    )
