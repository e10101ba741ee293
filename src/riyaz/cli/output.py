"""The output of a command: progress to stderr, data to stdout; with --json, stdout gets one JSON document only."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from riyaz.json_files import to_json
from riyaz.report.media.screen import console, print_lines
from riyaz.report.media.stacked import Cells, table


class Screen:
    """The consoles of one command: `talk` is stderr, `data` is stdout, or stderr too with --json. With --quiet nothing
    is printed to `talk`; `asked` is stderr for what was asked for at a prompt, and for errors there."""

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.talk: Console = console(stderr=True, quiet=quiet)
        self.asked: Console = console(stderr=True)
        self.data: Console = self.talk if json else console(stderr=False)

    def table(
        self,
        titles: Sequence[str],
        rows: Sequence[Sequence[str]],
        numbers: Sequence[str] = (),
        later: Sequence[str] = (),
    ) -> None:
        """Print a plain table to `data`; the columns named in `numbers` are aligned right. Where it is too wide, those
        named in `later` follow below first."""
        columns = [
            Cells(title, [row[place] for row in rows], title not in numbers) for place, title in enumerate(titles)
        ]
        print_lines(table(columns, self.data.width, later), self.data)

    def fact(self, name: str, text: str, indent: int = 15) -> None:
        """Print a named fact to `data`; a terminal wraps a long one beside its name, elsewhere it is one line."""
        label = (f"{name:<{indent}}", "dim")
        if not self.data.is_terminal:
            self.data.print(Text.assemble(label, text), soft_wrap=True)
            return
        room = max(self.data.width - indent, 20)
        for line in Text(text).wrap(self.data, room) or [Text()]:
            line.rstrip()
            self.data.print(Text.assemble(label, line), soft_wrap=True)
            label = (" " * indent, "")

    def finish(self, document: Any) -> None:
        """With --json, write the document as the last line of stdout; else nothing."""
        if self.json:
            sys.stdout.write(json_line(document))
            sys.stdout.flush()


def json_line(document: Any) -> str:
    """The document as one line of ASCII JSON; NaN becomes null, a path text."""
    return to_json(document, ascii=True) + "\n"
