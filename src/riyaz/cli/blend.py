"""`riyaz blend`: averages the LoRA adapters of several artifacts of one base and writes a new artifact."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError, brief


def blend(
    *artifact: Annotated[Path, Parameter(help="folders of artifacts with LoRA weights, or COMPARISON/METHOD")],
    out: Annotated[Path, Parameter(help="folder to write the new artifact to")],
    weights: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True, help="one number for each artifact, such as 0.7,0.3; equal shares if not given"
        ),
    ] = None,
    rank: Annotated[
        int | None,
        Parameter(help="reduce the sum to this rank; if not given it is exact, with the ranks of all together"),
    ] = None,
    json: Json = False,
) -> None:
    """Average the LoRA adapters of several artifacts that were trained on one base."""
    from dataclasses import asdict

    from riyaz.export import blend as library

    screen = Screen(json)
    written = library.blend(artifact, out, None if weights is None else numbers(weights), rank)
    for note in written.notes:
        screen.talk.print(f"note: {note}", soft_wrap=True)
    screen.data.print(written.line(), soft_wrap=True)
    screen.finish(asdict(written))


def numbers(text: str) -> list[float]:
    """The numbers of a text such as 0.7,0.3. Raises RiyazError naming the piece that is none."""
    values = []
    for piece in text.split(","):
        try:
            values.append(float(piece))
        except ValueError:
            raise RiyazError(f"{brief(piece)} is not a number", "--weights", "such as 0.7,0.3") from None
    return values
