"""Where a verb writes: talk to stderr, data to stdout; with --json stdout carries one JSON document only."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from riyaz.files import to_json
from riyaz.report.terminal import console


class Screen:
    """The two consoles of one command; `data` is stderr as well when a JSON document is wanted."""

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self.talk: Console = console(stderr=True)
        self.data: Console = self.talk if json else console(stderr=False)

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> None:
        """A plain table on the data side; the columns named in `numbers` stand right."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for title in titles:
            table.add_column(title, justify="right" if title in numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.data.print(table)

    def finish(self, document: Any) -> None:
        """With --json, the document as the last line of stdout."""
        if self.json:
            sys.stdout.write(json_line(document))
            sys.stdout.flush()


def json_line(document: Any) -> str:
    """The document as one line of strict JSON: no NaN, paths as text."""
    return to_json(document, ascii=True) + "\n"
