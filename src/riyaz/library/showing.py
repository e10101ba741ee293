"""Results as HTML for a notebook, in the notebook's own colours, and as plain text. Every text is escaped."""

from collections.abc import Callable, Collection, Sequence
from io import StringIO
from typing import Any

from riyaz.report.media import screen
from riyaz.report.media.markup import Markup, element
from riyaz.report.words import columns
from riyaz.results import ArmResult

RIGHT, LEFT, STRONG = "text-align: right", "text-align: left", "font-weight: bold"
FAINT = "opacity: 0.7; margin: 0.2em 0"
TRACK = "display: inline-block; width: 8em; height: 0.7em; border: 1px solid currentColor; opacity: 0.7"
FILLED = "display: block; height: 100%; background: currentColor; width: {:.1f}%"


def table_html(
    titles: Sequence[str], rows: Sequence[Sequence[object]], texts: Collection[str], strong: Collection[int] = ()
) -> Markup:
    """A table: columns titled in `texts` are aligned left, the others right; rows at the places `strong` are bold."""
    aligned = [LEFT if title in texts else RIGHT for title in titles]
    head = element("tr", *(element("th", title, style=style) for title, style in zip(titles, aligned, strict=True)))
    body = [
        element(
            "tr",
            *(element("td", cell, style=style) for cell, style in zip(row, aligned, strict=True)),
            style=STRONG if place in strong else None,
        )
        for place, row in enumerate(rows)
    ]
    return element("table", element("thead", head), element("tbody", *body))


def arms_html(arms: Sequence[ArmResult], pick: str | None) -> Markup:
    """The arms as a table of HTML; that of the pick is bold."""
    shown = columns(arms, pick)
    rows = [[column.fill(arm) for column in shown] for arm in arms]
    texts = {column.title for column in shown if column.text}
    return table_html([column.title for column in shown], rows, texts, {arms.index(a) for a in arms if a.name == pick})


def bar_html(share: float) -> Markup:
    """A share from 0 to 1 as a bar in the colour of the text."""
    filled = element("span", style=FILLED.format(100 * min(max(share, 0.0), 1.0)))
    return element("span", filled, style=TRACK, role="img", aria_label=f"{share:.1%}")


def printed(show: Callable[[Any], None]) -> str:
    """What a function prints on a console of a fixed width, as text."""
    text = StringIO()
    console = screen.PipeConsole(
        file=text, width=screen.PLAIN_WIDTH, highlight=False, markup=False, emoji=False, force_jupyter=False,
        force_terminal=False,
    )  # fmt: skip
    show(console)
    return text.getvalue().rstrip()
