"""Several files read as one: a pattern, shards such as train-00000-of-00002.parquet, a folder saved by `datasets`."""

import glob
import hashlib
import os
import re
from pathlib import Path

from riyaz.data.bounds import Bounds
from riyaz.data.parquet import arrow_rows, is_saved, saved_files
from riyaz.data.tables import SUFFIXES, Table, kind_of, read_table
from riyaz.errors import RiyazError, listed

SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<suffix>\..+)")
MAX_FILES = 10_000


def is_table(path: Path) -> bool:
    """Whether a path is read as one table: a file of rows, or a folder that `datasets` saved."""
    return is_saved(path) if path.is_dir() else bool(kind_of(path))


def read_tables(path: Path | Table, encoding: str | None = None) -> list[Table]:
    """The tables of a path or pattern, sorted by name; rows in memory are a table already. Raises RiyazError if there
    is none."""
    if isinstance(path, Table):
        return [path]
    if path.is_dir() and is_saved(path):
        files, features = saved_files(path)
        tables = [_arrow(file, features) for file in files]
        Bounds(path).check_rows(sum(len(table.rows) for table in tables))
        return tables
    tables, rows = [], 0
    for file in matching_files(path):
        tables.append(read_table(file, encoding))
        rows += len(tables[-1].rows)
        Bounds(path).check_rows(rows)
    return tables


def matching_files(path: Path) -> list[Path]:
    """The path itself, or the sorted files that match it as a pattern. Raises RiyazError if none matches."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [file for file in matches if file.is_file()]
    if not files:
        raise RiyazError("no file matches this pattern", str(path), "check the path")
    if len(files) > MAX_FILES:
        raise RiyazError(f"{len(files):,} files match this pattern", str(path), f"at most {MAX_FILES:,} are read")
    return files


def part_files(folder: Path, stem: str) -> list[Path]:
    """The candidates for a folder's train or test rows: files `stem.*`, and a pattern for each set of shards.

    Raises RiyazError if a shard is missing.
    """
    named = (folder / (stem + suffix + packed) for suffix in SUFFIXES for packed in ("", ".gz"))
    paths = [path for path in named if path.is_file() and kind_of(path)]
    sets: dict[tuple[int, str], set[int]] = {}
    for entry in sorted(folder.iterdir()):
        shard = SHARD.fullmatch(entry.name)
        if shard and shard["stem"] == stem and kind_of(entry):
            sets.setdefault((int(shard["count"]), shard["suffix"]), set()).add(int(shard["index"]))
    for (count, suffix), indices in sets.items():
        missing = [index for index in range(count) if index not in indices]
        if missing or len(indices) != count:
            name = f"{stem}-{missing[0] if missing else count:05}-of-{count:05}{suffix}"
            what = f"{name} is missing" if missing else f"there are more than {count} files"
            raise RiyazError(f"{what} among {len(indices)} shards", str(folder), "copy or download all of them")
        paths.append(Path(glob.escape(str(folder))) / f"{stem}-*-of-{count:05}{suffix}")
    return paths


def combine(path: Path, tables: list[Table]) -> Table:
    """Several tables as one for column detection: all columns, the first file's rows, a hash of the hashes."""
    if len(tables) == 1:
        return tables[0]
    columns = tuple(dict.fromkeys(column for table in tables for column in table.columns))
    hashes = "".join(table.sha256 for table in tables)
    return Table(path, tables[0].rows, columns, hashlib.sha256(hashes.encode()).hexdigest())


def mixed_columns(error: RiyazError, path: Path, tables: list[Table]) -> RiyazError:
    """The error for tables without a common reading: that their columns differ, if they do, else `error`."""
    first, other = tables[0], next((table for table in tables if set(table.columns) != set(tables[0].columns)), None)
    if other is None:
        return error
    root = common_folder(tables)
    what = " but ".join(f"{t.path.relative_to(root).as_posix()} has {listed(t.columns)}" for t in (first, other))
    hint = f"read them one by one, or {error.hint}"
    return RiyazError(f"the files have different columns: {what}", str(path), hint, error.options)


def common_folder(tables: list[Table]) -> Path:
    """The deepest folder that holds all tables; `Example.where` is relative to it."""
    folders = [str(table.path.parent) for table in tables]
    return Path(folders[0]) if len(set(folders)) == 1 else Path(os.path.commonpath(folders))


def _arrow(file: Path, features: dict | None) -> Table:
    rows, columns = arrow_rows(file, features)
    digest = hashlib.sha256()
    with open(file, "rb") as reader:
        while chunk := reader.read(2**20):
            digest.update(chunk)
    return Table(file, rows, columns, digest.hexdigest())
