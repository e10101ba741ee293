"""Files and folders as datasets.

`load(path)` reads one JSONL, CSV or TSV file; `open_data(path)` a file or a folder with `train.*`, optional
`test.*` and `riyaz.toml`. `Dataset.format` says which columns were read.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from riyaz import config
from riyaz.data import Dataset
from riyaz.data.columns import find_reading
from riyaz.data.records import RowProblem, example_of
from riyaz.data.tables import SUFFIXES, Problems, read_table
from riyaz.errors import RiyazError


@dataclass(frozen=True)
class DataFolder:
    """What stands at a path: training rows, test rows if any, and the settings of its riyaz.toml."""

    train: Dataset
    test: Dataset | None = None
    settings: dict[str, object] = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # tables in the folder that were not read


def load(
    path: str | Path,
    *,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    answers_required: bool = True,
) -> Dataset:
    """The examples of a file, whose rows need answers if required. RiyazError names file and line."""
    table = read_table(path)
    reading = find_reading(table, prompt_column, answer_column, answers_required)
    examples, skipped, problems = [], 0, Problems(table.path)
    for line, row in table.rows:
        try:
            example = example_of(row, reading, f"{table.path.name}:{line}", answers_required)
        except RowProblem as problem:
            problems.add(line, str(problem))
            continue
        if example is None:
            skipped += 1
        else:
            examples.append(example)
    problems.check("correct or remove the row" + ("s" if len(problems.found) > 1 else ""))
    if not examples:
        what = "every answer has weight 0, so there is nothing to learn"
        raise RiyazError(what, str(table.path), "give the answers weight 1")
    return Dataset(
        examples=tuple(examples),
        format=reading.format,
        path=table.path,
        sha256=table.sha256,
        columns=table.columns,
        skipped=skipped,
        answer_column=reading.answer,
    )


def open_data(
    path: str | Path,
    *,
    test: str | Path | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
) -> DataFolder:
    """A file of training rows, or a folder; arguments win over the folder's riyaz.toml. Raises RiyazError."""
    if Path(path).is_dir():
        return load_folder(path, test=test, prompt_column=prompt_column, answer_column=answer_column)
    read = partial(load, prompt_column=prompt_column, answer_column=answer_column)
    return DataFolder(read(path), read(test) if test else None)


def load_folder(
    folder: str | Path,
    *,
    test: str | Path | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
) -> DataFolder:
    """`train.*`, optional `test.*` and `riyaz.toml` of a folder; arguments win over the settings."""
    folder = Path(folder)
    settings_path = folder / "riyaz.toml"
    settings = config.read_toml(settings_path) if settings_path.exists() else {}
    given = {"test": test, "prompt_column": prompt_column, "answer_column": answer_column}
    data_config, compare_config = config.resolve(settings, given)
    tables = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)
    train_path = _one_table(folder, "train")
    if train_path is None:
        names = ", ".join(entry.name for entry in tables)
        hint = f"name one of its files ({names})" if tables else "put train.jsonl there"
        raise RiyazError("no train.jsonl, train.csv or train.tsv in this folder", str(folder), hint)
    test_path = compare_config.test or _one_table(folder, "test")
    read = partial(load, prompt_column=data_config.prompt_column, answer_column=data_config.answer_column)
    used = {path.resolve() for path in (train_path, test_path) if path}
    return DataFolder(
        train=read(train_path),
        test=read(test_path) if test_path else None,
        settings=settings,
        unused=tuple(entry.name for entry in tables if entry.resolve() not in used),
    )


def _one_table(folder: Path, stem: str) -> Path | None:
    found = [folder / (stem + suffix) for suffix in SUFFIXES if (folder / (stem + suffix)).exists()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise RiyazError(f"{names} both stand in this folder", str(folder), "keep one of them")
    return found[0] if found else None
