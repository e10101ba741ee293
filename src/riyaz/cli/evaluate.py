"""`riyaz evaluate`: scores one model or artifact on test rows."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import READING_DEFAULTS, Json, Quiet, Reading, Served, Target, resolve_options
from riyaz.cli.output import Screen


def evaluate(
    target: Target,
    /,
    *,
    test: Annotated[Path, Parameter(help="a file of test rows")],
    limit: Annotated[int | None, Parameter(help="use only the first N rows")] = None,
    precision: Served = "auto",
    reading: Reading = READING_DEFAULTS,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score a model or an artifact on test rows."""
    data_config, _ = resolve_options(test, reading)

    from riyaz.evaluate import evaluate_target
    from riyaz.report.comparison import terminal

    screen = Screen(json, quiet)
    with terminal.listener(screen.talk) as listen:
        document = evaluate_target(target, test, data_config, limit=limit, precision=precision, listen=listen)
    terminal.print_scores(document, screen.data)
    screen.finish(document)
