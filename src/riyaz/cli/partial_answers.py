"""Answers kept in OUT.partial, line by line, while a run goes on: the same command continues after them.

Memory holds 16 bytes for each row: the key of its conversation, and where in the file its answer begins.
"""

import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from riyaz.cli.locked_file import LockedFile
from riyaz.data import Example
from riyaz.errors import RiyazError
from riyaz.files import encoded
from riyaz.json_files import json_line, parse_json
from riyaz.predictor.prediction import Prediction

BEGINNING = b'{"riyaz": "run"'
CHUNK = 64  # rows answered together, as many as the engine runs at once; a stop loses at most these
KEY = re.compile("[0-9a-f]{16}")


class PartialAnswers(LockedFile):
    """The answers of a run that is not finished. Its file begins with who answers, then has a line for each answer with
    the key of its conversation, by which an answer is found wherever its row stands now. `count` rows have theirs, and
    `cited` says whether one has citations. As a context manager it is locked, and removed if it holds no answer at the
    end. With `computed`, what computes here, the file says of every answer what has computed it: `machines`."""

    def __init__(self, out: Path, answerer: str, keys: Sequence[int], computed: str = "") -> None:
        """`keys` are those of all rows in their order, by `row_key`."""
        super().__init__(out.with_name(out.name + ".partial"))
        self.answerer, self.keys, self.computed = answerer, np.array(keys, np.uint64), computed
        self.places = np.full(len(self.keys), -1, np.int64)  # where the answer to each row begins; -1: it has none
        self.cited = False
        self.machines: list[str] = []
        self._next, self._end = 0, 0  # the first row that may have no answer, and the bytes of the file

    def has(self, row: int) -> bool:
        """Whether this row has its answer."""
        return bool(self.places[row] >= 0)

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Append the answers to the first rows without one. Raises RiyazError when the disk is full; what was kept
        stays."""
        rows, row = list[int](), self._next
        while len(rows) < len(predictions):
            if self.places[row] < 0:
                rows.append(row)
            row += 1
        lines = [
            json_line({
                "row": f"{self.keys[row]:016x}", "prediction": each.text, "citations": each.citations,
                "log_probability": each.log_probability, "confidence": each.confidence, "runner_up": each.runner_up,
            })
            for row, each in zip(rows, predictions)
        ]  # fmt: skip
        new = bool(self.computed) and self.machines[-1:] != [self.computed]
        before = json_line({"computed": self.computed}) if new else b""
        begins = self._end + len(before)
        self._write(b"".join((before, *lines)))
        self.machines += [self.computed] * new
        self.places[rows] = begins + np.cumsum([0, *map(len, lines[:-1])])
        self._next, self.count = row, self.count + len(rows)
        self.cited = self.cited or any(each.citations for each in predictions)

    def predictions(self) -> Iterator[Prediction]:
        """The answer to every row, in the order of the rows, once all have one."""
        with open(self.path, "rb") as file:
            at = 0
            for place in self.places:
                if place != at:
                    file.seek(at := int(place))
                line = file.readline()
                at += len(line)
                stored = _stored(line)
                assert stored is not None  # it was looked at when it was read, or written
                yield stored[1]

    def _read(self) -> None:
        """Read the answers, in whole chunks while rows are left; whatever follows is cut off. Raises RiyazError where
        the file is another program's, or holds another model's answers, or none to these rows."""
        with os.fdopen(os.dup(self.file), "rb") as file:
            first = file.readline()
            if not first.startswith(BEGINNING) and not BEGINNING.startswith(first):
                what = "was not written by riyaz run"
                raise RiyazError(what, str(self.path), "move it away, or choose another --out")
            if not first.endswith(b"\n"):
                self._cut(0)
                self._write(json_line({"riyaz": "run", "answerer": self.answerer}))
                return
            if _entry(first).get("answerer") != self.answerer:
                what = "holds answers of another model, or another version of riyaz"
                raise RiyazError(what, str(self.path), "delete it, or choose another --out")
            kept = _Stored.read(file, len(first))
        matched = _matched(self.keys, np.array(kept.keys, np.uint64))
        if (matched < 0).any() and len(kept.keys) % CHUNK:
            kept.cut(len(kept.keys) // CHUNK * CHUNK)
            matched = _matched(self.keys, np.array(kept.keys, np.uint64))
        has, matched = matched >= 0, matched[matched >= 0]
        if kept.keys and not len(matched):
            raise RiyazError("holds answers to other rows", str(self.path), "delete it, or choose another --out")
        self.places[has] = np.array(kept.places, np.int64)[matched]
        self.count, self.cited = len(matched), bool(np.array(kept.cited, bool)[matched].any())
        self.machines, self._end = [name for _, _, name in kept.machines], kept.end
        self._cut(self._end)

    def _write(self, content: bytes) -> None:
        self._append(content)
        self._end += len(content)


@dataclass
class _Stored:
    """The answers in a file: of each its key, where its line begins and whether it has citations; `end` is where the
    last one ends. `machines` are what computed them, each with the number of answers before it and where its line
    begins."""

    end: int
    keys: "array[int]" = field(default_factory=lambda: array("Q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))
    cited: "array[int]" = field(default_factory=lambda: array("b"))
    machines: list[tuple[int, int, str]] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[bytes], begins: int) -> Self:
        """The answers in the lines of a file that begin so many bytes behind its begin, up to one that is none."""
        kept = cls(begins)
        for line in lines:
            stored = _stored(line)
            if stored is not None:
                kept.keys.append(stored[0])
                kept.places.append(kept.end)
                kept.cited.append(bool(stored[1].citations))
            elif line.endswith(b"\n") and isinstance(name := _entry(line).get("computed"), str):
                kept.machines.append((len(kept.keys), kept.end, name))
            else:
                break
            kept.end += len(line)
        kept.cut(len(kept.keys))
        return kept

    def cut(self, count: int) -> None:
        """Keep the first `count` answers, and what computed them."""
        behind = [begins for before, begins, _ in self.machines if before >= count]
        self.end = min([self.end, *self.places[count : count + 1], *behind])
        for column in self.keys, self.places, self.cited:
            del column[count:]
        self.machines = [each for each in self.machines if each[0] < count]


def row_key(example: Example) -> int:
    """A number below 2**64 that stands for the conversation, as it is answered."""
    try:  # what `json_line` writes of plain values, which it would look at one by one
        line = encoded(json.dumps(example.messages, ensure_ascii=False, allow_nan=False) + "\n")
    except (TypeError, ValueError):
        line = json_line(example.messages)
    return int.from_bytes(hashlib.sha256(line).digest()[:8], "big")


def _matched(keys: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """The place (n,) among the `stored` keys (m,) of the answer to each row, -1 for none; of equal rows the first have
    the answers."""
    if not len(stored):
        return np.full(len(keys), -1, np.int64)
    order = np.argsort(stored, kind="stable")
    wanted = np.searchsorted(stored[order], keys)
    wanted += _counted(keys)
    matched = order[np.minimum(wanted, len(stored) - 1)]
    matched[(wanted >= len(stored)) | (stored[matched] != keys)] = -1
    return matched


def _counted(keys: np.ndarray) -> np.ndarray:
    """How many equal keys stand before each (n,)."""
    order = np.argsort(keys, kind="stable")
    begins = np.ones(len(keys), bool)  # whether a run of equal keys begins, in sorted order
    begins[1:] = keys[order[1:]] != keys[order[:-1]]
    before = np.arange(len(keys), dtype=np.int32)
    before -= np.maximum.accumulate(np.where(begins, before, np.int32(0)))
    counts = np.empty_like(before)
    counts[order] = before
    return counts


def _stored(line: bytes) -> tuple[int, Prediction] | None:
    """The key and the answer in a whole line; None for another, and for what a stop left of one."""
    entry = _entry(line) if line.endswith(b"\n") else {}
    key, text, cited = entry.get("row"), entry.get("prediction"), entry.get("citations")
    if not isinstance(key, str) or not KEY.fullmatch(key) or not isinstance(text, str) or not isinstance(cited, list):
        return None
    log_p, sure, second = (entry.get(name) for name in ("log_probability", "confidence", "runner_up"))
    log_p, sure = (value if isinstance(value, float) else None for value in (log_p, sure))
    second = second if isinstance(second, str) else None
    return int(key, 16), Prediction(text, log_p, tuple(cited), sure, second)


def _entry(line: bytes) -> dict[str, Any]:
    try:
        value = parse_json(line, "")
    except RiyazError:
        return {}
    return value if isinstance(value, dict) else {}
