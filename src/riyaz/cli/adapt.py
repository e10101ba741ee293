"""`riyaz adapt`: one method, trained and measured as in a comparison."""

from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from riyaz.cli.options import (
    ADAPTING_DEFAULTS,
    CONTINUING_DEFAULTS,
    READING_DEFAULTS,
    Adapting,
    Continuing,
    Data,
    Json,
    Quiet,
    Reading,
    command_began,
    command_line,
    resolve_options,
)
from riyaz.cli.output import Screen
from riyaz.extras import load
from riyaz.ranks import launched

if TYPE_CHECKING:
    from riyaz.config import CompareConfig
    from riyaz.results import ArmResult


def _methods() -> str:
    """`a, b or c`: the names of the methods' files, since importing the methods would load numpy."""
    package = find_spec("riyaz.methods")
    assert package is not None
    *others, last = sorted(file.name for file in iter_modules(package.submodule_search_locations) if not file.ispkg)
    return f"{', '.join(others)} or {last}"


def adapt(
    method: Annotated[str, Parameter(help=_methods())],
    data: Data,
    /,
    *,
    continuing: Continuing = CONTINUING_DEFAULTS,
    adapting: Adapting = ADAPTING_DEFAULTS,
    reading: Reading = READING_DEFAULTS,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run one method and keep its artifact."""
    from riyaz.comparison.chosen_methods import require_packages

    require_packages([method], named=True)
    load("compare")
    from riyaz.comparison import run
    from riyaz.report.comparison import terminal

    data_config, config = resolve_options(data, reading, adapting, start=continuing.from_)
    screen = Screen(json, quiet)
    with terminal.listener(screen.talk) as listen:
        arm = run.adapt(
            method, data, data_config, config, continuing, command=command_line(), began=command_began(), listen=listen
        )
    if not launched()[0]:  # the first of several processes shows it
        show(arm, config, screen)


def show(arm: "ArmResult", config: "CompareConfig", screen: Screen) -> None:
    """Print what was measured of an arm, where its artifact is, and what can be done next."""
    from riyaz.report.comparison import terminal
    from riyaz.report.comparison.next_commands import QUESTIONS, after_arm
    from riyaz.report.words import made

    terminal.print_arm(arm, screen.data)
    out = config.out
    assert out is not None  # AdaptFlags requires it
    screen.talk.print(f"\n{made(arm, str(out))}", soft_wrap=True)
    terminal.print_next(after_arm(arm, out, config.test or QUESTIONS), screen.talk)
    screen.finish(arm)
