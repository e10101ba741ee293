"""`riyaz ternarize`: makes a ternary model from a full-precision one, by training on text."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.model_names import LANGUAGE_MODEL
from riyaz.cli.options import Json, Quiet, command_line
from riyaz.cli.output import Screen
from riyaz.config import TernarizeConfig
from riyaz.extras import require
from riyaz.ranks import launched
from riyaz.results import TernarizeRun

Ternarizing = Annotated[TernarizeConfig, Parameter(name="*")]
DEFAULTS = TernarizeConfig()


def ternarize(
    model: Annotated[str, LANGUAGE_MODEL, Parameter(help="a full-precision model: name, folder or GGUF file")],
    /,
    *text: Annotated[
        Path, Parameter(help="texts or rows to train on: .txt, .md, .jsonl and other tables, folders of either")
    ],
    out: Annotated[Path, Parameter(help="folder to write the model to")],
    ternarizing: Ternarizing = DEFAULTS,
    resume: Annotated[bool, Parameter(help="continue the stopped run in --out")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a model with weights -1, 0 and 1 from a full-precision one, by training on text."""
    require("train")
    from riyaz.report.comparison.terminal import listener
    from riyaz.ternarizing.run import ternarize as train

    screen = Screen(json, quiet)
    with listener(screen.talk) as listen:
        document = train(model, text, ternarizing, out, resume=resume, command=command_line(), listen=listen)
    if launched()[0]:  # the first process shows the run
        return
    for line in _lines(document):
        screen.data.print(line, soft_wrap=True)
    screen.talk.print(f"the model is in {out}; pack it: riyaz quantize {out} --precision ternary --out PACKED")
    screen.finish(document)


def _lines(run: TernarizeRun) -> Iterator[str]:
    """What was measured, for the terminal."""
    losses = {"full precision": run.loss_before, "rounded only": run.loss_rounded, "trained": run.loss}
    for name, loss in losses.items():
        if loss:
            yield f"{name:<15}{loss:8.3f} nats per token, perplexity {math.exp(min(loss, 50)):,.4g}"
    yield f"{'size':<14} {run.parameters / 1e6:,.1f} million parameters, {run.mb or 0:,.1f} MB with its masters"
