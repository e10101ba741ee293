"""The process that a place runs: `COMMAND python -m riyaz.comparison.at_place`, such as `ssh HOST python -m …`.

It reads one order, a line of JSON, from stdin: which work, in which folder. It checks that this place is fit for it,
starts the worker as the command at home would, and hands its events on as JSON lines. The last one is `Ended`; where it
does not come, the place is lost. It ends, and the worker with it, when stdin does, since the process at home is not its
parent.
"""

import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from riyaz import files, hardware, native
from riyaz.comparison import processes
from riyaz.errors import RiyazError, brief
from riyaz.events import Ended, Event, to_json
from riyaz.json_files import from_json, parse_json, write_json

BEAT = 5.0  # seconds between two empty lines, which say that the place lives
PATIENCE = 5.0  # seconds until a new file must be seen in a folder that machines share
# Of home, which change what is computed
SETTINGS = ("RIYAZ_ENGINE", "RIYAZ_FROZEN", "RIYAZ_ISA", "RIYAZ_NATIVE")
_writing = threading.Lock()
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Embedder:
    """The default embedder at home: its SHA-256, "" where it has not been pulled, and a method that uses it."""

    name: str
    sha256: str
    method: str


@dataclass(frozen=True)
class Order:
    """What a place is asked to do: without `arguments` only to show that it can."""

    version: str  # of riyaz at home
    working: str  # the folder that home's relative paths begin in
    folder: str  # of the comparison
    mark: str  # a file in it
    nonce: str  # what stands there
    about: str  # the file into which the place writes what it is
    models: dict[str, str]  # path and SHA-256 of every base
    arguments: tuple[str, ...] = ()  # of the worker
    log: str = ""
    threads: int | None = None
    limit: float | None = None  # seconds
    embedder: Embedder | None = None  # where a method uses it
    settings: dict[str, str] | None = None  # environment variables of SETTINGS


@dataclass(frozen=True)
class AboutPlace:
    """about.json of a place: what computes there."""

    cpu: str
    threads: int
    trainer: str  # `native.trainer()`
    versions: dict[str, str]  # of riyaz and torch


def main() -> int:
    """Do what the order on stdin says; returns 0 where it was done, 1 where it was not."""
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_input, daemon=True).start()
    threading.Thread(target=_beat, daemon=True).start()
    try:
        reason = obey(parse_json(line, "the order"))
    except RiyazError as error:
        reason = str(error)
    except OSError as error:
        reason = files.reason(error)
    hand_on(Ended("failed", reason) if reason else Ended("done"))
    return 1 if reason else 0


def obey(document: Any) -> str:
    """Carry out an order; returns "" or the reason why its work failed. Raises RiyazError where this place is not fit
    for it."""
    order = order_of(document, Order)
    os.environ.update({name: value for name, value in (order.settings or {}).items() if name in SETTINGS})
    if os.path.isdir(order.working):
        os.chdir(order.working)
    expect_shared(order)
    if order.arguments:
        return processes.run_worker(list(order.arguments), Path(order.log), hand_on, order.threads, order.limit)
    expect_models(order.models)
    expect_embedder(order.embedder)
    write_json(Path(order.about), about_here())
    return ""


def about_here() -> AboutPlace:
    """What computes on this machine."""
    versions = hardware.versions(("riyaz", "torch"))
    return AboutPlace(hardware.cpu_model(), hardware.cores(), native.trainer(), versions)


def order_of(document: Any, kind: type[Kind]) -> Kind:
    """The order, of this kind, in a JSON document. Raises RiyazError where another version of riyaz has written it."""
    theirs = document.get("version") if isinstance(document, Mapping) else None
    if theirs != own_version():
        raise RiyazError(f"riyaz is {own_version()} there and {theirs} here", hint="install the same version")
    return from_json(kind, document, "the order")


def own_version() -> str:
    """The version of riyaz that is installed on this machine."""
    return hardware.versions(("riyaz",)).get("riyaz", "not installed")


def expect_shared(order: Order) -> None:
    """Raises RiyazError unless the mark that home has written is in this machine's folder too."""
    mark, end = Path(order.folder, order.mark), time.monotonic() + PATIENCE
    while True:
        try:
            written = mark.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            written = ""
        if written == order.nonce:
            return
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    there = f"the mark {brief(written)}" if written else "no mark"
    what = f"the folder is not the same there: it holds {there} there and {brief(order.nonce)} here"
    raise RiyazError(what, order.folder, "choose an --out that all places see")


def expect_models(models: Mapping[str, str]) -> None:
    """Raises RiyazError for a model that is not on this machine, or another one in its place."""
    from riyaz.sources import open_source

    for path, wanted in models.items():
        if not os.path.exists(path):
            raise RiyazError("the model is here and not there", path, "put it at the same path there")
        digest = open_source(path).sha256()
        if digest != wanted:
            raise RiyazError(f"the model is {digest[:12]} there and {wanted[:12]} here", path, "put the same one there")


def expect_embedder(home: Embedder | None) -> None:
    """Raises RiyazError unless the embedder that a method uses is the same on this machine, or on neither."""
    if home is None or (own := embedder_hash(home.name)) == home.sha256:
        return
    named = f"{home.name}, which {home.method} uses, is"
    if own and home.sha256:
        what = f"{named} {own[:12]} there and {home.sha256[:12]} here"
        raise RiyazError(what, hint=f"pull the same {home.name} there")
    missing, there = ("here", "there") if own else ("there", "here")
    raise RiyazError(f"{named} {there} and not {missing}", hint=f"run `riyaz pull {home.name}` {missing}")


def embedder_hash(name: str) -> str:
    """The SHA-256 of an embedder in this machine's store; "" where it has not been pulled."""
    from riyaz.sources import find, open_source

    return "" if find(name) is None else open_source(name).sha256()


def hand_on(event: Event) -> None:
    """Hand an event on to home; end this process where nobody reads it."""
    _write(to_json(event))


def _write(line: str) -> None:
    try:
        with _writing:
            print(line, flush=True)
    except OSError:
        os._exit(1)


def _beat() -> None:
    while True:
        time.sleep(BEAT)
        _write("")


def _end_with_input() -> None:
    """End this process, and so the worker, when home closes stdin or is gone."""
    while sys.stdin.buffer.readline():
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
