"""Training, validation and test rows, held out by the hash of the prompt.

With a test file its rows are the test, and their copies leave the training rows. Without one a quarter is
held out; under 200 rows five folds are dealt, or half is held out when there is no time for folds. The result
depends on the contents and the seed alone.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from riyaz.config import MIN_ROWS
from riyaz.data import Dataset, Example
from riyaz.data.data_report import DataReport, answer_words, count_labels, count_repeats, notes, unseen
from riyaz.data.sampling import deal, hold_out, ordered, sample
from riyaz.data.task import Task
from riyaz.errors import RiyazError

FOLDS = 5
FOLD_BELOW = 200  # rows; a quarter of fewer says too little
TEST_FRACTION = 0.25
FEW_FRACTION = 0.5  # of few training rows, without folds; the validation rows stay the same
VALID_FRACTION = 0.2
VALID_MOST = 256
LEAKAGE_MOST = 0.05  # of the test rows


@dataclass(frozen=True)
class Split:
    """Rows to learn from, to choose by and to judge by.

    With `folds`, `test` is empty: each row is a test row of one fold, and `train` and `valid` make the
    artifact that is kept.
    """

    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    test: tuple[Example, ...]
    folds: tuple["Split", ...] = ()

    @property
    def tested(self) -> tuple[Example, ...]:
        """Every test row, fold after fold when there are folds."""
        return self.test + tuple(example for fold in self.folds for example in fold.test)


@dataclass(frozen=True)
class _Rule:
    by_label: bool
    limit_train: int | None
    limit_test: int | None
    seed: int


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
    """Hold rows out. `limit_train` counts training and validation rows together; without `deal_folds` few rows
    are held out once. Raises RiyazError."""
    rule = _Rule(task.kind == "closed", limit_train, limit_test, seed)
    rows: Sequence[Example] = train.examples
    _check_enough(rows, train)
    leakage: dict[str, float] = {"test_rows": 0, "share": 0.0, "dropped": 0}
    tested: Sequence[Example] = ()
    folds: tuple[Split, ...] = ()
    if test is not None:
        rows, leakage = _drop_leaked(train, test, allow_leakage)
        tested = _test_rows(test.examples, rule)
    elif len(rows) >= FOLD_BELOW:
        held, rows = hold_out(rows, TEST_FRACTION, by_label=rule.by_label, seed=seed, purpose="test")
        tested = _test_rows(held, rule)
    elif deal_folds:
        folds = _folds(rows, rule, train)
    learned, valid = _train_valid(rows, rule, train)
    if test is None and len(rows) < FOLD_BELOW and not deal_folds:
        held, rest = hold_out(learned, FEW_FRACTION, by_label=rule.by_label, seed=seed, purpose="test")
        learned, tested = tuple(ordered(rest, seed, "train")), _test_rows(held, rule)
    result = Split(learned, valid, tuple(tested), folds)
    return result, _report(train, test, task, result, leakage)


def _check_enough(rows: Sequence[Example], dataset: Dataset) -> None:
    distinct = len({example.key for example in rows})
    if distinct < MIN_ROWS:
        repeats = f", only {distinct} of them with a prompt of its own" if distinct < len(rows) else ""
        what = f"{len(rows)} rows{repeats}: too few to learn from and to test"
        raise RiyazError(what, str(dataset.path), f"give at least {MIN_ROWS} rows with different prompts")


def _drop_leaked(train: Dataset, test: Dataset, allow: bool) -> tuple[list[Example], dict[str, float]]:
    """Training rows whose prompt is not in the test, and how many were."""
    places = {example.key: example.where for example in reversed(train.examples)}
    leaked = [example for example in test.examples if example.key in places]
    share = len(leaked) / len(test.examples)
    if share > LEAKAGE_MOST and not allow:
        what = f"{len(leaked)} of {len(test.examples)} test rows ({share:.1%}) stand in the training rows too"
        pair = f"{leaked[0].where} is {places[leaked[0].key]}"
        hint = "take them out, or pass --allow-leakage to go on without their training copies"
        raise RiyazError(f"{what}, such as {pair}", str(test.path), hint)
    keys = {example.key for example in leaked}
    kept = [example for example in train.examples if example.key not in keys]
    dropped = len(train.examples) - len(kept)
    if len({example.key for example in kept}) < MIN_ROWS:
        what = f"{len(kept)} rows are left without the {dropped} whose prompts stand in the test"
        raise RiyazError(what, str(train.path), "give training rows that are no test rows")
    return kept, {"test_rows": len(leaked), "share": share, "dropped": dropped}


def _test_rows(rows: Sequence[Example], rule: _Rule) -> list[Example]:
    """The test rows in file order, at most the limit."""
    limit = len(rows) if rule.limit_test is None else rule.limit_test
    chosen = sample(rows, limit, by_label=rule.by_label, seed=rule.seed, purpose="limit-test")
    return sorted(chosen, key=_place)


def _train_valid(
    rows: Sequence[Example], rule: _Rule, dataset: Dataset
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(training rows, validation rows) in seeded order, at most the limit together."""
    limit = len(rows) if rule.limit_train is None else rule.limit_train
    rows = sample(rows, limit, by_label=rule.by_label, seed=rule.seed, purpose="limit-train")
    if len({example.key for example in rows}) < 2:
        raise RiyazError(f"the {len(rows)} rows chosen have one prompt", str(dataset.path), "raise --limit-train")
    choice = {"by_label": rule.by_label, "seed": rule.seed, "purpose": "valid"}
    valid, train = hold_out(rows, VALID_FRACTION, most=VALID_MOST, **choice)  # type: ignore[arg-type]
    return tuple(ordered(train, rule.seed, "train")), tuple(valid)


