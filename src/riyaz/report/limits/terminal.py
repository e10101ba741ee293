"""limits.json on the terminal: for every part what was measured, its figures, and what it cannot see."""

import textwrap

from rich.console import Console
from rich.text import Text

from riyaz.report.limits import words as limits_words
from riyaz.report.media.screen import print_lines
from riyaz.report.media.stacked import Cells, table
from riyaz.report.words import duration
from riyaz.results import Limits, Part

TEXTS = ("group", "figure")
LATER = ("even", "p")  # stand below where the terminal is narrow


def print_limits(document: Limits, out: Console) -> None:
    """Print every suite, its parts, and what was left out."""
    for suite in document.suites:
        out.print(Text.assemble((limits_words.title(suite), "bold"), (f"  {duration(suite.seconds)}", "dim")))
        for part in suite.parts:
            _print_part(part, out)
        for line in suite.left_out:
            out.print(Text.assemble(("left out  ", "dim"), line))
        out.print()


def _print_part(part: Part, out: Console) -> None:
    out.print()
    out.print(Text.assemble((part.name, "bold"), (f"  {part.source}", "dim")), soft_wrap=True)
    out.print(textwrap.fill(part.what, out.width))
    titles, rows = limits_words.table(part)
    columns = [Cells(title, [row[place] for row in rows], title in TEXTS) for place, title in enumerate(titles)]
    print_lines(table(columns, out.width, LATER), out)
    for line in [*part.notes, f"cannot see: {part.blind}"]:
        out.print(Text(textwrap.fill(line, out.width), style="dim"))
