"""`riyaz card`: writes the model card of an artifact from what was measured."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, Target
from riyaz.cli.output import Screen


def card(
    target: Target,
    /,
    *,
    out: Annotated[Path, Parameter(help="file to write, such as CARD.md")],
    use: Annotated[str | None, Parameter(help="the intended use, in your words")] = None,
    json: Json = False,
) -> None:
    """Write the model card of an artifact, from what was measured only."""
    from riyaz import card as library
    from riyaz.errors import RiyazError
    from riyaz.files import write_text

    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else "the folder does not exist"
        raise RiyazError(what, str(out if out.is_dir() else out.parent), "name a file such as CARD.md")
    text = library.card(target, use)
    write_text(out, text)
    screen = Screen(json)
    screen.data.print(str(out), soft_wrap=True)
    screen.finish({"target": target, "out": str(out)})
