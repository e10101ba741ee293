"""The output of a command: progress to stderr, data to stdout; with --json, stdout gets one JSON document only."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from riyaz.files import to_json
from riyaz.report.terminal import console


class Screen:
    """The consoles of one command: `talk` is stderr, `data` is stdout, or stderr too with --json."""

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self.talk: Console = console(stderr=True)
        self.data: Console = self.talk if json else console(stderr=False)

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> None:
        """Print a plain table to `data`; the columns named in `numbers` are aligned right."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for title in titles:
            table.add_column(title, justify="right" if title in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.data.print(table)

    def finish(self, document: Any) -> None:
        """With --json, write the document as the last line of stdout; else nothing."""
        if self.json:
            sys.stdout.write(json_line(document))
            sys.stdout.flush()


def json_line(document: Any) -> str:
    """The document as one line of ASCII JSON; NaN becomes null, a path text."""
    return to_json(document, ascii=True) + "\n"
