"""`riyaz verify`: checks that what lies in a file or folder is as it was written, without loading it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.model_names import ANY_MODEL
from riyaz.cli.options import Json
from riyaz.cli.output import Screen
from riyaz.report.media.markup import printable_line

Target = Annotated[
    Path,
    ANY_MODEL,
    Parameter(help="a model (also by its name), artifact, collection, comparison, run, checkpoint or limits.json"),
]


def verify(path: Target, /, *, json: Json = False) -> int:
    """Check hashes, shapes, numbers, links and counts of a file or folder, without loading or changing it."""
    from riyaz.verifying import verify as verified_at

    screen = Screen(json)
    verified = verified_at(path)
    for problem in verified.problems:
        screen.data.print(f"wrong: {printable_line(str(problem))}", soft_wrap=True)
    for what in verified.unchecked:
        screen.data.print(f"not checked: {printable_line(what)}", soft_wrap=True)
    if not verified.problems:
        screen.data.print(printable_line(verified.line), soft_wrap=True)
    screen.finish({"ok": not verified.problems, **asdict(verified)})
    return 1 if verified.problems else 0
