"""GET /page/events: the files of a run as a stream of events, from their beginning or where the page left off."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from riyaz.errors import RiyazError
from riyaz.events import EVENTS
from riyaz.json_files import parse_json, to_json
from riyaz.results import METRICS, SAMPLES
from riyaz.serve.http import EventStream
from riyaz.serve.page.runs import Run, document_of, is_done
from riyaz.serve.page.starting import is_alive
from riyaz.serve.problems import Problem
from riyaz.serve.state import page_of, state_of

FILES = {"events": EVENTS, "metrics": METRICS, "samples": SAMPLES}
LOOK = 0.5  # seconds between two looks for new lines
ASK = 2.0  # seconds between two looks whether the run still runs
PART = 2**20  # bytes that are read at a time


class Tail:
    """A growing file of JSON lines, read on from a place: the file's number and an offset. A run that goes on writes
    some files anew: they have another number then, and are read from their beginning."""

    def __init__(self, path: Path, number: int = 0, offset: int = 0) -> None:
        self.path, self.number, self.offset = path, number, offset

    def new(self) -> Iterator[bytes]:
        """The whole lines that came since; the place moves with each."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self.number or status.st_size < self.offset:
                    self.number, self.offset = status.st_ino, 0
                file.seek(self.offset)
                part = file.read(PART)
        except OSError:  # not written yet
            return
        whole = part[: part.rfind(b"\n") + 1]
        for line in whole.splitlines(keepends=True):
            self.offset += len(line)
            yield line


async def events(request: Request) -> Response:
    """Every line of a run's events, metrics and samples; `Last-Event-ID` goes on after the one of that id."""
    name = request.query_params.get("path", "")
    page = page_of(request).holding(name)
    path = page.folder / name
    if not is_alive(path):  # else it was started just now, and may have no folder yet
        path = page.inside(name)
        if Run.of(path) is None:
            raise Problem(404, "there is no run in this folder", "path")
    after = request.headers.get("last-event-id") or request.query_params.get("after", "")
    return EventStream(_messages(path, places_of(after)), {}, state_of(request))


def places_of(after: str) -> dict[str, tuple[int, int]]:
    """The places that an id names; none for what is no id, so that everything is sent again."""
    places = {}
    for part in after.split(",")[: len(FILES)]:
        name, _, place = part.partition("=")
        number, _, offset = place.partition(".")
        if name in FILES and number.isdecimal() and offset.isdecimal() and len(place) < 50:
            places[name] = (int(number), int(offset))
    return places


async def _messages(path: Path, places: dict[str, tuple[int, int]]) -> AsyncGenerator[str, None]:
    """The stream's messages, until the run has ended and everything is told."""
    tails = {name: Tail(path / file, *places.get(name, ())) for name, file in FILES.items()}
    checked, running = -ASK, True
    while True:
        if time.monotonic() - checked >= ASK:  # before the files are read, so that nothing is missed at the end
            running, checked = _is_running(path), time.monotonic()
        some = False
        for name, tail in tails.items():
            for line in tail.new():
                some = True
                if (message := _message(name, line)) is not None:
                    yield f"event: message\nid: {_id(tails)}\ndata: {message}"
        if not some and not running:
            break
        await asyncio.sleep(0 if some else LOOK)
    yield f"event: message\ndata: {to_json({'event': 'end', 'state': _state(path)})}"


def _id(tails: dict[str, Tail]) -> str:
    return ",".join(f"{name}={tail.number}.{tail.offset}" for name, tail in tails.items())


def _message(name: str, line: bytes) -> str | None:
    """A line as one message, with the file and the arm that it is about, whose row an event may hold; None for one that
    is no object."""
    try:
        document = parse_json(line, name)
    except RiyazError:
        return None
    if not isinstance(document, dict):
        return None
    return to_json({"arm": document.get("method"), **document, "file": name}, ascii=True)


def _is_running(path: Path) -> bool:
    run = Run.of(path)
    return is_alive(path) or (run is not None and run.running)


def _state(path: Path) -> str:
    run = Run.of(path)
    try:
        return "gone" if run is None else run.state(is_done(document_of(run)))
    except RiyazError:
        return "unreadable"
