"""The process that leads to a node of a Ray cluster: `python -m riyaz.comparison.ray_place ADDRESS NODE
guarded`, or `open` where nothing but this machine reaches it.

It takes the order of `at_place` on stdin, as the command of any place does, sends what the work needs to the node as
bytes, and writes what comes back into the comparison's folder. It ends, and the work with it, when stdin does. Without
NODE it prints the nodes of the cluster. It is the only module that knows Ray, of which it uses Ray Core alone.
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from riyaz import files, hardware
from riyaz.comparison import at_node
from riyaz.comparison.at_node import THREADS, NodeOrder
from riyaz.comparison.at_place import BEAT, SETTINGS, Order, hand_on, order_of
from riyaz.comparison.folder import ComparisonFolder, ModelFile
from riyaz.comparison.parcel import packed, unpack
from riyaz.comparison.parcel_contents import Files, fit_files, measure_files
from riyaz.errors import RiyazError
from riyaz.events import Ended, Failed, from_json
from riyaz.extras import install
from riyaz.files import encoded
from riyaz.json_files import parse_json, to_json
from riyaz.sources import open_source

OPTION = "--ray"
GUARDED, OPEN = "guarded", "open"  # whether the cluster must ask for a token
Start = Callable[[bytes, bytes], Iterator[bytes]]
_running: list["_Lines"] = []  # what this process waits for
CANCEL_SECONDS = 2.0  # that Ray has to end a task before this process does


@dataclass(frozen=True)
class Node:
    """A node of a cluster."""

    id: str
    address: str  # of the machine
    cpus: int
    here: bool  # whether this machine's processes join the cluster through it


def main(arguments: list[str]) -> int:
    """Do what the order on stdin says on a node, or print the nodes; returns 0 where it was done."""
    address, *rest = arguments
    try:
        if not rest:
            _print(to_json([node.__dict__ for node in cluster_nodes(connected(address))], ascii=True))
            return 0
        line = sys.stdin.buffer.readline()
        threading.Thread(target=_end_with_input, daemon=True).start()
        order = order_of(parse_json(line, "the order"), Order)
        reason = carry_out(order, rest[1] != OPEN, partial(started, address, rest[0], order.threads))
    except RiyazError as error:
        if not rest:
            hand_on(Failed(str(error)))
            return 1
        reason = str(error)
    except NodeLost as lost:
        print(lost, file=sys.stderr, flush=True)
        os._exit(1)  # so that nothing follows this line
    except OSError as error:
        reason = files.reason(error)
    hand_on(Ended("failed", reason) if reason else Ended("done"))
    return 1 if reason else 0


class NodeLost(Exception):
    """A node ended, or Ray ended the task there, before it had said how its work ended; `str()` is why, in one line."""


def connected(address: str) -> Any:
    """The package ray, joined to the cluster at this address. Raises RiyazError where it cannot be."""
    ray = _library()
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many kinds: another version of Ray or Python, no node here, a wrong token
        hint = f"this machine must be a node, with the same Ray and Python: ray start --address={address} --num-cpus=0"
        raise RiyazError(f"the cluster cannot be joined: {_line_of(error)}", f"{OPTION} {address}", hint) from None
    return ray


def cluster_nodes(ray: Any) -> list[Node]:
    """The living nodes, in the order of their addresses."""
    own = ray.get_runtime_context().get_node_id()
    nodes = [
        (each["NodeManagerAddress"], each["NodeManagerPort"], each["NodeID"], int(each["Resources"].get("CPU", 0)))
        for each in ray.nodes() if each["Alive"]
    ]  # fmt: skip
    return [Node(node, address, cpus, node == own) for address, _, node, cpus in sorted(nodes)]


def carry_out(order: Order, guarded: bool, start: Start) -> str:
    """Carry out an order by `at_node.work`, which `start` begins; returns "" or the reason why its work failed. Raises
    NodeLost, and RiyazError where the node is not fit for it."""
    lines = start(encoded(to_json(node_order(order, guarded))), b"".join(packed(_contents(order))))
    reason = ""
    for line in lines:
        event = from_json(line.decode())
        if isinstance(event, Ended):
            reason = event.reason or ("" if event.status == "done" else reason or event.status)
            break
        if isinstance(event, Failed):
            reason = event.reason
        _print(line.decode())
    else:
        raise NodeLost("its work ended without a word")
    if order.arguments or not reason:
        unpack(_telling(lines), _made_in(order))
    return reason


def _telling(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks of a parcel; home hears meanwhile, by an empty line, that they still come."""
    beat = time.monotonic()
    for chunk in chunks:
        if time.monotonic() - beat >= BEAT:
            beat = time.monotonic()
            _print("")
        yield chunk


