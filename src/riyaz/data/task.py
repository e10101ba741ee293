"""Detect the kind of task of the rows: a closed set of answers, short answers or free text. It decides the metric.

The kind and the metric can also be given, where they fit the rows.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from riyaz.config import METRICS, Metric, TaskKind
from riyaz.data import Dataset, Example
from riyaz.data.column_guess import LABEL_CHARACTERS, few_short_values
from riyaz.data.column_roles import LABELS
from riyaz.errors import RiyazError

SHORT_WORDS = 6  # longest median answer of a short-answer task
FITTING: dict[TaskKind, tuple[Metric, ...]] = {  # the metrics of each kind; the first is the default
    "closed": ("accuracy", "exact_match"),
    "short": ("exact_match", "token_f1", "rouge_l", "chrf"),
    "free": ("rouge_l", "chrf", "token_f1", "exact_match"),
}
NAMES: dict[TaskKind, str] = {"closed": "a closed set of labels", "short": "short answers", "free": "free text"}
INSTRUCTION = {
    "closed": "Classify the text. Answer with one label.",
    "short": "Answer the question in a few words.",
    "free": "",  # leaves the default system turn of the chat template
}
OWN_SHARE = 0.9  # share of rows with a system turn that says how to answer, from which the default is left out
TOOLS = re.compile(r"<tools>.*</tools>", re.DOTALL)  # definitions, which say nothing about the answer
# A system turn that says no more than a chat template's own one, such as "You are a helpful assistant."
GENERIC = re.compile(
    r"(you are \w+, created by [\w ]+\. )?you are (an? )?([\w-]+[, ]+){0,4}(assistant|chatbot|ai|model)"
    r"( named \w+)?(, (trained|created|made|developed) by [\w ]+)?[.!]?"
)


@dataclass(frozen=True)
class Task:
    """A task: its kind, labels (sorted; closed only), deciding metric, instruction, and the reason for its kind."""

    kind: TaskKind
    labels: tuple[str, ...]
    metric: Metric
    instruction: str
    why: str


def detect(
    dataset: Dataset,
    instruction: str | None = None,
    metric: Metric | None = None,
    kind: TaskKind | None = None,
) -> Task:
    """Detect the task from all rows of a training file, unless its kind is given. Raises RiyazError for a metric or a
    kind that does not fit, and for a single answer."""
    if metric is not None and metric not in METRICS:
        raise RiyazError(f"unknown metric {metric!r}", "--metric", "choose one of " + ", ".join(METRICS))
    rows, distinct = len(dataset.examples), len({example.answer for example in dataset.examples})
    if distinct == 1:
        answer = dataset.examples[0].answer
        excerpt = answer if len(answer) <= LABEL_CHARACTERS else answer[:LABEL_CHARACTERS] + "…"
        hint = "add rows with other answers, or name the right column with --answer-column"
        raise RiyazError(f"all {rows} rows have the same answer {excerpt!r}", str(dataset.path), hint)
    detected, why = _kind(dataset, distinct)
    answers = {answer for example in dataset.examples for answer in example.answers}
    if kind == "closed" and len(answers) > rows / 2:
        hint = f"leave out --task closed: these rows are {NAMES[detected]}"
        if detected == kind:
            hint = "give at least two rows for each label"
        what = f"{len(answers)} different answers in {rows} rows are no set of labels"
        raise RiyazError(what, str(dataset.path), hint)
    if kind is not None:
        detected, why = kind, "it was given"
    check_metric(metric, detected)
    if detected != "closed" and dataset.reading is not None and dataset.reading.spellings:
        what = f"--merge-labels merges spellings of labels, and these answers are {NAMES[detected]}"
        raise RiyazError(what, str(dataset.path), "leave it out, or pass --task closed if they are labels")
    return Task(
        kind=detected,
        labels=tuple(sorted(answers)) if detected == "closed" else (),
        metric=metric or FITTING[detected][0],
        instruction=_instruction(dataset.examples, detected) if instruction is None else instruction,
        why=why,
    )


def says_how(system: str) -> bool:
    """Whether a system turn can say how to answer: more than tools and "You are a helpful assistant."."""
    text = " ".join(TOOLS.sub("", system).split())
    return bool(text) and GENERIC.fullmatch(text.casefold()) is None


def _instruction(examples: Sequence[Example], kind: TaskKind) -> str:
    """The default instruction of a kind of task. Where nearly all rows bring a system turn that says how to answer it
    is that turn if it is the same in all, so that a prompt without one is asked alike, else none."""
    turns = [turn["content"] for example in examples for turn in example.messages[:1] if turn["role"] == "system"]
    own = [turn for turn in turns if says_how(turn)]
    if len(own) < OWN_SHARE * len(examples):
        return INSTRUCTION[kind]
    return own[0] if len(set(turns)) == 1 else ""


def check_metric(metric: Metric | None, kind: TaskKind) -> None:
    """Raises RiyazError for a metric that does not score answers of this kind."""
    if metric is not None and metric not in FITTING[kind]:
        hint = f"choose one of {', '.join(FITTING[kind])}, or name another kind with --task"
        raise RiyazError(f"{metric} does not score {NAMES[kind]}", "--metric", hint)


def _kind(dataset: Dataset, distinct: int) -> tuple[TaskKind, str]:
    answers = [example.answer for example in dataset.examples]
    if dataset.answer_column in LABELS:
        return "closed", f"the column {dataset.answer_column!r} holds {distinct} labels"
    if few_short_values(answers):
        return "closed", f"{distinct} distinct answers in {len(answers)} rows"
    words = statistics.median(len(answer.split()) for answer in answers)
    kind: TaskKind = "short" if words <= SHORT_WORDS else "free"
    return kind, f"the median answer has {words:g} word{'s' if words != 1 else ''}"
