"""Detect the kind of task of the rows: a closed set of answers, short answers or free text. It decides the metric.

The kind and the metric can also be given, where they fit the rows.
"""

import re
import statistics
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from riyaz.config import LIKELIHOODS, METRICS, TOOLS, Kind, Measure, Metric, TaskKind
from riyaz.data import Dataset, Example
from riyaz.data.column_guess import LABEL_CHARACTERS, few_short_values
from riyaz.data.column_roles import LABELS
from riyaz.data.judging import EXECUTED, expect_judged, suggested
from riyaz.data.questions import Question, answer_places
from riyaz.data.schema import OPTION, as_written, expect_tools, read_schema
from riyaz.data.text_keys import count_distinct
from riyaz.data.turns import conversation_of
from riyaz.errors import RiyazError

SHORT_WORDS = 6  # longest median answer of a short-answer task
LIMIT = "--max-new-tokens"
# the limit of an answer in tokens / the longest accepted answer, the same under a schema, and the smallest limit
SPARE, SCHEMA_SPARE, SMALLEST_LIMIT = 1.25, 2.0, 8
DECISIONS: Literal["decisions"] = "decisions"  # the metric of questions: the mean over them of each one's points
# the metrics of answers that more than their words decide on
JUDGED: tuple[Measure, ...] = ("json_f1", "tools", "sql", "pass@1", "command", "slots", *LIKELIHOODS)
FITTING: dict[Kind, tuple[Measure, ...]] = {  # the metrics of each kind; the first is the default
    "closed": ("accuracy", "exact_match"),
    "short": ("exact_match", "token_f1", "rouge_l", "chrf", *JUDGED),
    "free": ("rouge_l", "chrf", "token_f1", "exact_match", *JUDGED),
    "questions": (DECISIONS,),
}
NAMES: dict[Kind, str] = {
    "closed": "a closed set of labels", "short": "short answers", "free": "free text", "questions": "typed questions",
}  # fmt: skip
MOST_ASKED = 300  # characters of the questions that the instruction repeats
INSTRUCTION = {
    "closed": "Classify the text. Answer with one label.",
    "short": "Answer the question in a few words.",
    "free": "",  # leaves the default system turn of the chat template
}
OWN_SHARE = 0.9  # share of rows with a system turn that says how to answer, from which the default is left out
DEFINITIONS = re.compile(r"<tools>.*</tools>", re.DOTALL)  # definitions, which say nothing about the answer
# A system turn that says no more than a chat template's own one, such as "You are a helpful assistant."
GENERIC = re.compile(
    r"(you are \w+, created by [\w ]+\. )?you are (an? )?([\w-]+[, ]+){0,4}(assistant|chatbot|ai|model)"
    r"( named \w+)?(, (trained|created|made|developed) by [\w ]+)?[.!]?"
)


@dataclass(frozen=True)
class Task:
    """A task: its kind, labels (sorted; closed only), deciding metric, instruction, the reason for its kind, the
    questions that every row answers, if that is its kind, and the text of the JSON schema that generated answers keep
    to: TOOLS where the tools of each row say it, "" for text of any kind. Words of a written answer behind the
    `max_words`-th do not count. An answer has at most `max_new_tokens` tokens; None: as many as the training answers
    need."""

    kind: Kind
    labels: tuple[str, ...]
    metric: Measure
    instruction: str
    why: str
    questions: tuple[Question, ...] = ()
    schema: str = ""
    max_words: int | None = None
    max_new_tokens: int | None = None

    @property
    def choices(self) -> int:
        """The number of its labels, or of the choices of all its questions."""
        return len(self.labels) or sum(len(question.choices) for question in self.questions)


