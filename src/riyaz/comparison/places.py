"""Where the arms of a comparison are fitted: on this machine (`Here`), or wherever a command starts a process, such as
`ssh HOST` or `srun -N1 -n1` (`Command`). All places see the comparison's folder.
"""

import contextlib
import hashlib
import os
import queue
import re
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from riyaz import native, ranks
from riyaz.comparison import processes
from riyaz.comparison.at_place import SETTINGS, AboutPlace, Embedder, Order, own_version
from riyaz.comparison.folder import PLACES, ComparisonFolder
from riyaz.errors import RiyazError
from riyaz.events import Ended, Failed, Listen, Note, from_json
from riyaz.files import remove
from riyaz.hardware import versions
from riyaz.json_files import from_json as read_typed
from riyaz.json_files import read_json, to_json

OPTION, HERE = "--places", "here"
MARK = "mark"  # a file of each place, which it must see
SILENCE = 120.0  # seconds without a line, after which a place is lost
ENDING = 5.0  # seconds that a place's command has to end by itself
HINT = "correct it, or leave the place out of --places"
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")  # a path that every shell takes as it is


class PlaceLost(Exception):
    """A place ended, or fell silent, before it had said how its work ended; `str()` is why, in one line."""


@dataclass(frozen=True)
class Piece:
    """One process of a worker: its words after the folder, where it logs, the threads that it computes with, and the
    seconds after which it is stopped."""

    words: tuple[str, ...]
    log: Path
    threads: int | None = None
    limit: float | None = None


class Place(Protocol):
    """Where pieces of work run, one at a time."""

    name: str
    key: str  # the name as that of a folder

    def run(self, piece: Piece, listen: Listen) -> str:
        """Run a piece of work; returns "" on success, else the reason in one line. Raises PlaceLost."""

    def stop(self) -> None:
        """End what runs there, without waiting for it."""


class Here:
    """This machine: the worker is a child of this process."""

    name, key = HERE, HERE

    def __init__(self, folder: ComparisonFolder) -> None:
        self._folder = folder
        self._thread = 0  # that runs a piece

    def run(self, piece: Piece, listen: Listen) -> str:
        """Run a piece of work; returns "" on success, else the reason in one line."""
        work, *rest = piece.words
        arguments, self._thread = [work, str(self._folder.path), *rest], threading.get_ident()
        return processes.run_worker(arguments, piece.log, listen, threads=piece.threads, limit=piece.limit)

    def stop(self) -> None:
        """End the worker that runs, without waiting for it."""
        processes.end_worker(self._thread)


