"""Printing an answer while it is generated, then whether it was cut and its citations."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from riyaz.cli.output import Screen
from riyaz.report.markup import printable_line

if TYPE_CHECKING:
    from riyaz.predictor import Stream

AtLeastOne = validators.Number(gte=1)
MaxTokens = Annotated[int | None, Parameter(help="longest answer, in tokens", validator=AtLeastOne)]


def after(screen: Screen, stream: "Stream") -> None:
    """Print that the limit has cut the answer, then the document and character range of every passage in the prompt."""
    if stream.cut:
        line = f"cut off at {stream.limit} tokens; --max-tokens sets the limit"
        screen.talk.print(line, style="dim", soft_wrap=True)
    for each in stream.citations:
        place = f"{printable_line(each['doc_id'])}, characters {each['start']:,}–{each['end']:,}"
        screen.talk.print(f"from {place}", style="dim", soft_wrap=True, markup=False)


def say(screen: Screen, pieces: Iterable[str], said: list[str] | None = None) -> str:
    """Print the pieces as they come, without control characters, and return the whole unchanged answer; `said` gets
    them one by one."""
    kept = [] if said is None else said
    for piece in pieces:
        # \r\n may be split between two pieces
        screen.data.print(piece.replace("\r", ""), end="", soft_wrap=True)
        kept.append(piece)
    screen.data.print()
    return "".join(kept)
