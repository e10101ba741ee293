"""`riyaz report`: writes the report of a comparison or of a pretraining run again from its files."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from riyaz.cli.options import Json
from riyaz.cli.output import Screen
from riyaz.extras import require
from riyaz.results import METRICS, RUN


def report(
    folder: Annotated[Path, Parameter(help="the folder that riyaz compare or riyaz pretrain wrote")],
    /,
    *,
    json: Json = False,
) -> None:
    """Write the report of a comparison or of a pretraining run again."""
    require("compare")
    if is_pretraining(folder):
        from riyaz.report.pretraining import html as run_page

        paths = {"html": run_page.write(folder)}
    else:
        from riyaz.report.write import write

        paths = dict(zip(("markdown", "html"), write(folder), strict=True))
    screen = Screen(json)
    if not json:
        for path in paths.values():
            screen.data.print(str(path), soft_wrap=True)
    screen.finish({name: str(path) for name, path in paths.items()})


def is_pretraining(folder: Path) -> bool:
    """Whether riyaz pretrain wrote this folder: run.json beside metrics.jsonl."""
    return all((folder / name).is_file() for name in (RUN, METRICS))
