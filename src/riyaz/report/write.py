"""Writes report.md and report.html of a comparison into its folder."""

from pathlib import Path

from riyaz.errors import RiyazError
from riyaz.files import write_text
from riyaz.results import COMPARE, LIMITS, PREDICTIONS, Answer, Comparison, Limits
from riyaz.results.problems import PROBLEMS, PROBLEMS_TABLE, RowProblems

EXTRA = "part.json"  # marks a part trained with another seed or on fewer rows than the arm itself
FINAL = "kept"  # the part of an arm whose artifact is kept


def write(folder: Path) -> tuple[Path, Path]:
    """Write `report.md` and `report.html` from compare.json and the answers in `folder`; returns their paths. If rows
    may be wrong, problems.csv lists them.

    Raises RiyazError when there is no comparison or a file of it cannot be read.
    """
    from riyaz.report.comparison import html, markdown
    from riyaz.report.comparison.next_commands import after_comparison
    from riyaz.report.row_problems import write_problems

    if not (folder / COMPARE).is_file():
        what = "there is no comparison here" if folder.is_dir() or not folder.exists() else "this is a file"
        raise RiyazError(what, str(folder), "give the folder that riyaz compare or riyaz pretrain wrote")
    comparison = Comparison.read(folder / COMPARE)
    paths = folder / "report.md", folder / "report.html"
    measured = limits(folder, comparison)
    problems = RowProblems.read(folder / PROBLEMS) if (folder / PROBLEMS).is_file() else RowProblems()
    if problems.rows:
        write_problems(folder / PROBLEMS_TABLE, problems)
    write_text(paths[0], markdown.render(comparison, folder, measured, problems))
    commands = after_comparison(comparison, folder)
    write_text(paths[1], html.render(comparison, answers(folder, comparison), commands, measured, problems))
    return paths


def answers(folder: Path, comparison: Comparison) -> dict[str, list[Answer]]:
    """The answers of each arm by method, those of the kept part first. Raises RiyazError for a damaged file."""
    by_method: dict[str, list[Answer]] = {}
    methods = {arm.name for arm in comparison.arms}
    arms = folder / "arms"
    for arm in sorted(arms.iterdir()) if arms.is_dir() else []:
        if arm.name in methods and arm.is_dir():
            parts = sorted(arm.iterdir(), key=lambda part: (part.name != FINAL, part.name))
            parts = [part for part in parts if not (part / EXTRA).exists()]
            files = [part / PREDICTIONS for part in parts if (part / PREDICTIONS).is_file()]
            by_method[arm.name] = [row for file in files for row in Answer.read(file)]
    return by_method


def limits(folder: Path, comparison: Comparison) -> dict[str, Limits]:
    """What each arm cannot do, best score first, where that was measured. Raises RiyazError for a damaged file."""
    paths = {arm.name: folder / "arms" / arm.name / FINAL / "artifact" / LIMITS for arm in comparison.ranked}
    return {method: Limits.read(path) for method, path in paths.items() if path.is_file()}


def write_limits(document: Limits, folder: Path) -> tuple[Path, Path]:
    """Write `limits.md` and `limits.html` of one target into `folder`; returns their paths."""
    from riyaz.report.limits import html as limits_section
    from riyaz.report.limits import markdown as limits_markdown

    paths = folder / "limits.md", folder / "limits.html"
    write_text(paths[0], limits_markdown.whole(document))
    write_text(paths[1], limits_section.whole_page(document))
    return paths
