"""What a person should know about their rows before anything is trained: counts, repeats, leakage, labels."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from riyaz.data import Example


@dataclass
class DataReport:
    """What the split found; `notes` says the parts worth a sentence."""

    rows: dict[str, int]  # in the files and in each part
    duplicates: int  # training rows whose prompt stood before
    conflicts: int  # training rows whose prompt stands with another answer too
    leakage: dict[str, float]  # test rows that stand in training, their share, training rows dropped for it
    answer_words: dict[str, float]  # median, p95 and longest
    labels: dict[str, dict[str, int]] = field(default_factory=dict)  # closed sets: rows of a label in each part
    unseen_labels: list[str] = field(default_factory=list)  # of test rows, in no training row
    slices: dict[str, int] = field(default_factory=dict)  # test rows of each slice
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """The report as plain JSON values."""
        return asdict(self)


def count_repeats(examples: Sequence[Example]) -> tuple[int, int]:
    """(rows whose prompt stood before, rows whose prompt stands with another answer too)."""
    answers: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        answers[example.key].append(example.answer)
    conflicts = sum(len(group) for group in answers.values() if len(set(group)) > 1)
    return len(examples) - len(answers), conflicts


def answer_words(examples: Sequence[Example]) -> dict[str, float]:
    """Median, 95th percentile and longest answer in words."""
    lengths = sorted(len(example.answer.split()) for example in examples)
    p95 = lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))]
    return {"median": statistics.median(lengths), "p95": p95, "longest": lengths[-1]}


def count_labels(labels: Sequence[str], parts: Mapping[str, Sequence[Example]]) -> dict[str, dict[str, int]]:
    """Rows of each label in each part."""
    counts = {part: Counter(example.answer for example in examples) for part, examples in parts.items()}
    return {label: {part: counts[part][label] for part in parts} for label in labels}


def unseen(tested: Sequence[Example], labels: Sequence[str]) -> list[Example]:
    """Test rows none of whose answers is a label; a closed set cannot get them right."""
    known = set(labels)
    return [example for example in tested if not known & set(example.answers)]


def notes(report: DataReport, unseen_rows: int) -> list[str]:
    """One sentence for each thing to know; nothing for rows without surprises."""
    rows, leakage = report.rows, report.leakage
    said = {
        "training rows that repeat a prompt, kept in one part": report.duplicates,
        "training rows that share a prompt but not its answer": report.conflicts,
        "training rows dropped because their prompts stand in the test": leakage["dropped"],
        "test rows with a label that no training row has, which no method can get right": unseen_rows,
        "conversations left out because every answer in them has weight 0": rows["skipped"],
        "folds, since there is no test file and the rows are few": rows["folds"],
    }
    return [f"{sentence}: {count:g}" for sentence, count in said.items() if count]
