"""Tables and figures of report.html; a wide table scrolls inside a region that the keyboard can reach."""

from collections.abc import Sequence

from riyaz.report.media.markup import Markup, element


def grid(titles: Sequence[object], rows: Sequence[Sequence[object]], caption: str, text: int = 1) -> Markup:
    """A table; its first `text` columns are aligned left, the others are numbers, aligned right."""
    head = element("tr", *(element("th", title, scope="col", class_=_side(i, text)) for i, title in enumerate(titles)))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=_side(i, text)) for i, cell in enumerate(row[1:], 1)),
        )
        for row in rows
    ]
    table = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", table, class_="wide-table", role="region", aria_label=caption, tabindex="0")


def _side(column: int, text: int) -> str | None:
    return None if column < text else "figure"


def numbers(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """The numbers of a picture as a table."""
    return grid(titles, rows, "The figures of the picture: " + ", ".join(titles))


def figure(drawn: Sequence[Markup | None], caption: str, table: Markup | None) -> Markup:
    """A picture, drawn wide and narrow, with a caption and its numbers as a table that can be opened."""
    wide, narrow = drawn
    return element(
        "figure",
        element("div", wide, class_="for-wide"),
        element("div", narrow, class_="for-narrow"),
        element("figcaption", caption),
        element("details", element("summary", "The figures"), table) if table else None,
    )
