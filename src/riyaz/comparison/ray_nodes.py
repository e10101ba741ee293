"""The nodes of a Ray cluster as places of a comparison (--ray): who they are, and what may not travel to them."""

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from riyaz import ranks
from riyaz.comparison.at_node import MODE, TOKEN
from riyaz.comparison.at_place import AboutPlace, Embedder
from riyaz.comparison.folder import ComparisonFolder
from riyaz.comparison.parcel_contents import reason_at_home
from riyaz.comparison.places import HINT, Command, Here, Place
from riyaz.comparison.ray_place import GUARDED, OPEN, OPTION, Node
from riyaz.errors import RiyazError, brief, joined
from riyaz.events import Failed, Listen, Note
from riyaz.events import from_json as event_of
from riyaz.json_files import from_json, json_or

CONNECT_SECONDS, JOIN_SECONDS = 5.0, 120.0


class RayNode(Command):
    """A node of a Ray cluster: a place that sees no folder of home's, reached by a process that speaks with Ray."""

    def __init__(
        self, name: str, words: Sequence[str], folder: ComparisonFolder, models: Mapping[str, str],
        embedder: Embedder | None, at_home: frozenset[str],
    ) -> None:  # fmt: skip
        super().__init__(name, words, folder, models, embedder)
        self.at_home = at_home  # arms that do not travel

    def check(self) -> AboutPlace:
        """What the node is. Raises RiyazError where it cannot be reached, or is not fit."""
        try:
            return super().check()
        except RiyazError as error:
            hint = f"correct it, or take the node out of the cluster of {OPTION}" if error.hint == HINT else error.hint
            raise RiyazError(error.what, error.where, hint) from None


def open_nodes(
    address: str, folder: ComparisonFolder, models: Mapping[str, str], embedder: Embedder | None, arms: Iterable[str],
    settings: Mapping[str, Any], listen: Listen,
) -> list[Place]:  # fmt: skip
    """The nodes with a CPU as places, this machine as `here` if it is one of them. Raises RiyazError for an address
    that cannot be used, and for a cluster that whoever reaches it may use."""
    host = host_of(address)
    guarded = not is_loopback(host)
    if guarded:
        expect_token(f"{OPTION} {address}")
    expect_answer(address)
    nodes = nodes_of(address)
    if not guarded and not all(is_loopback(node.address) for node in nodes):
        guarded = True  # for Ray listens there too: 127.0.0.1 leads to the machine's own address
        expect_token(f"{OPTION} {address}")
    working = [node for node in nodes if node.cpus]
    if not any(not node.here for node in working):
        hint = f"join others to it: ray start --address={address}"
        raise RiyazError("the cluster has no node but this machine", f"{OPTION} {address}", hint)
    reasons = {arm: reason_at_home(arm, dict(settings)) for arm in arms}
    at_home = frozenset(arm for arm, reason in reasons.items() if reason)
    for reason in dict.fromkeys(filter(None, reasons.values())):
        names = [arm for arm in reasons if reasons[arm] == reason]
        listen(Note(f"{joined(names)} {'is' if len(names) == 1 else 'are'} fitted on this machine, as {reason}"))
    words = [sys.executable, "-m", "riyaz.comparison.ray_place", address]
    guard = GUARDED if guarded else OPEN
    places: list[Place] = []
    for node in working:
        if node.here:
            places.append(Here(folder))
            continue
        name = f"ray {node.address}"
        same = sum(place.name == name or place.name.startswith(f"{name} (") for place in places)
        name = f"{name} ({same + 1})" if same else name
        places.append(RayNode(name, [*words, node.id, guard], folder, models, embedder, at_home))
    return places


def host_of(address: str) -> str:
    """The host in HOST:PORT. Raises RiyazError for another form."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or "/" in host or not 0 < int(port) < 2**16:
        hint = "give HOST:PORT, as `ray start --head` prints it, such as 10.0.0.1:6379"
        raise RiyazError(f"{brief(address)} is not the address of a cluster", OPTION, hint)
    return host.removeprefix("[").removesuffix("]")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def expect_token(where: str) -> None:
    """Raises RiyazError unless Ray asks for a token here: else whoever reaches the cluster runs code on every node."""
    mode = os.environ.get(MODE, "not set")
    if mode.lower() != TOKEN:
        hint = f"start every node with {MODE}={TOKEN} and the token in RAY_AUTH_TOKEN_PATH, and set both here"
        raise RiyazError(f"other machines reach this cluster, and {MODE} is {mode}", where, hint)


def expect_answer(address: str) -> None:
    """Raises RiyazError where nothing answers at an address: Ray itself would try for a minute."""
    host, port = host_of(address), int(address.rpartition(":")[2])
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        hint = "start a cluster with `ray start --head`, which prints its address"
        raise RiyazError(f"nothing answers: {error.strerror or error}", f"{OPTION} {address}", hint) from None


def nodes_of(address: str) -> list[Node]:
    """The nodes of a cluster, as a process of their own is told. Raises RiyazError where it cannot join."""
    command = [sys.executable, "-m", "riyaz.comparison.ray_place", address]
    where, hint = f"{OPTION} {address}", "see `ray status` there"
    try:
        listed = subprocess.run(
            command, capture_output=True, text=True, timeout=JOIN_SECONDS, env=ranks.environment(), check=False
        )
    except subprocess.TimeoutExpired:
        raise RiyazError(f"the cluster cannot be joined within {JOIN_SECONDS:.0f} s", where, hint) from None
    lines = listed.stdout.splitlines()
    event = event_of(lines[-1]) if lines else None
    if isinstance(event, Failed):
        raise RiyazError(event.reason)
    nodes = json_or(lines[-1]) if lines else None
    if not isinstance(nodes, list):
        errors = [line.strip() for line in listed.stderr.splitlines() if line.strip()]
        raise RiyazError(f"the cluster cannot be joined: {(errors or ['no reason'])[-1][:200]}", where, hint)
    return [from_json(Node, node, where) for node in nodes]
