"""Groups of rows that are not independent: of one customer, one conversation, or about one document.

A group is never on both sides of a split, and intervals are over groups (`riyaz.metrics.groups`).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from riyaz.data import Dataset, Example, Reading
from riyaz.data.example_stream import mapped
from riyaz.data.tables import Table
from riyaz.data.text_keys import count_distinct
from riyaz.errors import RiyazError, brief, listed

FEWEST = 5  # groups of the rows that are split: training, validation and test need some each


def unit(example: Example) -> str:
    """What of the rows stays together in a split: their group, else the rows with the same prompt."""
    return example.key if example.group is None else f"group {example.group}"


def count_groups(examples: Sequence[Example]) -> int:
    """The number of groups; a row without one counts alone."""
    alone = sum(example.group is None for example in examples)
    return alone + count_distinct(example.group for example in examples if example.group is not None)


def group_column_of(table: Table, column: str | None, like: Reading | None) -> tuple[str, str]:
    """The column that names the groups, "" for none: the given one, else that of `like`; and a note where the table
    lacks the latter. Raises RiyazError where it lacks the given one."""
    if column is not None and column not in table.columns:
        raise RiyazError(f"no column {column!r} to group by", str(table.path), "columns: " + listed(table.columns))
    before = like.group if like and column is None else ""
    if before and before not in table.columns:
        return "", f"no column {before!r}, which groups the training rows: these are taken as independent"
    return column or before, ""


def by_document(examples: Sequence[Example]) -> tuple[Sequence[Example], str]:
    """The examples with their documents as groups, where at least FEWEST documents are named and one by several rows;
    and a note that says so."""
    named = [*islice((example for example in examples if example.doc_ids), 1)]
    documents = named and count_distinct(repr(example.doc_ids) for example in examples if example.doc_ids)
    if not documents or documents < FEWEST or documents == sum(bool(example.doc_ids) for example in examples):
        return examples, ""
    grouped = mapped(examples, lambda each: replace(each, group="\n".join(each.doc_ids) or each.group))
    return grouped, f"rows with the same doc_id are a group: {len(grouped)} rows in {count_groups(grouped)} groups"


def check_groups(train: Dataset, test: Dataset | None) -> None:
    """Raises RiyazError where there are too few groups to split, or all test rows are of one."""
    column = train.reading.group if train.reading else ""
    for dataset, fewest in ((train, 2 if test else FEWEST), *([(test, 2)] if test else [])):
        groups = count_groups(dataset.examples)
        if column and groups < fewest:
            one = f"all {len(dataset.examples)} rows are of one group"
            what = one if groups == 1 else f"the rows are of {groups} groups"
            need = "" if groups == 1 else f", and a split needs {fewest}"
            hint = "name a --group-column that differs between rows, or leave it out"
            raise RiyazError(f"{what} ({column!r}){need}", str(dataset.path), hint)


def crossing(train: Dataset, test: Dataset) -> tuple[set[str], str]:
    """The groups that are in both files, and the first of them with a line of each; (set(), "") for none."""
    places = {example.group: example.where for example in reversed(train.examples) if example.group is not None}
    both = [example for example in test.examples if example.group in places]
    if not both:
        return set(), ""
    first, group = both[0], str(both[0].group)
    return {str(example.group) for example in both}, f"{brief(group)} ({places[group]} and {first.where})"
