"""Rows and examples of a file that are read anew at every iteration: sequences whose texts are not in memory.

What is made of them is that of rows in memory. JSON Lines, CSV and TSV in UTF-8, also gzipped, are read so.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

from riyaz.data import Example
from riyaz.data.many_files import matching_files, read_tables
from riyaz.data.parquet import is_saved
from riyaz.data.streamed_file import STREAMED, Row, streamed_rows
from riyaz.data.tables import Table, expect_table, kind_of
from riyaz.errors import RiyazError
from riyaz.files import file_sha256

Item = TypeVar("Item")
HEAD_ROWS, HEAD_CHARACTERS = 50_000, 2**23  # of a file at most: what its columns hold is judged by these


class StreamedRows(Sequence[tuple[int, Row]]):
    """The first `length` rows of one file as (line the row starts on, its fields)."""

    def __init__(self, path: Path, length: int) -> None:
        self.path, self._length = path, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        return islice(streamed_rows(self.path), self._length)

    @overload
    def __getitem__(self, place: int) -> tuple[int, Row]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[int, Row]]: ...
    def __getitem__(self, place: int | slice) -> tuple[int, Row] | list[tuple[int, Row]]:
        return _taken(self, place)

    def head(self) -> "StreamedRows":
        """The first rows, at most HEAD_ROWS and until they have HEAD_CHARACTERS."""
        size = length = 0
        for _, row in islice(self, HEAD_ROWS):
            size, length = size + sum(len(str(value)) for value in row.values()), length + 1
            if size >= HEAD_CHARACTERS:
                break
        return StreamedRows(self.path, length)


class ExampleStream(Sequence[Example]):
    """`length` examples that `read` makes anew, of `files` with their hashes."""

    def __init__(self, read: Callable[[], Iterator[Example]], length: int, files: Sequence[tuple[Path, str]]) -> None:
        self.read, self._length, self.files = read, length, files

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Example]:
        """Raises RiyazError where a file was changed so that there are fewer."""
        examples = 0
        for example in islice(self.read(), self._length):
            examples += 1
            yield example
        if examples < self._length:
            raise _changed(self.files[0][0])

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        if isinstance(place, slice) and place.start is None and place.step is None:
            return ExampleStream(self.read, len(range(self._length)[place]), self.files)
        return _taken(self, place)

    def mapped(self, change: Callable[[Example], Example]) -> "ExampleStream":
        """The examples, each changed."""
        return ExampleStream(lambda: map(change, self.read()), self._length, self.files)

    def expect_unchanged(self) -> None:
        """Raises RiyazError where a file has other bytes than when it was opened."""
        for path, digest in self.files:
            if file_sha256(path) != digest:
                raise _changed(path)


def mapped(examples: Sequence[Example], change: Callable[[Example], Example]) -> Sequence[Example]:
    """The examples, each changed."""
    return examples.mapped(change) if isinstance(examples, ExampleStream) else [*map(change, examples)]


def streamed_tables(path: Path, encoding: str | None) -> list[Table]:
    """The tables of a path as `read_tables` gives them, their rows in a stream where they can be. Raises RiyazError."""
    if encoding is not None or (path.is_dir() and is_saved(path)):
        return read_tables(path, encoding)
    tables = []
    for file in matching_files(path):
        expect_table(file)
        if kind_of(file) in STREAMED:
            length, columns = 0, dict[str, None]()
            for _, row in streamed_rows(file):
                length += 1
                columns.update(dict.fromkeys(row))
            tables.append(Table(file, StreamedRows(file, length), tuple(columns), file_sha256(file)))
        else:
            tables += read_tables(file, encoding)
    return tables


def _taken(items: Sequence[Item], place: int | slice) -> Item | list[Item]:
    places = range(len(items))[place]
    if isinstance(places, int):
        return next(islice(items, places, None))
    assert places.step == 1, "a stream is read forwards"
    return [*islice(items, places.start, places.stop)]


def _changed(path: Path) -> RiyazError:
    return RiyazError("was changed while its rows were read", str(path), "run the same command again")
