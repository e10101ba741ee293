"""Detect the kind of task of the rows: a closed set of answers, short answers or free text. It decides the metric."""

import statistics
from dataclasses import dataclass
from typing import Literal

from riyaz.config import METRICS, Metric
from riyaz.data import Dataset
from riyaz.data.column_roles import LABELS
from riyaz.errors import RiyazError

TaskKind = Literal["closed", "short", "free"]

CLOSED_LABELS = 200  # most distinct answers of a closed set without a label column
CLOSED_ROWS_PER_LABEL = 3  # fewest rows per distinct answer there, on average
CLOSED_CHARACTERS = 60  # longest answer there
SHORT_WORDS = 6  # longest median answer of a short-answer task
METRIC: dict[TaskKind, Metric] = {"closed": "accuracy", "short": "exact_match", "free": "rouge_l"}
INSTRUCTION = {
    "closed": "Classify the text. Answer with one label.",
    "short": "Answer the question in a few words.",
    "free": "",  # leaves the default system turn of the chat template
}


@dataclass(frozen=True)
class Task:
    """A task: its kind, labels (sorted; closed only), deciding metric, instruction, and the reason for its kind."""

    kind: TaskKind
    labels: tuple[str, ...]
    metric: Metric
    instruction: str
    why: str


def detect(dataset: Dataset, instruction: str | None = None, metric: Metric | None = None) -> Task:
    """Detect the task from all rows of a training file. Raises RiyazError for an unknown metric or a single answer."""
    if metric is not None and metric not in METRICS:
        raise RiyazError(f"unknown metric {metric!r}", "--metric", "choose one of " + ", ".join(METRICS))
    rows, distinct = len(dataset.examples), len({example.answer for example in dataset.examples})
    if distinct == 1:
        answer = dataset.examples[0].answer
        excerpt = answer if len(answer) <= CLOSED_CHARACTERS else answer[:CLOSED_CHARACTERS] + "…"
        hint = "add rows with other answers, or name the right column with --answer-column"
        raise RiyazError(f"all {rows} rows have the same answer {excerpt!r}", str(dataset.path), hint)
    kind, why = _kind(dataset, distinct)
    labels = {answer for example in dataset.examples for answer in example.answers} if kind == "closed" else set()
    return Task(
        kind=kind,
        labels=tuple(sorted(labels)),
        metric=metric or METRIC[kind],
        instruction=INSTRUCTION[kind] if instruction is None else instruction,
        why=why,
    )


def _kind(dataset: Dataset, distinct: int) -> tuple[TaskKind, str]:
    answers = [example.answer for example in dataset.examples]
    if dataset.answer_column in LABELS:
        return "closed", f"the column {dataset.answer_column!r} holds {distinct} labels"
    if (
        distinct <= CLOSED_LABELS
        and len(answers) >= CLOSED_ROWS_PER_LABEL * distinct
        and max(map(len, answers)) <= CLOSED_CHARACTERS
    ):
        return "closed", f"{distinct} distinct answers in {len(answers)} rows"
    words = statistics.median(len(answer.split()) for answer in answers)
    kind: TaskKind = "short" if words <= SHORT_WORDS else "free"
    return kind, f"the median answer has {words:g} word{'s' if words != 1 else ''}"
