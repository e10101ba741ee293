"""How the rows of a comparison are divided: all arms train on, choose by and answer the same ones."""

from collections.abc import Mapping
from pathlib import Path

from riyaz.comparison import documents
from riyaz.comparison.context_limit import without_too_long
from riyaz.comparison.shorter_test import Divide
from riyaz.config import CompareConfig
from riyaz.data.formats import DataFolder
from riyaz.data.split import DataReport, Split, split
from riyaz.data.task import Task
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
) -> Divide:
    """A function that divides the rows into parts, without those too long for one of the models: all arms answer the
    same rows. `used` are the documents that a method retrieves from."""
    reading = {name: (source.tokenizer(), describe(source)) for name, source in bases.items()}
    prefix = max(METHODS[name].prefix_tokens for name in methods)
    tested = data_files.test or data_files.train
    in_documents = any(example.own_doc_ids for example in data_files.train.examples)
    test_in_documents = used is not None and tested.folder is not None and documents.same_file(used, tested.path)
    test_in_documents = test_in_documents and not in_documents

    def divide(deal_folds: bool, limit_test: int | None) -> tuple[Split, DataReport]:
        parts, report = split(
            data_files.train, data_files.test, task, limit_train=config.limit_train, limit_test=limit_test,
            seed=config.seed, allow_leakage=config.allow_leakage, deal_folds=deal_folds,
        )  # fmt: skip
        too_long: list[str] = []
        for name, (tokenizer, family) in reading.items():
            parts, longer = without_too_long(parts, task, tokenizer, family.config.context - prefix)
            too_long += longer
            report.notes += [f"{name}: {note}" if len(reading) > 1 else note
                             for note in (*family.notes, *tokenizer.notes)]  # fmt: skip
        if too_long:
            report.notes.append(f"{len(too_long)} rows left out that do not fit the context, such as {too_long[0]}")
        if test_in_documents:
            note = "holds the documents and the test rows: retrieval can find the answers themselves"
            report.notes.append(f"{tested.path.name} {note}")
        if in_documents:
            note = "the documents hold rows of the data: a row's own document is left out of its prompt"
            report.notes.append(note)
        return parts, report

    return divide
