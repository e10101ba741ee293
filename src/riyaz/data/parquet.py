"""Rows of Parquet files and of folders that `datasets` wrote with save_to_disk, read with pyarrow.

Label numbers become the label names in the file; bytes, such as pictures, become null. pyarrow is in the extra
`parquet`; without it the error names the command that installs it.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riyaz.data.encodings import MAX_BYTES
from riyaz.errors import RiyazError, install, listed

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"  # what save_to_disk writes
BATCH = 1000  # rows
MAX_JSON = 16 * 2**20
Rows = list[tuple[int, dict[str, object]]]


def parquet_rows(path: Path) -> tuple[Rows, tuple[str, ...]]:
    """The rows of a Parquet file as (number from 1, fields), and its columns. Raises RiyazError."""
    parquet = _pyarrow(path, "pyarrow.parquet")

    def batches() -> Iterator[Any]:
        file = parquet.ParquetFile(path)
        yield file.schema_arrow
        yield from file.iter_batches(batch_size=BATCH)

    return _read(path, batches(), None)


def arrow_rows(path: Path, features: dict[str, Any] | None) -> tuple[Rows, tuple[str, ...]]:
    """As `parquet_rows` for an Arrow file (stream or file format); `features`, if given, must have the same columns."""
    arrow = _pyarrow(path, "pyarrow")

    def batches() -> Iterator[Any]:
        with arrow.memory_map(str(path)) as source:
            is_file_format = source.read(6) == b"ARROW1"
            source.seek(0)
            if not is_file_format:
                reader = arrow.ipc.open_stream(source)
                yield reader.schema
                yield from reader
                return
            file = arrow.ipc.open_file(source)
            yield file.schema
            for index in range(file.num_record_batches):
                yield file.get_batch(index)

    return _read(path, batches(), features)


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


def _read(path: Path, parts: Iterator[Any], features: dict[str, Any] | None) -> tuple[Rows, tuple[str, ...]]:
    """Rows and columns; `parts` yields the schema, then record batches. Raises RiyazError."""
    error_of_arrow = _pyarrow(path, "pyarrow").ArrowException
    rows: Rows = []
    size = 0
    try:
        schema = next(parts)
        columns = _columns(path, schema, features)
        labels = _labels(schema, features)
        for batch in parts:
            size += batch.nbytes
            if size > MAX_BYTES:
                raise RiyazError(f"holds more than {MAX_BYTES:,} bytes", str(path), "split it, or take fewer rows")
            for fields in batch.to_pylist():
                row = {name: _plain(value) for name, value in fields.items()}
                place = len(rows) + 1
                rows.append((place, row | {name: _label(path, place, name, row[name], labels) for name in labels}))
    except (error_of_arrow, OSError, ValueError, OverflowError) as error:
        detail = " ".join(str(error).split())[:120]
        raise RiyazError(f"cannot be read ({detail})", str(path), "write or download it again") from None
    if not rows:
        raise RiyazError("the file has columns and no rows", str(path), "write one example per row")
    return rows, columns


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
        raise RiyazError(f"reading {kind} needs pyarrow", str(path), install("parquet")) from None
