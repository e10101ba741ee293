"""Shards: a file's rows in runs of whole chunks, each answered by a process or machine of its own into OUT.I-of-N.

Such a file is JSON Lines: a `ShardHead`, a line for each row, and an end with their number and the SHA-256 of all lines
before it. `riyaz join` puts them together.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from riyaz.errors import RiyazError, brief, joined, listed
from riyaz.files import atomic_file, new_sha256, refuse_device
from riyaz.json_files import from_json, json_line, parse_json, to_document

FLAG = "--shard"
WRITTEN_AS = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
MARK = {"riyaz": "shard"}  # what a head begins with
LONGEST_LINE = 2**26  # bytes; a row may have a million characters, and its answer about as many
AGAIN = "make it again with the same command"
ShardOption = Annotated[
    str | None,
    Parameter(
        name=FLAG,
        metavar="I/N",
        help="answer only the I-th of N parts of the rows, such as 2/4, into OUT.2-of-4; riyaz join puts them together",
    ),
]


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a file's rows, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"shard {self.number} of {self.count}"

    def rows(self, count: int, chunk: int) -> range:
        """Its rows of so many: whole chunks of rows that are answered together, so that each is answered as without
        shards. There may be none."""
        chunks = -(-count // chunk)
        first, end = (min(count, chunks * number // self.count * chunk) for number in (self.number - 1, self.number))
        return range(first, end)

    def path(self, out: Path) -> Path:
        """The file that it is written to."""
        return out.with_name(f"{out.name}.{self.number}-of-{self.count}")


@dataclass(frozen=True)
class ShardHead:
    """What a shard holds: the answers of `verb` to the rows from `first` to that before `end`, counted from 0, of
    `rows` in a file. `options` are alike in all shards of one whole: what else decides the answers, and how they are
    written. `facts` are the shard's own."""

    verb: str
    number: int
    count: int
    first: int
    end: int
    rows: int
    file: str
    file_sha256: str
    target: str
    target_sha256: str
    computed: list[str]  # by what, in words; several where it was continued on another machine
    options: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def shard(self) -> Shard:
        """Which shard it is."""
        return Shard(self.number, self.count)


