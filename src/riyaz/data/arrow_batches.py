"""Record batches of Parquet and Arrow files, checked as they are read: rows, characters, values and offsets.

What decodes before pyarrow gives it back is bounded by the process that parquet_worker.py starts, not here.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from riyaz.data.bounds import MAX_BYTES, Bounds
from riyaz.errors import RiyazError

BATCH = 512  # rows that are read and checked together
AT_ONCE = 2**26  # bytes that the texts inside of lists of one batch may need
MAX_VALUES = 50_000_000  # of all columns; a value takes 8 bytes at least


def batches(path: Path, kind: str, source: Any) -> Iterator[Any]:
    """The schema, then the record batches of a Parquet file ("parquet") or of an Arrow file ("arrow"), each checked
    against the limits and for offsets beyond its buffers. `source` is the path or the opened file. Raises RiyazError,
    and what pyarrow raises."""
    bounds = Bounds(path, stored=path.stat().st_size)
    parts = _parquet_batches(path, source) if kind == "parquet" else _arrow_batches(source)
    yield next(parts)
    for batch in parts:
        bounds.check_rows(bounds.rows + len(batch))
        batch.validate(full=True)
        sizes = sum(map(sizes_of, batch.columns), np.zeros(len(batch), np.int64))
        for place, size in enumerate(sizes.tolist(), start=bounds.rows + 1):
            bounds.add(place, size)
        yield batch


def _parquet_batches(path: Path, source: Any) -> Iterator[Any]:
    parquet = importlib.import_module("pyarrow.parquet")
    flat, rows = _plan(path, parquet.read_metadata(source))
    file = parquet.ParquetFile(source, read_dictionary=flat)  # a text that is stored once is not copied to every row
    yield parquet.read_schema(source)
    yield from file.iter_batches(batch_size=rows, use_threads=False)


def _arrow_batches(source: Any) -> Iterator[Any]:
    ipc = importlib.import_module("pyarrow").ipc
    is_file_format = source.read(6) == b"ARROW1"
    source.seek(0)
    if not is_file_format:
        reader = ipc.open_stream(source)
        yield reader.schema
        yield from reader
        return
    file = ipc.open_file(source)
    yield file.schema
    for index in range(file.num_record_batches):
        yield file.get_batch(index)


def _plan(path: Path, about: Any) -> tuple[list[str], int]:
    """The columns to read as dictionaries, and the rows to read at once, from what the file says of itself. Raises
    RiyazError if it says that it holds too much."""
    bounds = Bounds(path)
    bounds.check_rows(about.num_rows)
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    size, values = sum(chunk.total_uncompressed_size for chunk in chunks), sum(chunk.num_values for chunk in chunks)
    if size > MAX_BYTES or values > MAX_VALUES:
        what = f"holds {size:,} bytes and {values:,} values, and {MAX_BYTES:,} and {MAX_VALUES:,} are read at most"
        raise RiyazError(what, str(path), "split it, or take fewer rows or columns")
    texts = [chunk for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"]
    flat = sorted({chunk.path_in_schema for chunk in texts if "." not in chunk.path_in_schema})
    # Inside of lists pyarrow reads no dictionaries: a value there may be as long as its column's part of the file.
    longest = max((chunk.total_uncompressed_size for chunk in texts if "." in chunk.path_in_schema), default=0)
    return flat, max(1, min(BATCH, AT_ONCE // max(longest, 1)))


def sizes_of(array: Any) -> Any:
    """Characters of each value of an Arrow array, about: bytes of text, 8 for a number or an element of a list (n,)."""
    arrow, compute = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.compute")
    kind, types = array.type, arrow.types
    if len(array) > MAX_VALUES:  # of a type that takes no space in the file, such as null
        raise arrow.ArrowInvalid(f"more than {MAX_VALUES:,} values")
    if isinstance(array, arrow.ExtensionArray):
        return sizes_of(array.storage)
    if types.is_dictionary(kind):
        inner = np.append(sizes_of(array.dictionary), 0)
        return inner[array.indices.fill_null(len(inner) - 1).to_numpy(zero_copy_only=False)]
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return compute.binary_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    if types.is_struct(kind):
        return sum((sizes_of(array.field(i)) for i in range(kind.num_fields)), np.zeros(len(array), np.int64))
    if types.is_fixed_size_list(kind):
        inner = sizes_of(array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size))
        return inner.reshape(len(array), kind.list_size).sum(axis=1) + 8 * kind.list_size
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        at = array.offsets.to_numpy()
        total = np.concatenate(([0], np.cumsum(sizes_of(array.values.slice(at[0], at[-1] - at[0])))))
        return np.diff(total[at - at[0]]) + 8 * np.diff(at)
    if types.is_nested(kind) or "view" in str(kind) or "run_end" in str(kind):
        raise arrow.ArrowNotImplementedError(f"the type {kind} is not supported")
    return np.full(len(array), 8, np.int64)
