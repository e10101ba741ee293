"""Split rows into training, validation and test rows by the hash of the prompt.

The rows of a test file are the test, and their copies are removed from the training rows. Without a test file 100 rows
are held out, but at most half of all rows and at least a quarter; below 200 rows there are five folds, or half is held
out if there is no time for folds. Rows of one group stay on one side, and groups are held out instead of prompts. The
result depends only on the contents and the seed.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from riyaz.config import MIN_ROWS
from riyaz.data import Dataset, Example
from riyaz.data.data_report import (
    DataReport,
    answer_words,
    count_labels,
    count_repeats,
    groups_note,
    notes,
    rows_with_unseen_labels,
)
from riyaz.data.groups import check_groups, count_groups, crossing
from riyaz.data.sampling import deal, hold_out, ordered, sample, without
from riyaz.data.spellings import twins_note
from riyaz.data.task import Task
from riyaz.data.turns import conversation_of
from riyaz.errors import RiyazError

FOLDS = 5
FOLD_BELOW = 200  # rows; half of fewer is too small a test
TEST_ROWS = 100  # rows to hold out without a test file,
TEST_GROUPS = 40  # and groups, where rows have them,
LEAST_FRACTION, MOST_FRACTION = 0.25, 0.5  # within these shares of all rows
VALID_FRACTION = 0.2
MAX_VALID = 256  # rows
MAX_LEAKAGE = 0.05  # share of the test rows that may be in training too


@dataclass(frozen=True)
class Split:
    """Training, validation and test rows.

    With `folds`, `test` is empty: each row is a test row of one fold, and the artifact that is kept is made from
    `train` and `valid`.
    """

    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    test: tuple[Example, ...]
    folds: tuple["Split", ...] = ()

    @property
    def tested(self) -> tuple[Example, ...]:
        """All test rows, fold after fold if there are folds."""
        return self.test + tuple(example for fold in self.folds for example in fold.test)


@dataclass(frozen=True)
class _Rule:
    by_label: bool
    grouped: bool  # whether rows have groups, which are then held out in place of prompts
    limit_train: int | None
    limit_test: int | None
    seed: int

    @property
    def by_unit(self) -> bool:
        """Whether units are held out by their label; a group has several."""
        return self.by_label and not self.grouped


def split(
    train: Dataset,
    test: Dataset | None,
    task: Task,
    *,
    limit_train: int | None = None,
    limit_test: int | None = None,
    seed: int = 0,
    allow_leakage: bool = False,
    deal_folds: bool = True,
) -> tuple[Split, DataReport]:
    """Split the rows and report on them. `limit_train` counts training and validation rows together; without
    `deal_folds` one test part is held out of few rows. Raises RiyazError."""
    rows: Sequence[Example] = train.examples
    grouped = any(example.group is not None for example in rows)
    rule = _Rule(task.kind == "closed", grouped, limit_train, limit_test, seed)
    _check_enough(rows, train)
    check_groups(train, test)
    leakage: dict[str, float] = {"test_rows": 0, "share": 0.0, "dropped": 0}
    tested: Sequence[Example] = ()
    folds: tuple[Split, ...] = ()
    crossed = ""
    if test is not None:
        rows, crossed = _drop_crossing(train, test, allow_leakage)
        rows, leakage = _drop_leaked(rows, train, test, allow_leakage)
        tested = _test_rows(test.examples, rule)
    elif len(rows) >= FOLD_BELOW:
        held, rows = hold_out(rows, _test_fraction(rows, grouped), by_label=rule.by_unit, seed=seed, purpose="test")
        leakage["dropped"] = len(train.examples) - len(held) - len(rows)  # copies in other groups than the test's
        tested = _test_rows(held, rule)
    elif deal_folds:
        folds = _folds(rows, rule, train)
    learned, valid = _train_valid(rows, rule, train)
    if test is None and len(rows) < FOLD_BELOW and not deal_folds:
        held, rest = hold_out(learned, MOST_FRACTION, by_label=rule.by_unit, seed=seed, purpose="test")
        learned, tested = tuple(ordered(rest, seed, "train")), _test_rows(held, rule)
    result = Split(learned, valid, tuple(tested), folds)
    return result, _report(train, test, task, result, leakage, crossed)


def _test_fraction(rows: Sequence[Example], grouped: bool) -> float:
    """The share of the rows that is held out as test: half of 200 rows, a quarter of 400 and more; of groups half of
    80, a quarter of 160 and more, if that is a larger share."""
    share = max(TEST_ROWS / len(rows), TEST_GROUPS / count_groups(rows) if grouped else 0.0)
    return max(LEAST_FRACTION, min(MOST_FRACTION, share))


def _check_enough(rows: Sequence[Example], dataset: Dataset) -> None:
    distinct = len({example.key for example in rows})
    if distinct < MIN_ROWS:
        repeats = f" with only {distinct} different prompts" if distinct < len(rows) else ""
        what = f"{len(rows)} rows{repeats}: too few to learn from and to test"
        raise RiyazError(what, str(dataset.path), f"give at least {MIN_ROWS} rows with different prompts")


def _drop_crossing(train: Dataset, test: Dataset, allow: bool) -> tuple[Sequence[Example], str]:
    """The training rows without those of groups in the test, and a note about them. Rows about the same documents stay:
    the note says what is then not measured. Raises RiyazError for more such test rows than MAX_LEAKAGE."""
    groups, first = crossing(train, test)
    crossed = sum(example.group in groups for example in test.examples)
    if not groups:
        return train.examples, ""
    these = f"{crossed} of {len(test.examples)} test rows"
    if not (train.reading and train.reading.group):
        note = f"{these} are about documents that training rows are about too, such as {first}"
        return train.examples, f"{note}: new documents are not measured"
    if crossed > MAX_LEAKAGE * len(test.examples) and not allow:
        hint = "remove them, or pass --allow-leakage to continue without the training rows of these groups"
        what = f"{these} are of groups that training rows have too, such as {first}"
        raise RiyazError(what, str(test.path), hint, {"allow_leakage": True})
    left = [example for example in train.examples if example.group not in groups]
    dropped = len(train.examples) - len(left)
    if len({example.key for example in left}) < MIN_ROWS or count_groups(left) < 2:
        what = f"{len(left)} rows are left after removing {dropped} whose groups are in the test, such as {first}"
        raise RiyazError(what, str(train.path), "give training rows of other groups")
    return left, f"training rows dropped because their groups are in the test, such as {first}: {dropped}"


def leaks(train: Dataset, test: Dataset | None) -> bool:
    """Whether a comparison takes these files only with --allow-leakage."""
    if test is None:
        return False
    try:
        _drop_leaked(_drop_crossing(train, test, False)[0], train, test, False)
    except RiyazError as error:
        return "allow_leakage" in error.options
    return False


def _drop_leaked(
    rows: Sequence[Example], train: Dataset, test: Dataset, allow: bool
) -> tuple[list[Example], dict[str, float]]:
    """Those of the training `rows` whose prompt is not in the test, and the counts of `DataReport.leakage`. Raises
    RiyazError."""
    places = {example.key: example.where for example in reversed(rows)}
    leaked = [example for example in test.examples if example.key in places]
    share = len(leaked) / len(test.examples)
    # many conversations begin alike: their first answers alone are no sign of copied rows, and the copies are dropped
    copied = sum(example.turn > 1 or not conversation_of(example) for example in leaked)
    if copied > MAX_LEAKAGE * len(test.examples) and not allow:
        what = f"{len(leaked)} of {len(test.examples)} test rows ({share:.1%}) are training rows too"
        pair = f"{leaked[0].where} ({places[leaked[0].key]})"
        hint = "remove them, or pass --allow-leakage to continue without their training copies"
        raise RiyazError(f"{what}, such as {pair}", str(test.path), hint, {"allow_leakage": True})
    keys = {example.key for example in leaked}
    left = [example for example in rows if example.key not in keys]
    dropped = len(rows) - len(left)
    if len({example.key for example in left}) < MIN_ROWS:
        what = f"{len(left)} rows are left after removing {dropped} whose prompts are in the test"
        raise RiyazError(what, str(train.path), "give training rows that are not in the test")
    return left, {"test_rows": len(leaked), "share": share, "dropped": dropped}


def _test_rows(rows: Sequence[Example], rule: _Rule) -> list[Example]:
    """The test rows in file order, at most `limit_test`."""
    limit = len(rows) if rule.limit_test is None else rule.limit_test
    chosen = sample(rows, limit, by_label=rule.by_label, seed=rule.seed, purpose="limit-test")
    return sorted(chosen, key=_place)


def _train_valid(
    rows: Sequence[Example], rule: _Rule, dataset: Dataset
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(training rows, validation rows) in seeded order, at most `limit_train` together. Raises RiyazError."""
    limit = len(rows) if rule.limit_train is None else rule.limit_train
    rows = sample(rows, limit, by_label=rule.by_label, seed=rule.seed, purpose="limit-train")
    where = str(dataset.path)
    if len({example.key for example in rows}) < 2:
        raise RiyazError(f"the {len(rows)} selected rows all have the same prompt", where, "raise --limit-train")
    if count_groups(rows) < 2:
        raise RiyazError(f"the {len(rows)} selected rows are all of one group", where, "raise --limit-train")
    choice = {"by_label": rule.by_unit, "seed": rule.seed, "purpose": "valid"}
    valid, train = hold_out(rows, VALID_FRACTION, max_rows=MAX_VALID, **choice)  # type: ignore[arg-type]
    if not train:
        raise RiyazError("every row has the prompt of a row in another group", where, "leave out --group-column")
    return tuple(ordered(train, rule.seed, "train")), tuple(valid)


