"""The part of `riyaz data` that looks for rows that may be wrong, and for unlabelled rows that are worth a label."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from riyaz.cli.output import Screen
from riyaz.errors import RiyazError
from riyaz.json_files import to_document

if TYPE_CHECKING:
    from riyaz.data import Dataset
    from riyaz.data.formats import DataFolder
    from riyaz.data.task import Task
    from riyaz.results.problems import RowProblems

SHOWN_ROWS = 10  # rows of each kind, and pairs of labels, that are listed
LABEL_NEXT = "label_next.csv"
INDENT = 17


def show_problems(screen: Screen, folder: "DataFolder", task: "Task", out: Path | None) -> dict[str, Any]:
    """Print the rows that may be wrong, and write them to problems.csv in `out`; returns them for --json."""
    from riyaz.files import make_folder
    from riyaz.quality.examine import examine
    from riyaz.report.row_problems import write_problems
    from riyaz.results.problems import PROBLEMS_TABLE

    problems = examine(folder.train, folder.test, task)
    listed_rows = _print(screen, problems)
    if out is not None:
        make_folder(out)
        write_problems(out / PROBLEMS_TABLE, problems)
        screen.fact("written", f"{out / PROBLEMS_TABLE}, {len(problems.rows):,} rows", INDENT)
    elif listed_rows < len(problems.rows):
        screen.fact("", f"--out FOLDER writes all {len(problems.rows):,} to {PROBLEMS_TABLE}", INDENT)
    document: dict[str, Any] = to_document(problems)
    return document


def _print(screen: Screen, problems: "RowProblems") -> int:
    """Print every kind of problem; returns how many rows were listed."""
    from riyaz.report.row_problems import TITLES, mixed_line, row_line, title

    listed_rows = 0
    if not problems.rows:
        screen.fact("problems", "no row looks wrong", INDENT)
    for kind, (name, _) in TITLES.items():
        rows = problems.of(kind)
        if rows:
            screen.fact(name, title(kind, len(rows)), INDENT)
        for row in rows[:SHOWN_ROWS]:
            screen.fact("", row_line(row), INDENT)
        if len(rows) > SHOWN_ROWS:
            screen.fact("", f"and {len(rows) - SHOWN_ROWS:,} more", INDENT)
        listed_rows += len(rows[:SHOWN_ROWS])
    for place, pair in enumerate(problems.mixed_labels[:SHOWN_ROWS]):
        screen.fact("" if place else "mixed up", mixed_line(pair), INDENT)
    for reason in problems.unchecked:
        screen.fact("not checked", reason, INDENT)
    return listed_rows


def refuse_labelled(out: Path) -> None:
    """Raises RiyazError rather than replace a label_next.csv, which may hold labels by now."""
    if (out / LABEL_NEXT).exists():
        hint = "move it, or choose another --out"
        raise RiyazError("exists already and may hold labels", str(out / LABEL_NEXT), hint)


def load_unlabelled(path: Path, folder: "DataFolder", task: "Task") -> "Dataset":
    """The rows of a file without labels. Raises RiyazError where none of them can be named to be labelled next."""
    from riyaz.data import formats
    from riyaz.quality.label_next import unlabelled_rows

    data = formats.load(path, answers_required=False, like=folder.train.reading)
    unlabelled_rows(folder.train, data, task)
    return data


def show_label_next(
    screen: Screen, folder: "DataFolder", task: "Task", unlabelled: "Dataset", count: int, out: Path | None
) -> list[dict[str, Any]]:
    """Print the unlabelled rows to label next, and write them to label_next.csv in `out`, with an empty column for the
    label; returns them for --json."""
    from riyaz.files import make_folder, write_bytes
    from riyaz.quality.label_next import label_next
    from riyaz.report.row_problems import csv_bytes, next_line

    rows = label_next(folder.train, unlabelled, task, count)
    of = f"{len(unlabelled.examples):,} rows in {unlabelled.path}"
    screen.fact("label next", f"{len(rows)} of {of}, the first one first", INDENT)
    for row in rows:
        screen.fact("", next_line(row), INDENT)
    if out is not None:
        reading, columns = folder.train.reading, ("text", "label")
        if reading and reading.answer and not (reading.before or reading.after):  # one column of text
            columns = (reading.prompt, reading.answer)
        make_folder(out)
        lines = [[row.prompt, "", row.guess, f"{row.probability:.4f}", row.where] for row in rows]
        write_bytes(out / LABEL_NEXT, csv_bytes((*columns, "guess", "probability", "where"), lines))
        screen.fact("written", f"{out / LABEL_NEXT}, with an empty column for the label", INDENT)
    else:
        screen.fact("", f"--out FOLDER writes them to {LABEL_NEXT}, with an empty column for the label", INDENT)
    return [to_document(row) for row in rows]


def command_with(verb: str, data: Path, flags: Mapping[str, Any]) -> str:
    """The complete command `riyaz VERB DATA` with these flags, as a shell would read it."""
    words = ["riyaz", verb, str(data)]
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value not in (None, False):
            words += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)
