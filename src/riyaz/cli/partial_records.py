"""Records kept in OUT.partial, a line for each row in the order of rows, while a run goes on.

The same command continues after them. OUT.partial.json says what they are answers to.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from riyaz.cli.locked_file import LockedFile
from riyaz.errors import RiyazError
from riyaz.files import encoded
from riyaz.json_files import parse_json, write_json

DELETE = "delete it, or choose another --out"
Record = dict[str, Any]


@dataclass(frozen=True)
class RecordsOf:
    """Whose records they are: the verb; what is wrong where a member of OUT.partial.json differs; and the member of
    every record that is an object."""

    verb: str
    others: Mapping[str, str]
    member: str


class PartialRecords(LockedFile):
    """The records of a run that is not finished: `count` rows have theirs. `about` has a hash for each member of
    `of.others`; `tell` gets every record, also those of earlier runs. As a context manager it is locked, and removed if
    it holds none at the end. With `computed`, what computes here, `machines` are what has computed the records."""

    def __init__(
        self, out: Path, of: RecordsOf, about: Mapping[str, str], rows: int, chunk: int, tell: Callable[[Record], None],
        computed: str = "",
    ) -> None:  # fmt: skip
        """`rows` is the number of all rows, of which `chunk` are answered together."""
        super().__init__(out.with_name(f"{out.name}.partial"))
        self.beside = out.with_name(f"{out.name}.partial.json")
        self.of, self.about, self.rows, self.chunk, self.tell = of, dict(about), rows, chunk, tell
        self.computed, self.machines = computed, list[str]()

    def add(self, records: Sequence[Record]) -> None:
        """Append the answers to the next rows. Raises RiyazError when the disk is full; what was kept stays."""
        if self.computed and self.computed not in self.machines:
            self.machines.append(self.computed)
            write_json(self.beside, {"riyaz": self.of.verb, **self.about, "computed": self.machines})
        self._append(b"".join(map(record_line, records)))
        self.count += len(records)
        for record in records:
            self.tell(record)

    def records(self) -> Iterator[Record]:
        """Every record, in the order of the rows."""
        with open(self.path, "rb") as file:
            for line in file:
                yield self._record(line)

    def become(self, out: Path) -> None:
        """The file takes the name `out`, once every row has its answers."""
        os.fsync(self.file)
        os.replace(self.path, out)
        self.remove()

    def remove(self) -> None:
        """Remove the files, after the answers are written elsewhere."""
        super().remove()
        self.beside.unlink(missing_ok=True)

    def _expect_ours(self) -> None:
        written = parse_json(self.beside.read_bytes(), str(self.beside), DELETE) if self.beside.is_file() else None
        if not isinstance(written, dict) or written.get("riyaz") != self.of.verb:
            what = f"was not written by riyaz {self.of.verb}"
            raise RiyazError(what, str(self.path), "move it away, or choose another --out")
        for member, what in self.of.others.items():
            if written.get(member) != self.about.get(member):
                raise RiyazError(f"holds {what}", str(self.path), DELETE)
        computed = written.get("computed")
        self.machines = [name for name in computed if isinstance(name, str)] if isinstance(computed, list) else []

    def _read(self) -> None:
        """Count the answers, in whole chunks unless they end with the last row; whatever follows is cut off. Raises
        RiyazError where the file is another program's, or holds answers to other rows or questions, or another
        model's."""
        if not os.fstat(self.file).st_size:
            write_json(self.beside, {"riyaz": self.of.verb, **self.about})
            return
        self._expect_ours()
        end = 0
        with open(self.path, "rb") as file:
            while part := list(islice(file, self.chunk)):
                records = [self._record(line) for line in part]
                whole = len(part) == self.chunk or self.count + len(part) == self.rows
                if not whole or not all(records) or self.count + len(part) > self.rows:
                    break
                end += sum(map(len, part))
                self.count += len(part)
                for record in records:
                    self.tell(record)
        self._cut(end)

    def _record(self, line: bytes) -> Record:
        """The record of a whole line; {} for what a stop left of one."""
        try:
            value = parse_json(line, "") if line.endswith(b"\n") else None
        except RiyazError:
            return {}
        return value if isinstance(value, dict) and isinstance(value.get(self.of.member), dict) else {}


def record_line(record: Record) -> bytes:
    """The line of JSON Lines for a record of plain values without NaN."""
    # `json_line` would look at each of them, for a quarter of a classifier's time.
    return encoded(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
