"""What runs on a node of a Ray cluster: `work(order, parcel)`, bytes in, bytes out; this module knows nothing of Ray.

The parcel holds what the work needs of the comparison's folder. It is unpacked into a temporary folder, the worker runs
there as it does at home, and what it has made goes back. Models do not travel: the node finds each by the SHA-256 of
its weights, at home's path or in its own store.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from riyaz.comparison import processes
from riyaz.comparison.at_place import BEAT, SETTINGS, Embedder, about_here, expect_embedder, order_of
from riyaz.comparison.folder import ComparisonFolder, ModelFile
from riyaz.comparison.parcel import files_below, packed, unpack
from riyaz.comparison.speeds import MEASURED
from riyaz.errors import RiyazError
from riyaz.events import Ended, Event, Listen, to_json
from riyaz.files import encoded, reason
from riyaz.json_files import parse_json, read_json, write_json
from riyaz.json_files import to_json as document_json
from riyaz.methods.fitting.learning_rate import trial_name
from riyaz.results import FIT
from riyaz.sources import store
from riyaz.sources.source import is_intact

ABOUT = "about.json"
REPLAY = "replay.txt"  # in a parcel: the user's text that is rehearsed
THREADS = "OMP_NUM_THREADS"  # which Ray sets too
MODE = "RAY_AUTH_MODE"  # of Ray: whether it asks for a token
TOKEN = "token"


@dataclass(frozen=True)
class NodeOrder:
    """What a node is told to do: without `arguments` only to show that it can."""

    version: str  # of riyaz at home
    models: tuple[ModelFile, ...]  # the bases, by the names and paths that they have at home
    embedder: Embedder | None  # where a method uses it
    guarded: bool  # whether Ray must ask for a token there
    settings: dict[str, str]  # environment variables of home, which change what is computed
    arguments: tuple[str, ...] = ()  # of the worker, without the folders of home
    log: str = ""  # the path of the log at home
    threads: int | None = None
    limit: float | None = None  # seconds


def work(order: bytes, parcel: bytes) -> Iterator[bytes]:
    """Carry out an order: lines of events, of which the last is Ended, then the chunks of a parcel with what was made.
    An empty line says that the node lives."""
    try:
        yield from _obey(order_of(parse_json(order, "the order"), NodeOrder), parcel)
    except RiyazError as error:
        yield _line(Ended("failed", str(error)))
    except OSError as error:
        yield _line(Ended("failed", reason(error)))


def _obey(order: NodeOrder, parcel: bytes) -> Iterator[bytes]:
    for name in (*SETTINGS, THREADS):
        os.environ.pop(name, None)
    os.environ.update(order.settings)
    expect_guarded(order)
    expect_embedder(order.embedder)
    stored = {model.sha256: stored_model(model) for model in order.models}
    if not order.arguments:
        yield _line(Ended("done"))
        yield from packed({ABOUT: encoded(document_json(about_here()))})
        return
    with store.workspace() as work_folder:
        folder = work_folder.absolute()
        unpack([parcel], folder)
        _complete_settings(folder, order, stored)
        yield from _worked(order, folder)


def _worked(order: NodeOrder, folder: Path) -> Iterator[bytes]:
    """The lines of a worker in this folder, then the parcel with what it has made."""
    work_name, *rest = order.arguments
    measuring = work_name == "measure"
    made = folder / "made" if measuring else ComparisonFolder(folder).part(rest[0], rest[1])
    arguments = [work_name, str(folder), *rest, *([str(made)] if measuring else [])]
    log = made / Path(order.log).name
    reason = ""

    def run(listen: Listen) -> None:
        nonlocal reason
        reason = processes.run_worker(arguments, log, listen, order.threads, order.limit)

    yield from _lines(run)
    reason = reason.replace(str(log), order.log)
    yield _line(Ended("failed", reason) if reason else Ended("done"))
    files = files_below(made)
    if reason or measuring:
        files = {name: path for name, path in files.items() if path.name == (log.name if reason else MEASURED)}
    product = trial_name(float(rest[2])) if work_name == "search" else FIT  # last: it says that the rest is there
    yield from packed(dict(sorted(files.items(), key=lambda file: file[0] == product)))


def _lines(run: Callable[[Listen], None]) -> Iterator[bytes]:
    """The events of what `run` does in a thread, as lines, and an empty line where it is silent. What `run` raises is
    raised here; where nobody takes the lines any more, its process ends."""
    lines: queue.Queue[bytes | BaseException | None] = queue.Queue()

    def tell() -> None:
        try:
            run(lambda event: lines.put(_line(event)))
            lines.put(None)
        except BaseException as error:
            lines.put(error)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        while True:
            try:
                line = lines.get(timeout=BEAT)
            except queue.Empty:
                yield b""
                continue
            if isinstance(line, BaseException):
                raise line
            if line is None:
                return
            yield line
    finally:
        assert thread.ident is not None
        processes.end_worker(thread.ident)
        thread.join(processes.PATIENCE)


def _complete_settings(folder: Path, order: NodeOrder, stored: dict[str, str]) -> None:
    """Write into settings.json where this node has the models, and the text that is rehearsed."""
    path = folder / "settings.json"
    document = read_json(path)
    names = {model.path: model.name for model in order.models}
    for entry in [document["model"], *document.get("models", [])]:
        entry |= {"stored": stored[entry["sha256"]], "called": names[entry["path"]]}
    if (folder / REPLAY).exists():
        document["settings"]["replay_from"] = str(folder / REPLAY)
    write_json(path, document)


def expect_guarded(order: NodeOrder) -> None:
    """Raises RiyazError where the node's Ray lets in whoever reaches it, and must not."""
    mode = os.environ.get(MODE, "not set")
    if order.guarded and mode.lower() != TOKEN:
        hint = f"start Ray there with {MODE}={TOKEN}"
        raise RiyazError(f"Ray asks for no token there ({MODE} is {mode})", hint=hint)


def stored_model(model: ModelFile) -> str:
    """The path on this machine of a model with these weights. Raises RiyazError where it has none."""
    own = [str(entry.path) for entry in store.models() if entry.sha256 == model.sha256]
    for path in [model.path, *own]:
        if os.path.exists(path) and is_intact(Path(path), model.sha256):
            return path
    what = f"no model there has the SHA-256 {model.sha256[:12]}… of {model.name}"
    raise RiyazError(what, hint=f"run `riyaz pull` there, or put the model at {model.path} there")


def _line(event: Event) -> bytes:
    return encoded(to_json(event))
