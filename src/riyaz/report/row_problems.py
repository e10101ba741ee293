"""Rows that may be wrong: in words, and as the table problems.csv."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from riyaz.files import encoded, write_bytes
from riyaz.results.problems import MixedLabels, NextRow, ProblemKind, RowProblem, RowProblems

TITLES: dict[ProblemKind, tuple[str, str]] = {  # the name of a kind, and what its rows have in common
    "wrong label": ("wrong labels", "rows whose label may be wrong, likeliest first"),
    "other answer": ("other answers", "rows repeat an earlier prompt with another answer"),
    "near-duplicate": ("near-duplicates", "rows have nearly the prompt of another row but another label"),
    "spelling": ("spellings", "rows whose label is a rarer spelling of another"),
    "unseen label": ("unseen labels", "test rows have a label that no training row has"),
    "test copy": ("test copies", "training rows have the prompt of a test row"),
    "repeat": ("repeats", "rows repeat an earlier prompt and its answer"),
}
COLUMNS = (
    "problem", "where", "prompt", "label", "suggested", "probability", "label_probability", "other", "similarity",
)  # fmt: skip
SHOWN_ROWS = 5  # of a kind, in a report
SHOWN_PROMPT = 70  # characters


def title(kind: ProblemKind, count: int) -> str:
    """How many rows have a kind of problem, in words: `1 row repeats …` stays in the plural, as a heading does."""
    return f"{count:,} {TITLES[kind][1]}"


def short_lists(problems: RowProblems) -> list[tuple[str, list[str]]]:
    """A heading and some lines for each kind of problem, for labels that are mixed up and for what was not checked."""
    lists = []
    for kind in TITLES:
        rows = problems.of(kind)
        if rows:
            more = [f"and {len(rows) - SHOWN_ROWS:,} more"] if len(rows) > SHOWN_ROWS else []
            lists.append((title(kind, len(rows)), [*map(row_line, rows[:SHOWN_ROWS]), *more]))
    if problems.mixed_labels:
        lists.append(("labels that are mixed up", [mixed_line(pair) for pair in problems.mixed_labels[:SHOWN_ROWS]]))
    if problems.unchecked and lists:
        lists.append(("not checked", problems.unchecked))
    return lists


def row_line(row: RowProblem) -> str:
    """A row in one line: where it is, its label, what speaks against it, its prompt."""
    prompt = " ".join(row.prompt.split())
    prompt = prompt if len(prompt) <= SHOWN_PROMPT else prompt[: SHOWN_PROMPT - 1] + "…"
    return f"{row.where}  {_against(row)}: {prompt}"


def _against(row: RowProblem) -> str:
    label = _short(row.label)
    if row.problem == "wrong label":
        return f"{label} ({row.label_probability:.1%}), rather {_short(row.suggested)} ({row.probability:.0%})"
    if row.problem in ("spelling", "unseen label"):
        return f"{label}, elsewhere {_short(row.suggested)}" if row.suggested is not None else label
    if row.suggested is None or row.suggested == row.label:
        return f"{label}, as {row.other}"
    return f"{label}, but {_short(row.suggested)} in {row.other}"


def _short(label: str | None) -> str:
    text = repr(label or "")
    return text if len(text) <= SHOWN_PROMPT else text[: SHOWN_PROMPT - 2] + "…'"


def mixed_line(mixed: MixedLabels) -> str:
    """Two labels that are mixed up, in one line."""
    one, other = mixed.labels
    return f"{one!r} and {other!r}: {mixed.mixed} of {mixed.rows} rows look like the other label"


def next_line(row: NextRow) -> str:
    """An unlabelled row in one line."""
    prompt = " ".join(row.prompt.split())
    prompt = prompt if len(prompt) <= SHOWN_PROMPT else prompt[: SHOWN_PROMPT - 1] + "…"
    return f"{row.where}  {_short(row.guess)}? ({row.probability:.0%}): {prompt}"


def write_problems(path: Path, problems: RowProblems) -> None:
    """Write the table of every row that may be wrong."""
    rows = [[_field(getattr(row, column)) for column in COLUMNS] for row in problems.rows]
    write_bytes(path, csv_bytes(COLUMNS, rows))


def csv_bytes(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """A CSV file with a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    return encoded(text.getvalue())


def _field(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
