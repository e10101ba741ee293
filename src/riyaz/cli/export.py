"""`riyaz export`: a model or an artifact for other tools."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from riyaz.cli.options import Json, Target
from riyaz.cli.output import Screen


def export(
    target: Target,
    /,
    *,
    format: Annotated[Literal["peft", "hf"], Parameter(help="for PEFT, or for transformers")],
    out: Annotated[Path, Parameter(help="folder to write")],
    json: Json = False,
) -> None:
    """Write a model or an artifact in a format that other tools load."""
    from dataclasses import asdict

    from riyaz import export as library

    screen = Screen(json)
    written = library.export(target, format, out)
    screen.data.print(written.line(), soft_wrap=True)
    screen.finish(asdict(written))
