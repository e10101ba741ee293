"""`riyaz merge`: adds an artifact's adapter to the base weights and writes the whole model."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from riyaz.cli.options import Json
from riyaz.cli.output import Screen
from riyaz.config import Precision


def merge(
    artifact: Annotated[Path, Parameter(help="folder of an artifact with LoRA or full weights, or COMPARISON/METHOD")],
    /,
    *,
    out: Annotated[Path, Parameter(help="folder to write the new model to")],
    dtype: Annotated[Literal["float32", "bfloat16"], Parameter(help="number type of the new weights")] = "float32",
    precision: Annotated[
        Precision,
        Parameter(
            help="how the new weights are held when the model answers; auto: as the base's config.json names it; if it "
            "names none, or the base is GGUF, in bf16"
        ),
    ] = "auto",
    json: Json = False,
) -> None:
    """Write an artifact's adapter into the weights: a whole model that needs no adapter."""
    from dataclasses import asdict

    from riyaz import export

    screen = Screen(json)
    written = export.merge(artifact, out, dtype, precision)
    screen.data.print(written.line(), soft_wrap=True)
    screen.finish(asdict(written))
