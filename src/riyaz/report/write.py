"""The report of a comparison, written beside its files."""

from pathlib import Path

from riyaz.errors import RiyazError
from riyaz.files import write_text
from riyaz.results import COMPARE, PREDICTIONS, Answer, Comparison

EXTRA = "part.json"  # in a part that was trained beside the arm's own, with another seed or on fewer rows
KEPT = "kept"  # the part of an arm whose artifact is kept: its answers come first


def write(folder: Path) -> tuple[Path, Path]:
    """Write `report.md` and `report.html` from compare.json and the answers in `folder`; returns their paths.

    Raises RiyazError when there is no comparison or a file of it cannot be read.
    """
    from riyaz.report import html, markdown

    if not (folder / COMPARE).is_file():
        what = "there is no comparison here" if folder.is_dir() or not folder.exists() else "this is a file"
        raise RiyazError(what, str(folder), "give the folder that riyaz compare or riyaz pretrain wrote")
    comparison = Comparison.read(folder / COMPARE)
    paths = folder / "report.md", folder / "report.html"
    write_text(paths[0], markdown.render(comparison))
    write_text(paths[1], html.render(comparison, answers(folder, comparison)))
    return paths


def answers(folder: Path, comparison: Comparison) -> dict[str, list[Answer]]:
    """The answers of each arm of the comparison, the kept part's first. Raises RiyazError for a broken file."""
    found: dict[str, list[Answer]] = {}
    methods = {arm.method for arm in comparison.arms}
    arms = folder / "arms"
    for arm in sorted(arms.iterdir()) if arms.is_dir() else []:
        if arm.name in methods and arm.is_dir():
            parts = sorted(arm.iterdir(), key=lambda part: (part.name != KEPT, part.name))
            parts = [part for part in parts if not (part / EXTRA).exists()]
            files = [part / PREDICTIONS for part in parts if (part / PREDICTIONS).is_file()]
            found[arm.name] = [row for file in files for row in Answer.read(file)]
    return found
