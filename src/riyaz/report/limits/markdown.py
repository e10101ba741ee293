"""What a model cannot do, as Markdown: a section of report.md, and a file of its own."""

from collections.abc import Mapping

from riyaz.report.limits import words as limits_words
from riyaz.report.media.markdown_text import escape, grid
from riyaz.results import Limits, Part, Suite


def section(measured: Mapping[str, Limits]) -> str:
    """The limits of the arms of a comparison that were measured; empty if none were."""
    if not measured:
        return ""
    parts = ["## What they cannot do", escape(limits_words.LEAD)]
    titles, rows = limits_words.side_by_side(measured)
    if rows:
        parts.append(grid(titles, rows, [True] + [False] * len(measured)))
    for method, document in measured.items():
        parts += [f"### Limits of {escape(method)}", escape(limits_words.facts(document)), *suites(document, 4)]
    return "\n\n".join(parts)


def whole(document: Limits) -> str:
    """The report of one target."""
    head = [f"# What {escape(limits_words.called(document))} cannot do", escape(limits_words.facts(document))]
    return "\n\n".join([*head, escape(limits_words.LEAD), *suites(document, 2)]) + "\n"


def suites(document: Limits, level: int) -> list[str]:
    """Every suite as blocks, with headings from this level on."""
    return [block for suite in document.suites for block in _suite(suite, level)]


def _suite(suite: Suite, level: int) -> list[str]:
    blocks = [f"{'#' * level} {escape(limits_words.title(suite))}"]
    blocks += [block for part in suite.parts for block in _part(part, level + 1)]
    if suite.left_out:
        blocks.append("\n".join(f"* left out: {escape(line)}" for line in suite.left_out))
    return blocks


def _part(part: Part, level: int) -> list[str]:
    titles, rows = limits_words.table(part)
    notes = "\n".join(f"* {escape(note)}" for note in [*part.notes, f"It cannot see: {part.blind}"])
    text = [title in ("group", "figure") for title in titles]
    return [
        f"{'#' * level} {escape(part.name)}",
        escape(f"{part.what} ({part.source})"),
        grid(titles, rows, text),
        notes,
    ]
