"""Rows of Parquet files and of folders that `datasets` wrote with save_to_disk, read with pyarrow.

Label numbers become the label names in the file; bytes, such as pictures, become null. pyarrow is in the extra
`data`; without it the error names the command that installs it.
"""

import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

from riyaz.confined import module_command
from riyaz.data import parquet_worker
from riyaz.data.arrow_batches import batches
from riyaz.errors import RiyazError, listed
from riyaz.extras import install
from riyaz.system import CPU_LIMIT_REACHED

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"  # what save_to_disk writes
DECODED = 64  # rows that are then turned into Python's values: at most 64 MiB of text
MAX_JSON = 16 * 2**20
SPLIT = "split it, or save it as .jsonl if you trust it"
Rows = list[tuple[int, dict[str, object]]]


def parquet_rows(path: Path) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a Parquet file as (number from 1, fields), and its columns. Raises RiyazError."""
    _pyarrow(path, "pyarrow.parquet")
    return _read(path, "parquet", path, None)


def arrow_rows(path: Path, features: dict[str, Any] | None) -> tuple[Rows, tuple[str, ...]]:
    """As `parquet_rows` for an Arrow file (stream or file format); `features`, if given, must have the same columns."""
    arrow = _pyarrow(path, "pyarrow")
    try:
        with arrow.memory_map(str(path)) as source:
            return _read(path, "arrow", source, features)
    except OSError as error:
        raise _unreadable(path, error) from None


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved a single data set (one split) in this folder."""
    return (folder / STATE).is_file()


def saved_splits(folder: Path) -> list[str]:
    """Names of the splits that `datasets` saved in a folder; [] if it did not save several."""
    if not (folder / SPLITS).is_file():
        return []
    names = _object(folder / SPLITS).get("splits")
    if not isinstance(names, list) or not names or not all(_bare(name) for name in names):
        raise RiyazError("splits is not a list of folder names", str(folder / SPLITS), "save the data set again")
    for name in names:
        if not is_saved(folder / name):
            raise RiyazError(f"the split {name!r} has no {STATE}", str(folder), "save the data set again")
    return names


def saved_files(folder: Path) -> tuple[list[Path], dict[str, Any] | None]:
    """The Arrow files of a saved data set in order, and its features. Raises RiyazError if a file is missing."""
    state, again = _object(folder / STATE), "save the data set again with save_to_disk"
    entries = state.get("_data_files")
    names = [e.get("filename") if isinstance(e, dict) else None for e in entries] if isinstance(entries, list) else []
    if not names or not all(_bare(name) for name in names):
        raise RiyazError("_data_files is not a list of bare file names", str(folder / STATE), again)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        what = "the rows are a selection (_indices_data_files), which is not supported"
        raise RiyazError(what, str(folder / STATE), "call flatten_indices() before save_to_disk")
    for name in names:
        if not (folder / str(name)).is_file():
            raise RiyazError(f"{STATE} names {name!r}, which is missing", str(folder), "copy the folder again")
    features = _object(folder / INFO).get("features") if (folder / INFO).is_file() else None
    if features is not None and not isinstance(features, dict):
        raise RiyazError("features is not an object", str(folder / INFO), again)
    return [folder / str(name) for name in names], features


def _read(path: Path, kind: str, source: Any, features: dict[str, Any] | None) -> tuple[Rows, tuple[str, ...]]:
    """Rows and columns of a file, after a process with limits has read it. Raises RiyazError."""
    error_of_arrow = _pyarrow(path, "pyarrow").ArrowException
    _expect_readable(path, kind)
    rows: Rows = []
    try:
        parts = batches(path, kind, source)
        schema = next(parts)
        columns = _columns(path, schema, features)
        labels = _labels(schema, features)
        for batch in parts:
            for start in range(0, len(batch), DECODED):
                for fields in _decoded(batch.slice(start, DECODED)):
                    row = {name: _plain(value) for name, value in fields.items()}
                    place = len(rows) + 1
                    rows.append((place, row | {name: _label(path, place, name, row[name], labels) for name in labels}))
    except (error_of_arrow, OSError, ValueError, OverflowError, LookupError) as error:
        raise _unreadable(path, error) from None
    if not rows:
        raise RiyazError("the file has columns and no rows", str(path), "write one example per row")
    return rows, columns