@dataclass(frozen=True)
class ShardFile:
    """A shard that is written, as `riyaz join` reads it."""

    path: Path
    head: ShardHead

    def lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place, entry) of every row, in order. Raises RiyazError where the file is cut short or damaged."""
        digest, last, rows = new_sha256(), b"", -1
        with open(self.path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                if number > 2:
                    yield f"{self.path}:{number - 1}", self._entry(last, number - 1)
                digest.update(last)
                last, rows = line, rows + 1
        end = self._entry(last, rows + 1)
        if end.get("end") != rows - 1 or end.get("sha256") != digest.hexdigest() or rows - 1 != self.expected:
            raise RiyazError("is cut short or damaged", str(self.path), AGAIN)

    @property
    def expected(self) -> int:
        """Its number of rows."""
        return self.head.end - self.head.first

    def _entry(self, line: bytes, number: int) -> dict[str, Any]:
        entry = parse_json(line, f"{self.path}:{number}", AGAIN, numbered=False) if line.endswith(b"\n") else None
        if not isinstance(entry, dict):
            raise RiyazError("is cut short or damaged", str(self.path), AGAIN)
        return entry


def read_shard(text: str | None) -> Shard | None:
    """The shard that `--shard` names; None where it is not given. Raises RiyazError for one that there is not."""
    if text is None:
        return None
    number, count = (int(each) for each in match.groups()) if (match := WRITTEN_AS.fullmatch(text)) else (0, 0)
    if not 1 <= number <= count:
        hint = "give I/N with I from 1 to N, such as 2/4 for the second of four"
        raise RiyazError(f"{brief(text)} is no shard", FLAG, hint)
    return Shard(number, count)


def write_shard(path: Path, head: ShardHead, entries: Iterable[Any]) -> None:
    """Write the file of a shard atomically, with a line for each row. Raises RiyazError."""
    digest, rows = new_sha256(), -1
    with atomic_file(path) as file:
        for line in chain([json_line(MARK | to_document(head))], map(json_line, entries)):
            digest.update(line)
            file.write(line)
            rows += 1
        assert rows == head.end - head.first
        file.write(json_line({"end": rows, "sha256": digest.hexdigest()}))


def read_shards(paths: Sequence[Path]) -> list[ShardFile]:
    """The shards of one whole, in the order of their rows. Raises RiyazError naming a file that is none or is of
    another whole, and where rows are missing or there twice."""
    first, *others = (ShardFile(path, _head(path)) for path in dict.fromkeys(paths))
    for other in others:
        _expect_alike(first, other)
    shards = sorted([first, *others], key=lambda each: each.head.number)
    for before, after in pairwise(shards):
        if before.head.number == after.head.number:
            what = f"{before.path} and {after.path} are both {after.head.shard}"
            raise RiyazError(what, hint="give each shard once")
    count = first.head.count
    missing = sorted({*range(1, count + 1)} - {each.head.number for each in shards})
    if missing:
        names = listed(f"{number}-of-{count}" for number in missing)
        raise RiyazError(f"{names} {'are' if len(missing) > 1 else 'is'} missing", hint="give all shards of one whole")
    for before, after in pairwise(shards):
        if before.head.end != after.head.first:
            what = f"ends with row {before.head.end:,}, and {after.path} begins with row {after.head.first + 1:,}"
            raise RiyazError(what, str(before.path), "make the shards again with the same version of riyaz")
    if shards[0].head.first != 0 or shards[-1].head.end != first.head.rows:
        what = f"the shards do not hold all {first.head.rows:,} rows"
        raise RiyazError(what, hint="make the shards again with the same version of riyaz")
    return shards


def row_in(entry: dict[str, Any], where: str) -> dict[str, object]:
    """The row in the line of a shard, taken out of it, as deep as it may be. Raises RiyazError."""
    row = entry.pop("row", None)
    if not isinstance(row, dict):
        raise RiyazError("holds no row", where, AGAIN)
    return row


def expect_kind(out: Path, kind: str) -> None:
    """Raises RiyazError where the whole would get another name than its shards were made for."""
    if out.suffix.lower() != kind:
        raise RiyazError(f"the shards are those of a {kind} file", str(out), f"end the name in {kind}")


def machines_note(shards: Sequence[ShardFile]) -> str:
    """One line that says which shards were computed by what; "" where all were computed alike."""
    by: dict[str, list[int]] = {}
    for each in shards:
        for name in dict.fromkeys(each.head.computed):
            by.setdefault(name, []).append(each.head.number)
    if len(by) < 2:
        return ""
    parts = "; ".join(f"{name}: {_ranges(numbers)}" for name, numbers in by.items())
    return f"the shards were not all computed alike, so last digits may differ from those of one machine: {parts}"


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers in words: `shards 1 to 3 and 7`."""
    runs = list[list[int]]()
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ("shards " if len(numbers) > 1 else "shard ") + joined([" to ".join(map(str, run)) for run in runs])


def _head(path: Path) -> ShardHead:
    """What a shard's file holds. Raises RiyazError for a file that is none."""
    refuse_device(path)
    try:
        with open(path, "rb") as file:
            line = file.readline(LONGEST_LINE)
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    document = None
    if line.startswith(json_line(MARK).removesuffix(b"}\n")) and line.endswith(b"\n"):
        document = parse_json(line, str(path), AGAIN)
    if not isinstance(document, dict):
        what = "is no shard that riyaz wrote"
        raise RiyazError(what, str(path), "give the files OUT.I-of-N that --shard I/N has written")
    head = from_json(ShardHead, {name: value for name, value in document.items() if name not in MARK}, str(path), AGAIN)
    if not (1 <= head.number <= head.count and 0 <= head.first <= head.end <= head.rows):
        raise RiyazError(f"says that it is {head.shard}, with wrong rows", str(path), AGAIN)
    return head


def _expect_alike(first: ShardFile, other: ShardFile) -> None:
    """Raises RiyazError where two shards are not of one whole."""
    one, another = first.head, other.head
    if another.verb != one.verb:
        what = f"was made by riyaz {another.verb}, and {first.path} by riyaz {one.verb}"
    elif another.file_sha256 != one.file_sha256 or another.rows != one.rows:
        what = f"is a shard of another file ({another.file}) than {first.path} ({one.file})"
    elif another.target_sha256 != one.target_sha256:
        what = f"has answers of another model ({another.target}) than {first.path} ({one.target})"
    elif another.count != one.count:
        what = f"is {another.shard}, and {first.path} is {one.shard}"
    else:
        names = [name for name in {**one.options, **another.options}
                 if one.options.get(name) != another.options.get(name)]  # fmt: skip
        if not names:
            return
        what = f"was made with other options than {first.path}: {listed(names)}"
    raise RiyazError(what, str(other.path), "give the shards of one whole only")
