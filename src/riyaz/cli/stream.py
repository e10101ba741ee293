"""An answer on the terminal, piece by piece as it is made, and the documents it was given to read."""

from collections.abc import Iterable, Sequence
from typing import Annotated

from cyclopts import Parameter, validators

from riyaz.cli.output import Screen
from riyaz.report.markup import printable_line

AtLeastOne = validators.Number(gte=1)
MaxTokens = Annotated[int | None, Parameter(help="longest answer, in tokens", validator=AtLeastOne)]


def cite(screen: Screen, citations: Sequence[dict]) -> None:
    """Say which documents the model was given to read."""
    for each in citations:
        place = f"{printable_line(each['doc_id'])}, characters {each['start']:,}–{each['end']:,}"
        screen.talk.print(f"from {place}", style="dim", soft_wrap=True, markup=False)


def say(screen: Screen, pieces: Iterable[str]) -> str:
    """Print the pieces as they come, without what a terminal would obey, and return the whole answer as it is."""
    answer = ""
    for piece in pieces:
        # a line's end of two characters may come in two pieces
        screen.data.print(piece.replace("\r", ""), end="", soft_wrap=True)
        answer += piece
    screen.data.print()
    return answer
