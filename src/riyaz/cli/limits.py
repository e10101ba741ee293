"""`riyaz limits`: measures what a model or an artifact cannot do."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json, Quiet, Target, command_line
from riyaz.cli.output import Screen
from riyaz.config import LimitsConfig
from riyaz.events import both
from riyaz.extras import load

Measuring = Annotated[LimitsConfig, Parameter(name="*")]
DEFAULTS = LimitsConfig()


def limits(
    target: Target,
    /,
    *,
    measuring: Measuring = DEFAULTS,
    out: Annotated[
        Path | None, Parameter(help="folder for limits.json and its report; an artifact keeps its own if not given")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Measure what a model or an artifact cannot do: bias, truth, context, cost, fragility."""
    load("compare")
    from riyaz.limits.limits_file import comparison_of, recorder, write_limits
    from riyaz.limits.run import measure_target
    from riyaz.report import write
    from riyaz.report.comparison import terminal
    from riyaz.report.limits import terminal as limits_terminal

    screen = Screen(json, quiet)
    with recorder(out, command_line()) as record:
        with terminal.listener(screen.talk) as show:
            document = measure_target(target, measuring, command=command_line(), listen=both(record, show))
        limits_terminal.print_limits(document, screen.data)
        path, document = write_limits(document, target, out)
    if path is not None:
        compared = comparison_of(path)
        pages = write.write(compared) if compared else write.write_limits(document, path.parent) if out else ()
        named = ", ".join(str(each) for each in (path, *pages))
        screen.talk.print(f"\nwritten: {named}", soft_wrap=True)
    screen.finish(document)