def _folds(rows: Sequence[Example], rule: _Rule, dataset: Dataset) -> tuple[Split, ...]:
    """Five splits of the same rows, each with another fold as test rows, at most `limit_test` in all."""
    tested = _test_rows(rows, rule)
    folds = []
    for held in deal(rows, FOLDS, by_label=rule.by_unit, seed=rule.seed, purpose="fold"):
        places = {id(example) for example in held}
        test = tuple(example for example in tested if id(example) in places)
        folds.append(Split(*_train_valid(without(rows, held), rule, dataset), test))
    return tuple(folds)


def _report(
    train: Dataset, test: Dataset | None, task: Task, result: Split, leakage: dict[str, float], crossed: str
) -> DataReport:
    tested = result.tested
    rows = {
        "file": len(train.examples),
        "test_file": len(test.examples) if test else 0,
        "train": len(result.train),
        "valid": len(result.valid),
        "test": len(tested),
        "folds": len(result.folds),
        "skipped": train.skipped + (test.skipped if test else 0),
        "incomplete": train.incomplete + (test.incomplete if test else 0),
    }
    report = DataReport(rows, *count_repeats(train.examples), leakage, answer_words(train.examples))
    report.notes = list(dict.fromkeys(train.notes + (test.notes if test else ())))
    if any(example.group is not None for example in tested):
        report.groups = {
            "train": count_groups(result.train),
            "valid": count_groups(result.valid),
            "test": count_groups(tested),
        }
        report.notes += [groups_note(report.groups), *([crossed] if crossed else [])]
    report.slices = dict(sorted(Counter(e.slice for e in tested if e.slice is not None).items()))
    unseen: list[Example] = []
    unlearned: list[Example] = []
    if task.kind == "closed":
        parts = {"train": result.train, "valid": result.valid, "test": tested}
        report.labels = count_labels(task.labels, parts)
        unseen, unlearned = rows_with_unseen_labels(tested, task.labels), _unlearned(result)
        if tested and len(unlearned) == len(tested):
            what = f"no test row has a label of the training rows; this one has {unlearned[0].answer!r}"
            other = "leave out --group-column" if report.groups else "give more rows of each label"
            raise RiyazError(
                what, (test or train).place(unlearned[0]), "use the same labels in both files" if test else other
            )
        twins = twins_note({*task.labels, *(answer for example in tested for answer in example.answers)})
        report.notes += [twins] if twins else []
    report.unseen_labels = sorted({example.answer for example in unseen})
    report.notes += notes(report, len(unseen), len(unlearned) - len(unseen))
    return report


def _unlearned(result: Split) -> list[Example]:
    """Test rows with no answer among the labels of the rows that are trained and validated on."""
    parts = result.folds or (result,)
    learned = [{row.answer for row in (*part.train, *part.valid)} for part in parts]
    return [row for part, labels in zip(parts, learned) for row in rows_with_unseen_labels(part.test, labels)]


def _place(example: Example) -> tuple[str, int, int]:
    """(file, line number, number of the answer), or (name, row number, …) for rows in memory, by which rows sort in
    their order."""
    place = re.fullmatch(r"(.*?)(?::| row )?(\d*)(?: turn (\d+))?", example.where, re.DOTALL)
    assert place is not None  # the pattern matches any text
    return place[1], int(place[2] or 0), int(place[3] or 0)