def node_order(order: Order, guarded: bool) -> NodeOrder:
    """The order of a place, without the folders of this machine, which a node does not see."""
    names = (*SETTINGS, THREADS)
    models = [ModelFile(open_source(path).name, path, sha256) for path, sha256 in order.models.items()]
    work, *rest = order.arguments[:1] + order.arguments[2:] or ("",)
    return NodeOrder(
        version=order.version, models=tuple(models), embedder=order.embedder, guarded=guarded,
        settings={name: os.environ[name] for name in names if name in os.environ},
        arguments=(work, *rest[:-1]) if work else (), log=order.log, threads=order.threads, limit=order.limit,
    )  # fmt: skip


def _contents(order: Order) -> Files:
    """What the work of an order needs."""
    if not order.arguments:
        return {}
    work, path, *rest = order.arguments
    folder = ComparisonFolder(Path(path))
    if work == "measure":
        return measure_files(folder, _made_in(order))
    assert work in ("search", "fit"), work
    return fit_files(folder, rest[0], rest[1], _made_in(order))


def _made_in(order: Order) -> Path:
    """The folder at home into which goes what was made."""
    return Path(order.arguments[-1]) if order.arguments else Path(order.about).parent


def started(address: str, node: str, threads: int | None, order: bytes, parcel: bytes) -> Iterator[bytes]:
    """What a node sends while it carries out an order; it reserves as many CPUs as the work has threads. Raises
    NodeLost where it is gone, or the cluster is."""
    try:
        ray = connected(address)
    except RiyazError as error:
        raise NodeLost(str(error)) from None
    cpus = next((each.cpus for each in cluster_nodes(ray) if each.id == node), None)
    if cpus is None:
        raise NodeLost("the node is no longer in the cluster")
    return _Lines(ray, node, min(cpus, threads or hardware.threads()), order, parcel)


class _Lines:
    """What a node sends while it carries out an order, piece by piece."""

    def __init__(self, ray: Any, node: str, cpus: int, order: bytes, parcel: bytes) -> None:
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        task = ray.remote(
            num_cpus=cpus, max_retries=0, num_returns="streaming",
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node, soft=False),
        )(at_node.work)  # fmt: skip
        self._ray, self._stream = ray, task.remote(order, parcel)
        _running.append(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece: bytes = self._ray.get(next(self._stream))
        except self._ray.exceptions.RayError as error:
            if "No module named 'riyaz" in str(error):
                raise RiyazError("riyaz is not installed there", hint="install the same version") from None
            raise NodeLost(_line_of(error)) from None
        return piece

    def cancel(self) -> None:
        """End the task without waiting for it."""
        self._ray.cancel(self._stream)


def _end_with_input() -> None:
    """End the task and this process when home closes stdin or is gone."""
    while sys.stdin.buffer.readline():
        pass
    for lines in _running:
        cancelling = threading.Thread(target=lines.cancel, daemon=True)
        cancelling.start()
        cancelling.join(CANCEL_SECONDS)
    os._exit(1)


def _library() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise RiyazError("a cluster needs the package ray", OPTION, install("ray")) from None


def _line_of(error: BaseException) -> str:
    """What an exception of Ray says, in one line: of a traceback the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or ['no reason'])[-1][:200]}"


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
