"""How the rows of a comparison are divided: all arms train on, choose by and answer the same ones."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from riyaz.artifact import trained_key
from riyaz.comparison import documents
from riyaz.comparison.context_limit import without_too_long
from riyaz.comparison.shorter_test import Divide
from riyaz.config import MIN_ROWS, CompareConfig
from riyaz.data import Dataset, Example
from riyaz.data.answer_in_prompt import answer_in_prompt, refuse_telling
from riyaz.data.data_report import count_labels
from riyaz.data.formats import DataFolder
from riyaz.data.sampling import sample, without
from riyaz.data.split import MAX_LEAKAGE, DataReport, Split, split
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.families import describe
from riyaz.methods import METHODS
from riyaz.sources import Source


def divider(
    data_files: DataFolder,
    task: Task,
    bases: Mapping[str, Source],
    config: CompareConfig,
    methods: tuple[str, ...],
    used: Path | None,
    learned: Collection[str] = (),
) -> Divide:
    """A function that divides the rows into parts, without those too long for one of the models: all arms answer the
    same rows. `used` are the documents that a method retrieves from. Rows whose keys an artifact has `learned` are
    trained on, and never held out. Raises RiyazError for prompts that tell their label, unless that is allowed."""
    telling = answer_in_prompt(data_files.train, data_files.test, task)
    refuse_telling(telling, str(data_files.train.path), config.allow_answer_in_prompt)
    reading = {name: (source.tokenizer(), describe(source)) for name, source in bases.items()}
    prefix = max(METHODS[name].prefix_tokens for name in methods)
    tested = data_files.test or data_files.train
    in_documents = any(example.own_doc_ids for example in data_files.train.examples)
    test_in_documents = used is not None and tested.folder is not None and documents.same_file(used, tested.path)
    test_in_documents = test_in_documents and not in_documents

    fresh, again = _apart(data_files, learned)

    def divide(deal_folds: bool, limit_test: int | None) -> tuple[Split, DataReport]:
        parts, report = split(
            fresh, data_files.test, task, limit_train=config.limit_train, limit_test=limit_test, seed=config.seed,
            allow_leakage=config.allow_leakage, deal_folds=deal_folds,
        )  # fmt: skip
        if again:
            parts = _with_again(parts, again, task, config)
            _count_again(report, parts, len(data_files.train.examples), task)
        too_long: list[str] = []
        for name, (tokenizer, family) in reading.items():
            parts, longer = without_too_long(parts, task, tokenizer, family.config.context - prefix)
            too_long += longer
            report.notes += [f"{name}: {note}" if len(reading) > 1 else note
                             for note in (*family.notes, *tokenizer.notes)]  # fmt: skip
        if too_long:
            report.notes.append(f"{len(too_long)} rows left out that do not fit the context, such as {too_long[0]}")
        if telling is not None:
            report.answer_in_prompt = telling.to_dict()
            report.notes += [telling.note] if telling.telling else []
        if test_in_documents:
            note = "holds the documents and the test rows: retrieval can find the answers themselves"
            report.notes.append(f"{tested.path.name} {note}")
        if in_documents:
            note = "the documents hold rows of the data: a row's own document is left out of its prompt"
            report.notes.append(note)
        return parts, report

    return divide


def without_learned(data_files: DataFolder, learned: Collection[str], allow: bool) -> tuple[DataFolder, list[str]]:
    """The data without the rows of a test file that an artifact has learned, and notes on these and on such training
    rows. Raises RiyazError where they are more of the test than MAX_LEAKAGE, unless that is allowed."""
    train, test = data_files.train.examples, data_files.test
    known, notes = sum(_known(row, learned) for row in train), []
    if known:
        notes.append(f"{known} of {len(train)} rows are among those that the artifact has learned")
    if test is None:
        return data_files, notes
    left = [row for row in test.examples if not _known(row, learned)]
    leaked = len(test.examples) - len(left)
    if not leaked:
        return data_files, notes
    what = f"the artifact has learned {leaked} of {len(test.examples)} test rows"
    if not left:
        raise RiyazError(what, str(test.path), "give test rows that it has not learned")
    if leaked > MAX_LEAKAGE * len(test.examples) and not allow:
        first = next(row for row in test.examples if _known(row, learned))
        hint = "remove them, or pass --allow-leakage to continue without them"
        raise RiyazError(f"{what}, such as {first.where}", str(test.path), hint, {"allow_leakage": True})
    return replace(data_files, test=replace(test, examples=tuple(left))), [*notes, f"{what}: they are left out"]


def _known(row: Example, learned: Collection[str]) -> bool:
    return trained_key(row) in learned


def _apart(data_files: DataFolder, learned: Collection[str]) -> tuple[Dataset, list[Example]]:
    """The training rows of which some are held out, and those that an artifact has learned. With a test file and too
    few others all are as new: validation rows alone are then known. Raises RiyazError for too few without a test
    file."""
    train = data_files.train
    again = [row for row in train.examples if _known(row, learned)]
    fresh = tuple(row for row in train.examples if not _known(row, learned))
    few = len({row.key for row in fresh}) < MIN_ROWS
    if not again or (few and data_files.test is not None):
        return train, []
    if few:
        what = f"{len(fresh)} of {len(train.examples)} rows are new to the artifact: too few to test it"
        raise RiyazError(what, str(train.path), f"give at least {MIN_ROWS} new rows, or name test rows with --test")
    return replace(train, examples=fresh), again


def _with_again(parts: Split, again: Sequence[Example], task: Task, config: CompareConfig) -> Split:
    """The parts, in which rows that are known are trained on too, up to --limit-train, where no row of their group is
    held out."""
    rows = without(again, (*parts.valid, *parts.test))
    room = len(rows)
    if config.limit_train is not None:
        room = max(0, config.limit_train - len(parts.train) - len(parts.valid))
    some = sample(rows, room, by_label=task.kind == "closed", seed=config.seed, purpose="limit-train")
    folds = tuple(_with_again(fold, again, task, config) for fold in parts.folds)
    return replace(parts, train=(*parts.train, *some), folds=folds)


def _count_again(report: DataReport, parts: Split, rows: int, task: Task) -> None:
    """Correct the counts of a report that knows only rows which may be held out."""
    report.rows |= {"file": rows, "train": len(parts.train)}
    if task.kind == "closed":
        each = {"train": parts.train, "valid": parts.valid, "test": parts.tested}
        report.labels = count_labels(task.labels, each)