def detect(
    dataset: Dataset,
    instruction: str | None = None,
    metric: Metric | None = None,
    kind: TaskKind | None = None,
    schema: Path | None = None,
    max_words: int | None = None,
    max_new_tokens: int | None = None,
) -> Task:
    """Detect the task from all rows of a training file, unless its kind is given. Raises RiyazError for a metric, a
    kind, a schema or a limit that does not fit, for a row that the metric cannot judge, and for a single answer."""
    if metric is not None and metric not in METRICS:
        raise RiyazError(f"unknown metric {metric!r}", "--metric", "choose one of " + ", ".join(METRICS))
    if dataset.reading is not None and dataset.reading.questions:
        refuse_schema(schema, "questions")
        refuse_limit(max_new_tokens, "questions")
        return _of_questions(dataset, dataset.reading.questions, instruction, metric, kind)
    rows, distinct = len(dataset.examples), count_distinct(example.answer for example in dataset.examples)
    if distinct == 1:
        answer = dataset.examples[0].answer
        excerpt = answer if len(answer) <= LABEL_CHARACTERS else answer[:LABEL_CHARACTERS] + "…"
        hint = "add rows with other answers, or name the right column with --answer-column"
        raise RiyazError(f"all {rows} rows have the same answer {excerpt!r}", str(dataset.path), hint)
    _expect_both_thumbs(dataset)
    detected, why = _kind(dataset, distinct)
    different = count_distinct(_accepted(dataset)) if kind == "closed" else 0
    if different > rows / 2:
        hint = f"leave out --task closed: these rows are {NAMES[detected]}"
        if detected == kind:
            hint = "give at least two rows for each label"
        what = f"{different} different answers in {rows} rows are no set of labels"
        raise RiyazError(what, str(dataset.path), hint)
    suggestion = suggested(dataset.examples)
    if suggestion and detected == "closed":  # labels may stand beside such columns, and be objects
        plain = schema is not None or metric in JUDGED or suggestion[0] in (*EXECUTED, "tools", "preferred", "thumbs")
        suggestion = suggestion if plain and dataset.answer_column not in LABELS else None
    if suggestion:
        detected, why = "free", suggestion[1]
    if kind is not None:
        detected, why = kind, "it was given"
    check_metric(metric, detected)
    refuse_schema(schema, detected)
    refuse_limit(max_new_tokens, detected)
    if detected != "closed" and dataset.reading is not None and dataset.reading.spellings:
        what = f"--merge-labels merges spellings of labels, and these answers are {NAMES[detected]}"
        raise RiyazError(what, str(dataset.path), "leave it out, or pass --task closed if they are labels")
    default = suggestion[0] if suggestion and detected != "closed" else FITTING[detected][0]
    expect_judged(metric or default, dataset)
    written = as_written(read_schema(schema), (row.answer for row in dataset.examples)) if schema else ""
    if written == TOOLS:
        for row in dataset.examples:
            expect_tools(row.tools, row.where)
    return Task(
        kind=detected,
        labels=tuple(sorted({*_accepted(dataset)})) if detected == "closed" else (),
        metric=metric or default,
        instruction=_instruction(dataset.examples, detected) if instruction is None else instruction,
        why=why,
        schema=written,
        max_words=max_words,
        max_new_tokens=max_new_tokens,
    )


def _expect_both_thumbs(dataset: Dataset) -> None:
    """Raises RiyazError for rows whose answers are all good or all bad, which say nothing of the difference."""
    for good, others in ((True, "false"), (False, "true")):
        if all(row.desirable is good for row in dataset.examples):
            column = dataset.reading.desirable if dataset.reading else ""
            what = f"{column!r} is {str(good).lower()} in all {len(dataset.examples)} rows: nothing to tell apart"
            hint = f"add rows with {others}, or pass --answer-column {dataset.answer_column} to imitate all answers"
            raise RiyazError(what, str(dataset.path), hint)


def _of_questions(
    dataset: Dataset, questions: tuple[Question, ...], instruction: str | None, metric: Metric | None,
    kind: TaskKind | None,
) -> Task:  # fmt: skip
    """The task of rows that answer questions. Raises RiyazError where another kind, a metric or merged labels are
    asked for, and for a question to which the rows have fewer than two answers."""
    check_metric(metric, "questions")
    if kind is not None:
        raise RiyazError(f"the rows answer typed questions; they are not {NAMES[kind]}", "--task", "leave it out")
    assert dataset.reading is not None
    if dataset.reading.spellings:
        raise RiyazError("the choices of questions have their own spelling", "--merge-labels", "leave it out")
    answered = [set[int]() for _ in questions]
    for example in dataset.examples:
        for places, place in zip(answered, answer_places(questions, example.answer)):
            places |= set() if place is None else {place}
    for question, known in zip(questions, answered):
        if len(known) < 2:
            held = f"only the answer {question.labels[known.pop()]!r}" if known else "no answer"
            what = f"the rows have {held} to the question {question.name!r}, from which nothing can be learned"
            raise RiyazError(what, str(dataset.path), "leave the question out, or add rows with other answers")
    instructions = " ".join(question.instructions.strip() for question in questions)
    said = instructions if len(instructions) <= MOST_ASKED else "Answer questions about the text."
    why = f"{len(questions)} typed question{'s are' if len(questions) > 1 else ' is'} asked"
    return Task("questions", (), DECISIONS, said if instruction is None else instruction, why, questions)


