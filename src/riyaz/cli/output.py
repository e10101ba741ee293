"""Where a verb writes: talk to stderr, data to stdout; with --json stdout carries one JSON document only."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

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

    def finish(self, document: dict[str, Any]) -> None:
        """With --json, the document as the last line of stdout."""
        if self.json:
            sys.stdout.write(json_line(document))
            sys.stdout.flush()


def json_line(document: dict[str, Any]) -> str:
    """The document as one line of strict JSON: no NaN, paths as text."""
    return json.dumps(_plain(document), allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing; half a surrogate pair, which UTF-8 cannot hold, as its JSON escape."""
    from riyaz.sources.files import atomic_file

    with atomic_file(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy, without importing it
        return _plain(value.tolist())
    return value if value is None or isinstance(value, str | int | bool) else str(value)
