"""`riyaz ternarize`: makes a ternary model from a full-precision one, by training on text."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, Quiet, command_line
from riyaz.cli.output import Screen
from riyaz.config import Seconds

BUDGET = Seconds("20m")


def ternarize(
    model: Annotated[str, Parameter(help="a full-precision model: name, folder or GGUF file")],
    /,
    *text: Annotated[
        Path, Parameter(help="texts or rows to train on: .txt, .md, .jsonl and other tables, folders of either")
    ],
    out: Annotated[Path, Parameter(help="folder to write the model to")],
    budget: Annotated[Seconds, Parameter(help="wall time of the whole command")] = BUDGET,
    steps: Annotated[int | None, Parameter(help="number of training steps, in place of a budget")] = None,
    group: Annotated[
        int | None, Parameter(help="columns with one scale, a multiple of 16; a matrix has one scale if not given")
    ] = None,
    learning_rate: Annotated[float | None, Parameter(help="highest learning rate; searched if not given")] = None,
    seed: Annotated[int, Parameter(help="seed of the order of the text")] = 0,
    resume: Annotated[bool, Parameter(help="continue the stopped run in --out")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a model with weights -1, 0 and 1 from a full-precision one, by training on text."""
    from riyaz.library.options import require_torch
    from riyaz.pretraining import ternarize as ternarizing
    from riyaz.report.comparison.terminal import listener

    require_torch()
    screen = Screen(json, quiet)
    paths = tuple(str(path.absolute()) for path in text)
    asked = ternarizing.Asked(model, paths, float(budget), group, learning_rate, seed, steps)
    with listener(screen.talk) as listen:
        found = ternarizing.ternarize(asked, out, resume, command_line(), listen)
    for line in ternarizing.lines(found):
        screen.data.print(line, soft_wrap=True)
    screen.talk.print(f"the model is in {out}; pack it: riyaz quantize {out} --precision ternary --out PACKED")
    screen.finish(found)