def limit_for(task: Task, longest: int) -> int:
    """The limit of an answer in tokens: the task's own, else SPARE times the tokens of the `longest` accepted answer,
    at least SMALLEST_LIMIT. Under a schema SCHEMA_SPARE times: an answer ends by itself, may be written in more tokens
    than the accepted ones, and is worth nothing if it is cut."""
    spare = SCHEMA_SPARE if task.schema else SPARE
    return task.max_new_tokens or max(SMALLEST_LIMIT, round(spare * longest))


def refuse_schema(schema: Path | None, kind: Kind) -> None:
    """Raises RiyazError for a schema where answers are not generated."""
    if schema is not None:
        _expect_generated(kind, OPTION)


def refuse_limit(max_new_tokens: int | None, kind: Kind) -> None:
    """Raises RiyazError for a limit in tokens where answers are not generated."""
    if max_new_tokens is not None:
        _expect_generated(kind, LIMIT)


def _expect_generated(kind: Kind, option: str) -> None:
    """Raises RiyazError for an option that has no effect on answers of this kind, which are chosen."""
    if kind in ("closed", "questions"):
        what = f"these answers are {NAMES[kind]}, which are chosen and not generated"
        hint = "leave it out" + (", or pass --task free if they are no labels" if kind == "closed" else "")
        raise RiyazError(what, option, hint)


def says_how(system: str) -> bool:
    """Whether a system turn can say how to answer: more than tools and "You are a helpful assistant."."""
    text = " ".join(DEFINITIONS.sub("", system).split())
    return bool(text) and GENERIC.fullmatch(text.casefold()) is None


def _instruction(examples: Sequence[Example], kind: TaskKind) -> str:
    """The default instruction of a kind of task. Where nearly all rows bring a system turn that says how to answer it
    is that turn if it is the same in all, so that a prompt without one is asked alike, else none."""
    first: str | None = None
    own, alike = 0, True
    for example in examples:
        turn = example.messages[0]
        if turn["role"] == "system":
            first = turn["content"] if first is None else first
            alike = alike and turn["content"] == first
            own += says_how(turn["content"])
    if own < OWN_SHARE * len(examples):
        return INSTRUCTION[kind]
    return first if alike and first is not None else ""


def check_metric(metric: Metric | None, kind: Kind) -> None:
    """Raises RiyazError for a metric that does not score answers of this kind."""
    if metric is not None and metric not in FITTING[kind]:
        hint = f"choose one of {', '.join(FITTING[kind])}, or name another kind with --task"
        if kind == "questions":
            hint = "leave it out: each type of question has its own"
        raise RiyazError(f"{metric} does not score {NAMES[kind]}", "--metric", hint)


def _kind(dataset: Dataset, distinct: int) -> tuple[TaskKind, str]:
    rows = dataset.examples
    if dataset.answer_column in LABELS:
        return "closed", f"the column {dataset.answer_column!r} holds {distinct} labels"
    # in a conversation of several answers many are alike that are no labels; one that is given once is none
    if few_short_values(example.answer for example in rows):
        talk = any(map(conversation_of, rows)) and 1 in Counter(example.answer for example in rows).values()
        if not talk:
            return "closed", f"{distinct} distinct answers in {len(rows)} rows"
    words = statistics.median(array("l", (len(example.answer.split()) for example in rows)))
    kind: TaskKind = "short" if words <= SHORT_WORDS else "free"
    return kind, f"the median answer has {words:g} word{'s' if words != 1 else ''}"


def _accepted(dataset: Dataset) -> Iterator[str]:
    """Every accepted answer of every row."""
    return (answer for example in dataset.examples for answer in example.answers)
