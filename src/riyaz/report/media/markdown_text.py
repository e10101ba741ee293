"""Text and tables that Markdown takes literally."""

import re

from riyaz.report.media.markup import clean


def grid(titles: list[str], rows: list[list[str]], text: list[bool] | None = None, *, escaped: bool = False) -> str:
    """A Markdown table; `text` says which columns are aligned left, by default only the first."""
    left = text or [True] + [False] * (len(titles) - 1)
    cell = str if escaped else escape
    lines = ["| " + " | ".join(map(escape, titles)) + " |", "|" + "|".join("---" if t else "---:" for t in left) + "|"]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def escape(text: object) -> str:
    """Any text as one line that Markdown and HTML take literally; control characters and overrides by their names."""
    flat = " ".join(clean(text).split())
    flat = re.sub(r"[\\`*|\[\]]|(?<![^\W_])_|_(?![^\W_])|^#|^[+-](?= )", r"\\\g<0>", flat)
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", flat)
