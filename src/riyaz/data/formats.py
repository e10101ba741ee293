"""Read files and folders as datasets.

`load(path)` reads one file, the files of a pattern such as `part-*.parquet`, or a folder that `datasets` saved;
`open_data(path)` reads these or a folder with `train.*`, optional `test.*` and `riyaz.toml`, where each part is one
file or shards. `Dataset.format` names the columns that were read.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from riyaz import config
from riyaz.data import Dataset, Example
from riyaz.data.column_roles import Reading, find_reading
from riyaz.data.many_files import (
    combine,
    common_folder,
    is_table,
    matching_files,
    mixed_columns,
    part_files,
    read_tables,
)
from riyaz.data.parquet import SPLITS, saved_splits
from riyaz.data.records import RowProblem, example_of
from riyaz.data.tables import Problems, Table
from riyaz.errors import RiyazError, few


@dataclass(frozen=True)
class DataFolder:
    """The data at a path: training rows, test rows if any, and the settings of riyaz.toml."""

    train: Dataset
    test: Dataset | None = None
    settings: dict[str, object] = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # tables in the folder that were not read


def load(
    path: str | Path | Table,
    *,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    encoding: str | None = None,
    answers_required: bool = True,
) -> Dataset:
    """The examples of a file, of several read as one, or of rows in memory; each needs an answer if `answers_required`.

    Without `encoding` text must be UTF-8. Raises RiyazError with file and line.
    """
    tables = read_tables(path if isinstance(path, Table) else Path(path), encoding)
    path = path.path if isinstance(path, Table) else Path(path)
    combined = combine(path, tables)
    try:
        reading = find_reading(combined, prompt_column, answer_column, answers_required)
    except RiyazError as error:
        raise mixed_columns(error, path, tables) from None
    examples: list[Example] = []
    skipped = 0
    folder = common_folder(tables)
    for table in tables:
        of_table, skipped_here = _examples(table, reading, folder, answers_required)
        examples += of_table
        skipped += skipped_here
    if not examples:
        what = "every answer has weight 0, so there is nothing to learn"
        raise RiyazError(what, str(path), "give the answers weight 1")
    return Dataset(
        examples=tuple(examples),
        format=reading.format,
        path=path,
        sha256=combined.sha256,
        columns=combined.columns,
        skipped=skipped,
        answer_column=reading.answer,
        folder=None if combined.in_memory else folder,
    )


def _examples(table: Table, reading: Reading, folder: Path, answers_required: bool) -> tuple[list[Example], int]:
    """The examples of one table, and its number of conversations in which every answer has weight 0."""
    examples, skipped, problems = [], 0, Problems(table.path, mark=table.mark)
    for line, row in table.rows:
        try:
            example = example_of(row, reading, table.place(line, folder), answers_required)
        except RowProblem as problem:
            problems.add(line, str(problem))
            continue
        if example is None:
            skipped += 1
        else:
            examples.append(example)
    problems.check("correct or remove the row" + ("s" if len(problems.entries) > 1 else ""))
    return examples, skipped


def open_data(
    path: str | Path | Table,
    *,
    test: str | Path | Table | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    encoding: str | None = None,
) -> DataFolder:
    """Read a file of training rows, rows in memory, or a folder; arguments override the folder's riyaz.toml. Raises
    RiyazError."""
    path = path if isinstance(path, Table) else Path(path)
    if isinstance(path, Path) and path.is_dir() and not is_table(path):
        return load_folder(path, test=test, prompt_column=prompt_column, answer_column=answer_column, encoding=encoding)
    read = partial(load, prompt_column=prompt_column, answer_column=answer_column, encoding=encoding)
    return DataFolder(read(path), read(test) if test else None)


def load_folder(
    folder: str | Path,
    *,
    test: str | Path | Table | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    encoding: str | None = None,
) -> DataFolder:
    """Read `train.*`, optional `test.*` and `riyaz.toml` of a folder; arguments override the settings."""
    folder = Path(folder)
    settings_path = folder / "riyaz.toml"
    settings = config.read_toml(settings_path) if settings_path.exists() else {}
    named = None if isinstance(test, Table) else test
    given = {"test": named, "prompt_column": prompt_column, "answer_column": answer_column, "encoding": encoding}
    data_config, compare_config = config.resolve(settings, given)
    splits = saved_splits(folder)
    tables = sorted(folder / name for name in splits) or sorted(entry for entry in folder.iterdir() if is_table(entry))
    paths = {part: folder / part if part in splits else _one_part(folder, part) for part in ("train", "test")}
    train_path = paths["train"]
    if train_path is None:
        names = few([entry.name for entry in tables])
        what = f"no split 'train' in {SPLITS}" if splits else "no train.jsonl, train.csv, … in this folder"
        hint = f"name one of its files ({names})" if tables else "put train.jsonl there"
        raise RiyazError(what, str(folder), hint)
    test_source = test if isinstance(test, Table) else compare_config.test or paths["test"]
    read = partial(
        load,
        prompt_column=data_config.prompt_column,
        answer_column=data_config.answer_column,
        encoding=data_config.encoding,
    )
    used = {
        path.resolve() for part in (train_path, test_source) if isinstance(part, Path) for path in matching_files(part)
    }
    return DataFolder(
        train=read(train_path),
        test=read(test_source) if test_source else None,
        settings=settings,
        unused=tuple(entry.name for entry in tables if entry.resolve() not in used),
    )


def _one_part(folder: Path, stem: str) -> Path | None:
    """The file `stem.*` of a folder, or the pattern of its shards; None if neither exists. RiyazError for several."""
    paths = part_files(folder, stem)
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise RiyazError(f"{names} are both in this folder", str(folder), "keep one of them")
    return paths[0] if paths else None
