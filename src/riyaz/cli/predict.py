"""`riyaz predict`: what a language model really does, one token ahead."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, configured

BAR = 24  # cells of a full bar


def predict(
    text: Annotated[str, Parameter(help="the text so far")],
    /,
    *,
    model: Annotated[str | None, configured("model")] = None,
    adapter: Annotated[Path | None, Parameter(help="artifact to show beside its base model")] = None,
    top: Annotated[int, Parameter(help="how many tokens")] = 10,
    json: Json = False,
) -> None:
    """Show the most likely next tokens, before and after adapting."""
