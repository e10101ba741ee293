"""Everything that is wrong with the rows of a data set, as far as it can be seen without a language model."""

from collections.abc import Iterator, Sequence

import numpy as np

from riyaz.data import Dataset, Example
from riyaz.data.data_report import rows_with_unseen_labels
from riyaz.data.groups import unit
from riyaz.data.sampling import sample
from riyaz.data.spellings import label_twins, most_frequent_spellings
from riyaz.data.task import Task
from riyaz.engine.opening import EMBEDDER, pulled_embedder
from riyaz.quality.duplicates import near_duplicates, repeats
from riyaz.quality.features import beginnings, own_texts, prompt_vectors, term_blocks
from riyaz.quality.held_out import out_of_fold
from riyaz.quality.mislabelled import mixed_labels, wrong_labels
from riyaz.results.problems import MixedLabels, ProblemKind, RowProblem, RowProblems

MOST_ROWS, MOST_LABELS = 5_000, 300  # of which a classifier is fitted in seconds to a minute


def examine(train: Dataset, test: Dataset | None, task: Task) -> RowProblems:
    """The rows that may be wrong, kind by kind and the likeliest first, and the labels that are mixed up."""
    problems = [*_repeats(train), *_copies(train, test)]
    if task.kind != "closed":
        return RowProblems(rows=problems, unchecked=["wrong labels and near-duplicates: the answers are no labels"])
    problems = [
        *_spellings(train, train, test),
        *(_spellings(test, train, test) if test else ()),
        *_unseen(test, task),
        *problems,
    ]
    rows, unchecked = train.examples, []
    if len(rows) > MOST_ROWS:
        rows = tuple(sample(rows, MOST_ROWS, by_label=True, seed=0, purpose="quality"))
        unchecked.append(
            f"wrong labels and near-duplicates of {len(train.examples) - MOST_ROWS:,} rows, chosen by hash"
        )
    suspects, near, mixed, not_judged = _judged(train, rows, task)
    return RowProblems([*suspects, *near, *problems], mixed, [*unchecked, *not_judged])


def _judged(
    train: Dataset, rows: Sequence[Example], task: Task
) -> tuple[list[RowProblem], list[RowProblem], list[MixedLabels], list[str]]:
    """Probably wrong labels, near-duplicates, mixed labels, and what of these was not looked at."""
    names = task.labels
    places = {label: place for place, label in enumerate(names)}
    labels, keys = np.array([places[row.answer] for row in rows]), [row.key for row in rows]
    units = [unit(row) for row in rows]
    whole = own_texts(rows)
    texts, most = beginnings(whole)
    cut = any(len(text) > most for text in whole)
    unchecked = [f"what follows the first {most:,} characters of a prompt"] if cut else []
    embedder = pulled_embedder()
    if embedder is None:
        unchecked.append(f"what the prompts mean, only their words; `riyaz pull {EMBEDDER}` adds it")
    meanings = None if embedder is None else embedder.embed(texts)
    blocks = term_blocks(texts)
    near = [
        _problem("near-duplicate", train, rows[one], suggested=rows[other].answer, other=rows[other], similarity=alike)
        for one, other, alike in near_duplicates(blocks["pieces"], meanings, labels, keys, units)
    ]
    if len(names) > MOST_LABELS:
        return [], near, [], [*unchecked, f"wrong labels: {len(names):,} labels are more than {MOST_LABELS}"]
    chances = out_of_fold(prompt_vectors(blocks, meanings), labels, keys, units)
    unknown = int((chances[np.arange(len(rows)), labels] == 0).sum())
    if unknown:
        of = f"{unknown:,} rows" if unknown > 1 else "one row"
        unchecked.append(f"wrong labels of {of} whose label no row with another prompt and group has")
    wrong = wrong_labels(chances, labels)
    suspects = [
        _problem(
            "wrong label", train, rows[each.row], suggested=names[each.suggested], probability=each.probability,
            label_probability=each.own,
        )
        for each in wrong
    ]  # fmt: skip
    mixed = [MixedLabels((names[a], names[b]), count, of) for a, b, count, of in mixed_labels(chances, labels, wrong)]
    return suspects, near, mixed, unchecked


def _repeats(train: Dataset) -> Iterator[RowProblem]:
    """Rows that repeat a prompt, those with another answer first."""
    pairs = [(train.examples[row], train.examples[other]) for row, other in repeats(train.examples)]
    for row, other in sorted(pairs, key=lambda pair: pair[0].answer == pair[1].answer):
        same = row.answer == other.answer
        kind: ProblemKind = "repeat" if same else "other answer"
        yield _problem(kind, train, row, suggested=None if same else other.answer, other=other)


def _copies(train: Dataset, test: Dataset | None) -> Iterator[RowProblem]:
    """Training rows whose prompt is also in the test."""
    tested = {} if test is None else {row.key: row for row in reversed(test.examples)}
    for row in train.examples:
        if test is not None and row.key in tested:
            copy = tested[row.key]
            yield _problem("test copy", train, row, suggested=copy.answer, other=copy, other_data=test)


def _spellings(data: Dataset, train: Dataset, test: Dataset | None) -> Iterator[RowProblem]:
    """Rows of a file whose label is a rarer spelling of another one in the training rows."""
    kept = set(most_frequent_spellings(train.examples))
    twins = label_twins({row.answer for row in (*train.examples, *(test.examples if test else ()))})
    kept_of = {label: winner for group in twins for winner in group if winner in kept for label in group}
    for row in data.examples:
        if kept_of.get(row.answer, row.answer) != row.answer:
            yield _problem("spelling", data, row, suggested=kept_of[row.answer])


def _unseen(test: Dataset | None, task: Task) -> Iterator[RowProblem]:
    """Test rows whose label no training row has."""
    if test is not None:
        for row in rows_with_unseen_labels(test.examples, task.labels):
            yield _problem("unseen label", test, row)


def _problem(
    kind: ProblemKind, data: Dataset, row: Example, *, suggested: str | None = None, other: Example | None = None,
    other_data: Dataset | None = None, probability: float | None = None, label_probability: float | None = None,
    similarity: float | None = None,
) -> RowProblem:  # fmt: skip
    return RowProblem(
        kind, data.place(row), row.prompt, row.answer, suggested, probability, label_probability,
        (other_data or data).place(other) if other is not None else None, similarity,
    )  # fmt: skip
