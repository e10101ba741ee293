"""What a metric needs of a row to judge its answer, and the metric that the rows' checks suggest."""

import shlex
from collections.abc import Callable, Sequence

from riyaz.config import Measure, Metric
from riyaz.data import Dataset, Example
from riyaz.errors import RiyazError
from riyaz.json_files import json_or
from riyaz.text.calls import calls_in

EXECUTED: tuple[Measure, ...] = ("pass@1", "sql")  # the metrics that run the answers
# the metrics that need more of a row than answers: whether it has it, what it is called, what to do
NEEDS: dict[Metric, tuple[Callable[[Example], bool], str, str]] = {
    "pass@1": (lambda row: bool(row.check and row.check.tests), "no tests", "write them into a column `tests`"),
    "sql": (
        lambda row: bool(row.check and row.check.database), "no database",
        "name one with --database, or one in the data's folder in a column `database`",
    ),
    "slots": (
        lambda row: bool(row.check and row.check.slots), "no texts that must occur",
        "write them into a column `slots`",
    ),
    "preferred": (
        lambda row: bool(row.rejected), "no rejected answer",
        "write the better answer into `chosen`, the worse one into `rejected`",
    ),
    "thumbs": (
        lambda row: row.desirable is not None, "no thumb",
        "say in a column `label` beside `prompt` and `completion` whether the answer is good, true or false",
    ),
    "json_f1": (lambda row: all(map(is_object, row.answers)), "an answer that is no JSON object", "correct it"),
    "command": (lambda row: all(map(_is_command, row.answers)), "an answer that is no command", "close its quotes"),
}  # fmt: skip
# the metrics that one row is enough to suggest, in the order in which they count: what that row has, and why
SUGGESTED: dict[Metric, tuple[Callable[[Example], bool], str]] = {
    "preferred": (lambda row: bool(row.rejected), "the rows have a better and a worse answer"),
    "thumbs": (lambda row: row.desirable is not None, "the rows say whether their answer is good"),
    "pass@1": (lambda row: bool(row.check and row.check.tests), "the rows have tests"),
    "sql": (lambda row: bool(row.check and row.check.database), "the rows have a database"),
    "tools": (lambda row: isinstance(row.said, dict) and bool(row.said.get("tool_calls")), "answers call tools"),
}


def suggested(examples: Sequence[Example]) -> tuple[Metric, str] | None:
    """The metric by which answers with the checks of these rows are judged, and why; None where none is suggested."""
    metrics, objects = set[Metric](), True
    for row in examples:
        metrics |= {metric for metric, (has, _) in SUGGESTED.items() if metric not in metrics and has(row)}
        objects = objects and all(map(is_object, row.answers))
    for metric, (_, why) in SUGGESTED.items():
        if metric in metrics:
            return metric, why
    return ("json_f1", "every answer is a JSON object") if objects else None


def expect_judged(metric: Measure, dataset: Dataset, examples: Sequence[Example] | None = None) -> None:
    """Raises RiyazError naming the first of a file's rows, or of `examples`, that a metric cannot judge, and for
    `tools` where none of them wants a call."""
    rows = dataset.examples if examples is None else examples
    if metric == "tools" and not any(calls_in(answer)[1] for row in rows for answer in row.answers):
        what = f"no answer calls a tool, by which {metric} judges"
        raise RiyazError(what, str(dataset.path), "add rows whose answer is a call, or choose another --metric")
    if metric not in NEEDS:
        return
    fits, lacking, hint = NEEDS[metric]
    for row in rows:
        if not fits(row):
            what = f"the row has {lacking}, by which {metric} judges"
            raise RiyazError(what, dataset.place(row), f"{hint}, or choose another --metric")


def accepted_rows(examples: Sequence[Example]) -> Sequence[Example]:
    """The rows whose answers are worth imitating; all where none is."""
    return tuple(row for row in examples if row.desirable is not False) or examples


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    return isinstance(json_or(text), dict)


def _is_command(text: str) -> bool:
    try:
        return bool(shlex.split(text))
    except ValueError:
        return False