def _folds(rows: Sequence[Example], rule: _Rule, dataset: Dataset) -> tuple[Split, ...]:
    """Five splits of the same rows with their test rows in different folds, the limit in all."""
    tested = _test_rows(rows, rule)
    folds = []
    for keys in deal(rows, FOLDS, by_label=rule.by_label, seed=rule.seed, purpose="fold"):
        rest = [example for example in rows if example.key not in keys]
        test = tuple(example for example in tested if example.key in keys)
        folds.append(Split(*_train_valid(rest, rule, dataset), test))
    return tuple(folds)


def _report(train: Dataset, test: Dataset | None, task: Task, result: Split, leakage: dict[str, float]) -> DataReport:
    tested = result.tested
    rows = {
        "file": len(train.examples),
        "test_file": len(test.examples) if test else 0,
        "train": len(result.train),
        "valid": len(result.valid),
        "test": len(tested),
        "folds": len(result.folds),
        "skipped": train.skipped + (test.skipped if test else 0),
    }
    report = DataReport(rows, *count_repeats(train.examples), leakage, answer_words(train.examples))
    report.slices = dict(sorted(Counter(e.slice for e in tested if e.slice is not None).items()))
    strangers: list[Example] = []
    if task.kind == "closed":
        parts = {"train": result.train, "valid": result.valid, "test": tested}
        report.labels = count_labels(task.labels, parts)
        strangers = unseen(tested, task.labels)
        if test is not None and len(strangers) == len(tested):
            what = f"no test row has a label of the training rows; this one has {strangers[0].answer!r}"
            raise RiyazError(what, test.place(strangers[0]), "use the same labels in both files")
    report.unseen_labels = sorted({example.answer for example in strangers})
    report.notes = notes(report, len(strangers))
    return report


def _place(example: Example) -> tuple[str, int]:
    """File and line, or name and row, which sort as the rows stand."""
    place = re.fullmatch(r"(.*?)(?::| row )?(\d*)", example.where, re.DOTALL)
    assert place is not None  # the pattern fits any text
    return place[1], int(place[2] or 0)
