"""Report on the user's rows before training: counts, duplicates, leakage of test rows into training, labels."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from riyaz.data import Example

LEFT_OUT = "rows left out because they have no prompt or no answer"


@dataclass
class DataReport:
    """Statistics of the rows and their split; `notes` are sentences about those the user should know."""

    rows: dict[str, int]  # number of rows in the files and in each part
    duplicates: int  # training rows that repeat an earlier prompt
    conflicts: int  # training rows whose prompt also has another answer
    leakage: dict[str, float]  # test rows also in training, their share, training rows dropped for it
    answer_words: dict[str, float]  # median, 95th percentile and longest
    labels: dict[str, dict[str, int]] = field(default_factory=dict)  # closed tasks: rows of each label in each part
    unseen_labels: list[str] = field(default_factory=list)  # labels of test rows that no training row has
    slices: dict[str, int] = field(default_factory=dict)  # test rows of each slice
    answer_in_prompt: dict[str, Any] | None = None  # closed tasks: prompts that hold or tell their label
    groups: dict[str, int] | None = None  # groups of the rows of each part; None where rows have none
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """The report as plain JSON values."""
        return asdict(self)


def count_repeats(examples: Sequence[Example]) -> tuple[int, int]:
    """(rows that repeat an earlier prompt, rows whose prompt also has another answer)."""
    answers: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        answers[example.key].append(example.answer)
    conflicts = sum(len(group) for group in answers.values() if len(set(group)) > 1)
    return len(examples) - len(answers), conflicts


def answer_words(examples: Sequence[Example]) -> dict[str, float]:
    """Median, 95th percentile and longest length of an answer, in words."""
    lengths = sorted(len(example.answer.split()) for example in examples)
    p95 = lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))]
    return {"median": statistics.median(lengths), "p95": p95, "longest": lengths[-1]}


def count_labels(labels: Sequence[str], parts: Mapping[str, Sequence[Example]]) -> dict[str, dict[str, int]]:
    """Rows of each label in each part."""
    counts = {part: Counter(example.answer for example in examples) for part, examples in parts.items()}
    return {label: {part: counts[part][label] for part in parts} for label in labels}


def rows_with_unseen_labels(tested: Sequence[Example], labels: Iterable[str]) -> list[Example]:
    """Test rows with no answer among the labels, which no method of a closed task can get right."""
    trained = set(labels)
    return [example for example in tested if not trained & set(example.answers)]


def groups_note(groups: Mapping[str, int]) -> str:
    """A sentence with the groups of each part."""
    parts = f"{groups['train']} to train on, {groups['valid']} to validate on, {groups['test']} to test on"
    return f"no group of rows is in two parts, and intervals are over groups: {parts}"


def notes(report: DataReport, unseen_rows: int, unlearned_rows: int) -> list[str]:
    """One sentence for each count above 0 that the user should know."""
    rows, leakage = report.rows, report.leakage
    counts = {
        "training rows that repeat a prompt; copies stay in the same part": report.duplicates,
        "training rows with the prompt of another row but a different answer": report.conflicts,
        "training rows dropped because their prompts are in the test": leakage["dropped"],
        "test rows with a label that no training row has, which no method can get right": unseen_rows,
        "test rows with a label that no row to train or validate on has: only its name can tell": unlearned_rows,
        "conversations left out because every answer in them has weight 0": rows["skipped"],
        LEFT_OUT: rows["incomplete"],
        "folds, because there is no test file and few rows": rows["folds"],
    }
    return [f"{sentence}: {count:g}" for sentence, count in counts.items() if count]
