"""Printing an answer while it is generated, and its citations."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from cyclopts import Parameter, validators

from riyaz.cli.output import Screen
from riyaz.report.markup import printable_line

AtLeastOne = validators.Number(gte=1)
MaxTokens = Annotated[int | None, Parameter(help="longest answer, in tokens", validator=AtLeastOne)]


def cite(screen: Screen, citations: Sequence[dict]) -> None:
    """Print the document and character range of every passage in the prompt."""
    for each in citations:
        place = f"{printable_line(each['doc_id'])}, characters {each['start']:,}–{each['end']:,}"
        screen.talk.print(f"from {place}", style="dim", soft_wrap=True, markup=False)


def say(screen: Screen, pieces: Iterable[str]) -> str:
    """Print the pieces as they come, without control characters, and return the whole unchanged answer."""
    answer = ""
    for piece in pieces:
        # \r\n may be split between two pieces
        screen.data.print(piece.replace("\r", ""), end="", soft_wrap=True)
        answer += piece
    screen.data.print()
    return answer