def _unreadable(path: Path, error: Exception) -> RiyazError:
    detail = " ".join(str(error).split())[:120]
    return RiyazError(f"cannot be read ({detail})", str(path), "write or download it again")


def _expect_readable(path: Path, kind: str) -> None:
    """Raises RiyazError if a process with limits cannot read the file: its buffers and pages may decode to any size,
    whatever it says of itself, and a damaged one can end the process that reads it."""
    command, environment = module_command("riyaz.data.parquet_worker", str(path.absolute()), kind)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            timeout=5 * parquet_worker.SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RiyazError("does not decode in time", str(path), SPLIT) from None
    except OSError as error:
        raise RiyazError(f"the process that tries it failed to start: {error}", str(path)) from None
    if done.stdout == parquet_worker.READ:
        return
    if done.stdout == parquet_worker.TOO_LARGE:
        mib = parquet_worker.memory_mib(path)
        raise RiyazError(f"decodes to more than {mib:,} MiB at once; reading stopped", str(path), SPLIT)
    if done.returncode == CPU_LIMIT_REACHED:
        raise RiyazError("does not decode in time", str(path), SPLIT)
    raise RiyazError("is damaged: reading it crashes the reader", str(path), "write or download it again")


def _decoded(batch: Any) -> list[dict[str, Any]]:
    """The rows of a checked batch; a text of a dictionary is looked up first, which is much faster."""
    columns = [
        column.dictionary_decode() if hasattr(column, "dictionary_decode") else column for column in batch.columns
    ]
    rows: list[dict[str, Any]] = batch.from_arrays(columns, names=batch.schema.names).to_pylist()
    return rows


def _columns(path: Path, schema: Any, features: dict[str, Any] | None) -> tuple[str, ...]:
    names = tuple(schema.names)
    if len(set(names)) < len(names):
        raise RiyazError("two columns have the same name", str(path), "name each column once")
    if features is not None and set(features) != set(names):
        what = f"the columns are {listed(names)} here and {listed(features)} in {INFO}"
        raise RiyazError(what, str(path), "save the data set again")
    return names


def _labels(schema: Any, features: dict[str, Any] | None) -> dict[str, list[str]]:
    """Label names of each ClassLabel column, from dataset_info.json or from the metadata of a Parquet file."""
    if features is None:
        try:
            metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            features = metadata["info"]["features"]
        except (ValueError, KeyError, TypeError, RecursionError):
            features = {}
    labels = {}
    for name, feature in features.items() if isinstance(features, dict) else ():
        names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and all(isinstance(each, str) for each in names) and name in schema.names:
            labels[name] = names
    return labels


def _label(path: Path, place: int, column: str, value: object, labels: dict[str, list[str]]) -> object:
    """The name of a label number; None for -1, which `datasets` writes for a missing label."""
    if type(value) is not int or value == -1:
        return None if value == -1 else value
    if not 0 <= value < len(labels[column]):
        what = f"{column!r} is {value}, but the file names {len(labels[column])} labels"
        raise RiyazError(what, f"{path}:{place}", "correct the label or its names")
    return labels[column][value]


def _plain(value: object) -> object:
    """A value in JSON's types: dates and decimals as text, bytes as null."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def _bare(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not any(c in name for c in "/\\:\0")


def _object(path: Path) -> dict[str, Any]:
    """A JSON object of at most MAX_JSON bytes that `datasets` wrote. Raises RiyazError."""
    try:
        value = json.loads(path.read_bytes()[: MAX_JSON + 1])
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RiyazError("not a JSON object", str(path), "save the data set again with save_to_disk")
    return value


def _pyarrow(path: Path, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        kind = "Parquet" if path.suffix.lower() == ".parquet" else "a data set saved by datasets"
        raise RiyazError(f"reading {kind} needs pyarrow", str(path), install("data")) from None
