"""`riyaz compare`: runs a comparison, prints its table and its pick, writes its reports."""

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.every_problem import every_problem
from riyaz.cli.options import (
    COMPARING_DEFAULTS,
    READING_DEFAULTS,
    Comparing,
    Data,
    Json,
    Quiet,
    Reading,
    command_began,
    command_line,
    resolve_options,
)
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError
from riyaz.extras import load


def compare(
    data: Data,
    /,
    *,
    comparing: Comparing = COMPARING_DEFAULTS,
    reading: Reading = READING_DEFAULTS,
    dry_run: Annotated[bool, Parameter(help="print the plan and the estimate, then stop")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run every way of adapting the model, measure each on held-out rows, pick one."""
    began = command_began()
    from riyaz.comparison.chosen_methods import chosen_methods, require_packages

    data_config, config = resolve_options(data, reading, comparing)
    require_packages(chosen_methods(config), named=bool(config.methods))
    load("compare")
    from riyaz.comparison import run
    from riyaz.library.options import results_folder
    from riyaz.report.comparison import terminal
    from riyaz.report.comparison.next_commands import after_comparison
    from riyaz.report.write import write

    results = results_folder(config, data)
    config = replace(config, out=results)
    screen = Screen(json, quiet)
    try:
        with terminal.listener(screen.talk) as listen:
            if dry_run:
                planned = run.dry_run(data, data_config, config, began=began, listen=listen)
            else:
                comparison = run.compare(data, data_config, config, command=command_line(), began=began, listen=listen)
    except RiyazError as error:
        if not error.options:
            raise
        flags = {**comparing.explicit, **reading.explicit, "dry_run": dry_run, "quiet": quiet, "json": json}
        raise every_problem(error, "compare", data, config.test, data_config, flags) from None
    if dry_run:
        terminal.print_plan(planned.plan.arms, planned.estimate, screen.data)
        screen.finish(planned)
        return
    write(results)
    terminal.print_comparison(comparison, screen.data)
    terminal.print_next(after_comparison(comparison, results), screen.talk)
    screen.talk.print(f"\nresults in {results}: report.html, report.md, compare.json, arms/", soft_wrap=True)
    screen.finish(comparison)
