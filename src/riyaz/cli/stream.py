"""Printing an answer while it is generated, and its citations."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter, validators

from riyaz.cli.output import Screen
from riyaz.report.markup import printable_line

AtLeastOne = validators.Number(gte=1)
MaxTokens = Annotated[int | None, Parameter(help="longest answer, in tokens", validator=AtLeastOne)]


def cite(screen: Screen, citations: Sequence[dict]) -> None:
    """Print the place of every passage in the prompt, and whether any fitted the question."""
    if citations and not any(each.get("relevant", True) for each in citations):
        text = "nothing relevant in the documents: the answer was made beside the nearest passages"
        screen.talk.print(text, style="dim", soft_wrap=True)
    for each in citations:
        screen.talk.print(f"from {place_of(each)}", style="dim", soft_wrap=True, markup=False)


def place_of(citation: dict[str, Any]) -> str:
    """`handbook.pdf, page 3` for a document with pages, `rules.md, characters 0–42` for another."""
    first, last = citation.get("page"), citation.get("last_page")
    if first:
        where = f"page {first:,}" if first == last else f"pages {first:,}–{last:,}"
    else:
        where = f"characters {citation['start']:,}–{citation['end']:,}"
    return f"{printable_line(citation['doc_id'])}, {where}"


def say(screen: Screen, pieces: Iterable[str]) -> str:
    """Print the pieces as they come, without control characters, and return the whole unchanged answer."""
    answer = ""
    for piece in pieces:
        # \r\n may be split between two pieces
        screen.data.print(piece.replace("\r", ""), end="", soft_wrap=True)
        answer += piece
    screen.data.print()
    return answer
