"""Options of reading rows as examples."""

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from riyaz.config.checking import check_fields
from riyaz.config.option import option

Turns = Literal["all", "last"]
TaskKind = Literal["closed", "short", "free"]
Metric = Literal[
    "accuracy", "exact_match", "token_f1", "rouge_l", "chrf", "json_f1", "tools", "sql", "pass@1", "command", "slots",
    "nats", "preferred", "thumbs",
]  # fmt: skip
METRICS: tuple[str, ...] = typing.get_args(Metric)
# of a task: what the user may name, and that of typed questions, whose metric is the mean over them
Kind = TaskKind | Literal["questions"]
Measure = Metric | Literal["decisions"]
LIKELIHOODS: tuple[Measure, ...] = ("nats", "preferred", "thumbs")  # the metrics of given answers' probabilities
TOOLS = "tools"  # in place of a schema's file: a row's answer is text, or calls of its own tools by their schemas
LARGEST_LIMIT = 2**20  # tokens of an answer; no context is longer
MIN_ROWS = 20  # fewer rows are too few for a split


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Options for reading rows as examples. None: detected from the file and reported."""

    prompt_column: str | None = option(None, "column that holds the prompt")
    answer_column: str | None = option(None, "column that holds the answer")
    encoding: str | None = option(None, "encoding of files of rows that are not UTF-8, such as latin-1")
    skip_incomplete: bool = option(False, "leave out rows without a prompt or an answer, and say how many")
    merge_labels: bool = option(
        False,
        "give labels that differ only by case, white space, Unicode form or invisible characters their most frequent "
        "spelling",
    )
    group_column: str | None = option(
        None,
        "column that names what rows have in common, such as a customer: no group is on both sides of a split, and "
        "intervals are over groups; without it rows with the same doc_id are a group",
    )
    questions: Path | None = option(
        None,
        "file of typed questions that each row answers: predicate, choice or score, each with the column of its "
        "answers",
        tables=True,
    )
    turns: Turns | None = option(
        None,
        "answers of a conversation to learn and to test: all (if not given), or the last; of an artifact as in its "
        "training",
    )
    database: Path | None = option(
        None, "SQLite database on which the queries of all rows run that have no column `database`"
    )
    schema: Path | None = option(
        None,
        "JSON schema that every generated answer keeps to, token by token; the word tools: an answer is text or calls "
        "of its row's tools, by their schemas; needs the extra json",
    )
    instruction: str | None = option(None, "instruction to the model, the same for every row")
    task: TaskKind | None = option(None, "kind of the answers: a closed set of labels, short answers or free text")
    metric: Metric | None = option(None, "score to compare the methods by")
    max_words: int | None = option(
        None,
        "words of an answer that count, as the instruction limits them: what a method writes beyond them is scored as "
        "if it were not there",
        minimum=1,
    )
    max_new_tokens: int | None = option(
        None,
        "longest answer, in tokens; if not given, as the training answers need it, and for free text without training "
        "as scores best on validation rows; of an artifact as it was made",
        minimum=1,
        maximum=LARGEST_LIMIT,
    )
    unsafe_code: bool = option(
        False,
        "by the metric pass@1: where this machine cannot confine generated code, run it with limits on time and memory "
        "alone: it may then read your files, and on macOS also change them and use the network; a riyaz.toml cannot "
        "set it",
        by_hand=True,
    )

    def __post_init__(self) -> None:
        """Checks every value. Raises RiyazError naming the flag."""
        check_fields(self)

    def reading(self) -> dict[str, Any]:
        """The options by which a file of rows is read, as arguments of `formats.load`."""
        names = (
            "prompt_column",
            "answer_column",
            "encoding",
            "skip_incomplete",
            "merge_labels",
            "group_column",
            "questions",
            "database",
            "turns",
        )
        return {name: getattr(self, name) for name in names}