class Command:
    """A place that the words of a command lead to; the worker ends when this process or the command does."""

    def __init__(
        self, name: str, words: Sequence[str], folder: ComparisonFolder, models: Mapping[str, str],
        embedder: Embedder | None = None,
    ) -> None:  # fmt: skip
        self.name, self.key = name, hashlib.sha256(name.encode()).hexdigest()[:12]
        self._words, self._models, self._embedder = list(words), dict(models), embedder
        self._path = folder.path.absolute()
        self._nonce = secrets.token_hex(8)
        self._running: list[subprocess.Popen[str]] = []  # the last one, and before it those that were given up
        self._stopping = False

    @property
    def folder(self) -> Path:
        """What is kept of the place: about.json and measured.json."""
        return self._path / PLACES / self.key

    def check(self) -> AboutPlace:
        """What the place is. Raises RiyazError where it cannot be reached, has another version of riyaz or another
        model, or does not see the folder."""
        about = self.folder / "about.json"
        remove(about)
        self._write_mark()
        try:
            reason = self._asked(self._order((), self.folder / "log.txt"), self.folder / "log.txt", lambda event: None)
        except PlaceLost as lost:
            raise RiyazError(f"cannot be used: {lost}", self.name, HINT) from None
        if reason:
            raise RiyazError(reason, self.name)
        if not appears(about):
            what = f"the folder is not the same there: what it writes to {about} is not seen here"
            raise RiyazError(what, self.name, "choose an --out that all places see")
        return read_typed(AboutPlace, read_json(about), str(about), unknown=True)

    def run(self, piece: Piece, listen: Listen) -> str:
        """Run a piece of work; returns "" on success, else the reason in one line. Raises PlaceLost."""
        work, *rest = piece.words
        log = piece.log.absolute()
        order = self._order((work, str(self._path), *rest), log, piece.threads, piece.limit)
        return self._asked(order, self.folder / "log.txt", listen)

    def stop(self) -> None:
        """End what runs there, without waiting for it: its stdin is closed, and its command told to end."""
        self._stopping = True
        for child in self._running:
            _hang_up(child)
            with contextlib.suppress(OSError):
                child.terminate()

    def _write_mark(self) -> None:
        """Write what the place must see: anew for every place, so that no old file can stand for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARK).write_text(self._nonce + "\n", encoding="utf-8")

    def _order(
        self, arguments: Sequence[str], log: Path, threads: int | None = None, limit: float | None = None
    ) -> Order:
        settings = {name: os.environ[name] for name in SETTINGS if name in os.environ}
        return Order(
            version=own_version(), working=os.getcwd(), folder=str(self._path), mark=f"{PLACES}/{self.key}/{MARK}",
            nonce=self._nonce, about=str(self.folder / "about.json"), models=self._models,
            arguments=tuple(arguments), log=str(log), threads=threads, limit=limit, embedder=self._embedder,
            settings=settings,
        )  # fmt: skip

    def _asked(self, order: Order, log: Path, listen: Listen) -> str:
        """Send an order and hear the answer; returns "" or the reason. Raises PlaceLost."""
        log.parent.mkdir(parents=True, exist_ok=True)
        before = log.stat().st_size if log.exists() else 0
        command = [*self._words, sys.executable, "-m", "riyaz.comparison.at_place"]
        with log.open("a") as errors:
            try:
                child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
                    errors="replace", env=ranks.environment(),  # whatever a machine greets with
                )  # fmt: skip
            except OSError as error:
                raise PlaceLost(f"{command[0]}: {error.strerror or error}") from None
        self._running.append(child)
        if self._stopping:
            self.stop()
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
        reader.start()
        assert child.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, as its output will say
            child.stdin.write(to_json(order, ascii=True) + "\n")
            child.stdin.flush()
        limit = None if order.limit is None else time.monotonic() + order.limit + SILENCE
        try:
            reason = _heard(lines, limit, listen)
        except queue.Empty:
            _hang_up(child)
            threading.Thread(target=self._late, args=(child, lines, order, listen), daemon=True).start()
            raise PlaceLost(f"it has said nothing for {SILENCE:.0f} s") from None
        except BaseException:
            self.stop()
            raise
        _hang_up(child)
        code = _ended(child)
        self._running.remove(child)
        if reason is None:
            raise PlaceLost(_last_line(log, before) or f"its command ended with exit code {code}")
        return reason

    def _late(
        self, child: "subprocess.Popen[str]", lines: "queue.Queue[str | None]", order: Order, listen: Listen
    ) -> None:
        """Hear what a place that was given up still says: an answer is ignored, and that is said."""
        while (line := lines.get()) is not None:
            if order.arguments and isinstance(from_json(line), Ended) and not self._stopping:
                what = " ".join(part for part in (order.arguments[0], *order.arguments[2:4]) if part)
                listen(Note(f"{self.name} has answered too late ({what}): its answer is ignored"))
        _ended(child)


def open_places(
    names: Sequence[str], folder: ComparisonFolder, models: Mapping[str, str], embedder: Embedder | None = None
) -> list[Place]:
    """The places of --places, in its order; `models` are path and SHA-256 of the bases, `embedder` is the one that a
    method uses. Raises RiyazError."""
    if not PLAIN.fullmatch(sys.executable):
        what = f"the path of Python, {sys.executable}, holds characters that a shell reads otherwise"
        raise RiyazError(what, OPTION, "install riyaz below a plain path")
    places: list[Place] = []
    for name in names:
        if name == HERE:
            if any(place.name == HERE for place in places):
                raise RiyazError("names this machine twice", OPTION, "leave one `here` out")
            places.append(Here(folder))
            continue
        try:
            words = shlex.split(name)
        except ValueError as error:
            hint = "close its quotes; a comma ends a place, in quotes too, so put a command with one into a script"
            raise RiyazError(f"{name} is not a command ({error})", OPTION, hint) from None
        same = sum(place.name == name or place.name.startswith(f"{name} (") for place in places)
        places.append(Command(f"{name} ({same + 1})" if same else name, words, folder, models, embedder))
    return places


@contextlib.contextmanager
def stopping(places: Sequence[Place]) -> Iterator[None]:
    """Within the block the places may work; whatever still runs there at its end is ended."""
    try:
        yield
    finally:
        for place in places:
            place.stop()


def check_places(places: Sequence[Place], listen: Listen) -> None:
    """Check all places at once, and say where one computes otherwise than this machine. Raises RiyazError for the first
    that cannot be used."""
    commands = [place for place in places if isinstance(place, Command)]
    answers: dict[str, AboutPlace | BaseException] = {}

    def ask(place: Command) -> None:
        try:
            answers[place.name] = place.check()
        except BaseException as error:
            answers[place.name] = error

    threads = [threading.Thread(target=ask, args=(place,), daemon=True) for place in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    here = native.trainer(), versions(("torch",)).get("torch")
    for place in commands:
        about = answers[place.name]
        if isinstance(about, BaseException):
            raise about
        there = about.trainer, about.versions.get("torch")
        if there != here:
            listen(Note(f"{place.name} trains with {_said(*there)}, this machine with {_said(*here)}: weights that "
                        "are trained there differ in their last bits"))  # fmt: skip


def appears(path: Path, seconds: float = 5.0) -> bool:
    """Whether a file is seen here, after so many seconds at most: a shared folder may show it later."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # which asks the server of the folder anew
        time.sleep(0.1)
    return True


def _said(trainer: str, torch: str | None) -> str:
    return f"{trainer} and torch {torch}" if torch else f"{trainer} without torch"


def _read(child: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert child.stdout is not None
    with contextlib.suppress(OSError, ValueError):
        for line in child.stdout:
            lines.put(line)
    lines.put(None)


def _heard(lines: "queue.Queue[str | None]", until: float | None, listen: Listen) -> str | None:
    """The reason in the last event, "" for success; None where the lines end without one. Raises queue.Empty after
    SILENCE, or at `until`, of time.monotonic()."""
    reason = ""
    while True:
        left = SILENCE if until is None else min(SILENCE, until - time.monotonic())
        line = lines.get(timeout=max(0.01, left))
        event = None if line is None else from_json(line)
        if line is None:
            return None
        if isinstance(event, Ended):
            return event.reason or ("" if event.status == "done" else reason or event.status)
        if isinstance(event, Failed):
            reason = event.reason
        elif event is not None:
            listen(event)


def _hang_up(child: "subprocess.Popen[str]") -> None:
    """Close the stdin of a place's command, which ends its work."""
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()


def _ended(child: "subprocess.Popen[str]") -> int:
    """The exit code of a command that is about to end; it is killed where it does not."""
    try:
        return child.wait(ENDING)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _last_line(log: Path, before: int) -> str:
    """The last line that a place's command has written to its log, from this place in it; "" if none."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(before)
        lines = file.read()[-4000:].decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:200] if said else ""
    return ""
