"""`riyaz report`: the report of a finished comparison or of a pretraining run, made again from its files."""

import json as json_format
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from riyaz.cli.options import Json
from riyaz.cli.output import Screen
from riyaz.errors import RiyazError
from riyaz.files import write_text

EXTRA = "part.json"  # in a part that was trained beside the arm's own, with another seed or on fewer rows
KEPT = "kept"  # the part of an arm whose artifact is kept: its answers come first


def report(
    folder: Annotated[Path, Parameter(help="the folder that riyaz compare or riyaz pretrain wrote")],
    /,
    *,
    json: Json = False,
) -> None:
    """Write the report of a comparison or of a pretraining run again."""
    if is_pretraining(folder):
        from riyaz.report import learning

        paths = {"html": learning.write(folder)}
    else:
        paths = dict(zip(("markdown", "html"), write(folder), strict=True))
    screen = Screen(json)
    if not json:
        for path in paths.values():
            screen.data.print(str(path), soft_wrap=True)
    screen.finish({name: str(path) for name, path in paths.items()})


def is_pretraining(folder: Path) -> bool:
    """Whether riyaz pretrain wrote this folder: run.json beside metrics.jsonl."""
    return all((folder / name).is_file() for name in ("run.json", "metrics.jsonl"))


def write(folder: Path, document: dict[str, Any] | None = None) -> tuple[Path, Path]:
    """Write `report.md` and `report.html` from the document (default: compare.json) and the answers in `folder`;
    returns their paths.

    Raises RiyazError when there is no comparison or a file of it cannot be read.
    """
    from riyaz.report import html, markdown

    document = document or _json(folder / "compare.json")
    if not isinstance(document, dict) or not isinstance(document.get("arms"), list):
        raise RiyazError("this is no comparison", str(folder / "compare.json"), "give a folder of riyaz compare")
    paths = folder / "report.md", folder / "report.html"
    write_text(paths[0], markdown.render(document))
    write_text(paths[1], html.render(document, predictions(folder, document)))
    return paths


def predictions(folder: Path, document: dict[str, Any]) -> dict[str, list[dict]]:
    """The rows that each arm of the document answered, the kept part's first. Raises RiyazError for a broken file."""
    found: dict[str, list[dict]] = {}
    methods = {arm["method"] for arm in document["arms"]}
    arms = folder / "arms"
    for arm in sorted(arms.iterdir()) if arms.is_dir() else []:
        if arm.name in methods and arm.is_dir():
            parts = sorted(arm.iterdir(), key=lambda part: (part.name != KEPT, part.name))
            parts = [part for part in parts if not (part / EXTRA).exists()]
            found[arm.name] = [row for part in parts for row in _rows(part / "predictions.jsonl")]
    return found


def _json(path: Path) -> Any:
    try:
        return json_format.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        hint = "give the folder that riyaz compare or riyaz pretrain wrote"
        raise RiyazError("there is no comparison here", str(path.parent), hint) from error
    except NotADirectoryError as error:
        raise RiyazError(
            "this is a file", str(path.parent), "give the folder that riyaz compare or riyaz pretrain wrote"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise RiyazError("this file is damaged", str(path), "run riyaz compare again") from error


def _rows(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json_format.loads(line)
            except ValueError as error:
                raise RiyazError("this row is damaged", f"{path}:{number}", "run riyaz compare again") from error
            if isinstance(row, dict):
                rows.append(row)
    return rows
