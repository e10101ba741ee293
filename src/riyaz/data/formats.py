"""Files and folders as datasets.

`load(path)` reads one file, several of a pattern such as `part-*.parquet`, or a folder that `datasets` saved;
`open_data(path)` those or a folder with `train.*`, optional `test.*` and `riyaz.toml`, each of them one file or
shards. `Dataset.format` says which columns were read.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from riyaz import config
from riyaz.data import Dataset, Example
from riyaz.data.column_roles import Reading, find_reading
from riyaz.data.many_files import differing, is_table, joined, part_files, read_tables, root_of, shards
from riyaz.data.parquet import SPLITS, saved_splits
from riyaz.data.records import RowProblem, example_of
from riyaz.data.tables import Problems, Table
from riyaz.errors import RiyazError


@dataclass(frozen=True)
class DataFolder:
    """What stands at a path: training rows, test rows if any, and the settings of its riyaz.toml."""

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
    """The examples of a file, of several as one or of rows in memory, which need answers if required.

    Without `encoding` text must be UTF-8. RiyazError names file and line.
    """
    tables = read_tables(path if isinstance(path, Table) else Path(path), encoding)
    path = path.path if isinstance(path, Table) else Path(path)
    whole = joined(path, tables)
    try:
        reading = find_reading(whole, prompt_column, answer_column, answers_required)
    except RiyazError as error:
        raise differing(error, path, tables) from None
    examples: list[Example] = []
    skipped = 0
    folder = root_of(tables)
    for table in tables:
        found, left_out = _examples(table, reading, folder, answers_required)
        examples += found
        skipped += left_out
    if not examples:
        what = "every answer has weight 0, so there is nothing to learn"
        raise RiyazError(what, str(path), "give the answers weight 1")
    return Dataset(
        examples=tuple(examples),
        format=reading.format,
        path=path,
        sha256=whole.sha256,
        columns=whole.columns,
        skipped=skipped,
        answer_column=reading.answer,
        folder=None if whole.in_memory else folder,
    )


def _examples(table: Table, reading: Reading, folder: Path, answers_required: bool) -> tuple[list[Example], int]:
    """The examples of one file, and how many conversations ask not to be learned."""
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
    problems.check("correct or remove the row" + ("s" if len(problems.found) > 1 else ""))
    return examples, skipped


def open_data(
    path: str | Path | Table,
    *,
    test: str | Path | Table | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    encoding: str | None = None,
) -> DataFolder:
    """A file of training rows, rows in memory, or a folder; arguments win over the folder's riyaz.toml. Raises
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
    """`train.*`, optional `test.*` and `riyaz.toml` of a folder; arguments win over the settings."""
    folder = Path(folder)
    settings_path = folder / "riyaz.toml"
    settings = config.read_toml(settings_path) if settings_path.exists() else {}
    named = None if isinstance(test, Table) else test
    given = {"test": named, "prompt_column": prompt_column, "answer_column": answer_column, "encoding": encoding}
    data_config, compare_config = config.resolve(settings, given)
    splits = saved_splits(folder)
    tables = sorted(folder / name for name in splits) or sorted(entry for entry in folder.iterdir() if is_table(entry))
    found = {part: folder / part if part in splits else _one_part(folder, part) for part in ("train", "test")}
    train_path = found["train"]
    if train_path is None:
        names = ", ".join(entry.name for entry in tables)
        what = f"no split 'train' in {SPLITS}" if splits else "no train.jsonl, train.csv, … in this folder"
        hint = f"name one of its files ({names})" if tables else "put train.jsonl there"
        raise RiyazError(what, str(folder), hint)
    tested = test if isinstance(test, Table) else compare_config.test or found["test"]
    read = partial(
        load,
        prompt_column=data_config.prompt_column,
        answer_column=data_config.answer_column,
        encoding=data_config.encoding,
    )
    used = {path.resolve() for part in (train_path, tested) if isinstance(part, Path) for path in shards(part)}
    return DataFolder(
        train=read(train_path),
        test=read(tested) if tested else None,
        settings=settings,
        unused=tuple(entry.name for entry in tables if entry.resolve() not in used),
    )


def _one_part(folder: Path, stem: str) -> Path | None:
    """The file `stem.*` of a folder, or the pattern of its shards; RiyazError when there are several."""
    found = part_files(folder, stem)
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise RiyazError(f"{names} both stand in this folder", str(folder), "keep one of them")
    return found[0] if found else None
