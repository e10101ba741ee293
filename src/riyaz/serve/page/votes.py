"""/page/votes: which of two answers a person prefers, kept as rows of preferences.jsonl."""

import errno
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.config import MIN_ROWS
from riyaz.data import Reading
from riyaz.data.bounds import ROW
from riyaz.data.conversations import RowProblem
from riyaz.data.records import examples_of
from riyaz.errors import RiyazError
from riyaz.files import disk_error
from riyaz.json_files import json_line, parse_json
from riyaz.serve.fields import OBJECT, Field, listed, text
from riyaz.serve.http import read_body
from riyaz.serve.schema import Schema
from riyaz.serve.state import page_of, state_of
from riyaz.system import PLAIN_FILE, try_lock

FILE = "preferences.jsonl"
READING = Reading("prompt", "chosen", called=True, rejected="rejected")  # of the file, as training reads it
SIDE: Schema = {"type": "object", "required": ["model", "text"], "properties": {"model": text(96, 1), "text": text()}}
VOTE = {
    "prompt": Field({"anyOf": [text(None, 1), listed(OBJECT | {"type": "object"}, 1000, 1)]}, required=True),
    "a": Field(SIDE, required=True), "b": Field(SIDE, required=True),
    "choice": Field({"type": "string", "enum": ["a", "b", "tie", "bad"]}, required=True),
}  # fmt: skip


async def vote(request: Request) -> Response:
    """POST /page/votes: keep one choice."""
    body, headers = await read_body(request, VOTE)
    path = page_of(request).folder / FILE
    await state_of(request).prepare(lambda: append(path, row_of(body)))
    return JSONResponse({"path": FILE}, 201, headers)


async def board(request: Request) -> Response:
    """GET /page/votes: wins of every model, with 95 % intervals, and what can be learned from the votes."""
    page = page_of(request)
    rows, taken = await state_of(request).prepare(lambda: both_of(page.folder / FILE))
    learning = {"votes": len(taken.rows), "prompts": taken.prompts, "least": MIN_ROWS, "methods": [*page.from_votes]}
    return JSONResponse({"path": FILE, "votes": len(rows), "models": standings(rows), "training": learning})


def row_of(body: dict[str, Any]) -> dict[str, Any]:
    """A vote as a row: `chosen` and `rejected` where one answer is preferred, as trainers on preferences name them."""
    first, second = ({key: body[side][key] for key in ("model", "text")} for side in "ab")
    row = {"prompt": body["prompt"], "a": first, "b": second, "choice": body["choice"], "time": int(time.time())}
    if body["choice"] in ("a", "b"):
        better, worse = (first, second) if body["choice"] == "a" else (second, first)
        row |= {"chosen": better["text"], "rejected": worse["text"]}
    return row


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a row, whole or not at all. Raises RiyazError where it cannot be written."""
    line = json_line(row)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | PLAIN_FILE, 0o666)
    except OSError as error:
        raise disk_error(error, path) from None
    with os.fdopen(descriptor, "rb+", buffering=0) as file:
        try_lock(file, wait=True)  # another server may vote too
        before = file.seek(0, os.SEEK_END)
        try:
            if before and _last_byte(file, before) != b"\n":  # a line that a killed process began
                line = b"\n" + line
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, before)
            raise disk_error(error, path) from None


def _last_byte(file: BinaryIO, size: int) -> bytes:
    file.seek(size - 1)
    return file.read(1)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The votes in a file; lines that are none are left out, such as one that was cut short."""
    try:
        lines = path.read_bytes().splitlines() if path.is_file() and not path.is_symlink() else []
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path)) from None
    return [row for line in lines if (row := _vote(line)) is not None]


@dataclass(frozen=True)
class Taken:
    """The votes that training takes, as its rows, and how many different prompts they have."""

    rows: list[dict[str, Any]]
    prompts: int


def taken_of(rows: list[dict[str, Any]]) -> Taken:
    """Those of the votes that prefer one of two different answers; training refuses the others."""
    taken, prompts = [], set()
    for row in rows:
        made = {name: row.get(name) for name in ("prompt", "chosen", "rejected")}
        try:
            examples = examples_of(made, READING, FILE)
        except RowProblem:
            continue
        if len(json_line(made)) <= ROW:
            taken.append(made)
            prompts |= {example.key for example in examples}
    return Taken(taken, len(prompts))


def both_of(path: Path) -> tuple[list[dict[str, Any]], Taken]:
    """All votes of a file, and those that training takes."""
    rows = rows_of(path)
    return rows, taken_of(rows)


def _vote(line: bytes) -> dict[str, Any] | None:
    try:
        row = parse_json(line, FILE)
        names = [row["a"]["model"], row["b"]["model"], row["choice"]]
    except (RiyazError, KeyError, TypeError):
        return None
    return row if all(isinstance(name, str) for name in names) else None


def standings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every model's wins among its decided votes, with Wilson's interval; the best share first. A vote between two
    answers of one model would be a win and a loss of the same model, and says nothing of models."""
    from riyaz.metrics.intervals import wilson

    wins: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    for row in rows:
        names = {side: row[side]["model"] for side in "ab"}
        if names["a"] == names["b"]:
            continue
        if row["choice"] in names:
            other = "b" if row["choice"] == "a" else "a"
            wins[names[row["choice"]]] += 1
            losses[names[other]] += 1
        else:
            rest.update(names.values())
    made = []
    for name in {*wins, *losses, *rest}:
        decided = wins[name] + losses[name]
        low, high = wilson(wins[name], decided)
        share = wins[name] / decided if decided else None
        made.append({
            "model": name, "wins": wins[name], "losses": losses[name], "undecided": rest[name], "share": share,
            "low": low, "high": high,
        })  # fmt: skip
    return sorted(made, key=lambda each: (-(each["share"] or 0), each["model"]))
