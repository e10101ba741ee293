"""`riyaz quantize`: writes a model or an artifact with small weights, and says what that costs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from riyaz.cli.model_names import LANGUAGE_MODEL
from riyaz.cli.options import Json, Quiet, Target
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError


def quantize(
    target: Target,
    /,
    *,
    precision: Annotated[
        Literal["int8", "int4", "ternary"],
        Parameter(help="bits of the new weights; ternary: packs a model that was trained ternary, two bits a weight"),
    ],
    out: Annotated[Path, Parameter(help="folder to write")],
    group: Annotated[
        Literal[32, 64, 128],
        Parameter(help="for int4: columns that share a scale; the last group of a row may be smaller"),
    ] = 32,
    symmetric: Annotated[
        bool, Parameter(help="for int4: levels around 0, so a group stores no minimum beside its scale")
    ] = False,
    model: Annotated[
        str | None, LANGUAGE_MODEL, Parameter(help="the artifact's base, if it is not where the artifact says")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a model or an artifact with small weights, and say what that costs."""
    from dataclasses import asdict

    from riyaz.export.quantize import Small
    from riyaz.export.quantize import quantize as written_by
    from riyaz.export.ternary import pack
    from riyaz.report.comparison.terminal import listener

    screen = Screen(json, quiet)
    if precision == "ternary":
        if group != 32 or symmetric:
            raise RiyazError("groups and minimums are chosen for int4 only", hint="leave out --group and --symmetric")
        with listener(screen.talk) as listen:
            packed = pack(target, out, listen)
        screen.data.print(packed.line(), soft_wrap=True)
        screen.talk.print(*packed.notes, soft_wrap=True)
        screen.finish(asdict(packed))
        return
    with listener(screen.talk) as listen:
        written = written_by(target, Small(precision, group, not symmetric), out, model, listen)
    screen.data.print(written.line(), soft_wrap=True)
    screen.finish(asdict(written))
