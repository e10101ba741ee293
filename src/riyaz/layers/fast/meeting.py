"""How the processes of a run meet, tell each other small values, and notice that one is gone.

torch's store holds the values. Each process also writes its pulse there every few seconds, from a thread of its own: so
the others can wait as long as the first one reads or writes files, and still notice within PATIENCE that it is gone.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from riyaz.errors import RiyazError
from riyaz.ranks import Lost
from riyaz.system import address_of

PATIENCE = 120.0  # seconds until a process that does not answer is gone
PULSE, LOOK = 5.0, 1.0  # seconds between two pulses of a process, and between two looks at another's
SHORTEST, LONGEST = 0.0005, 0.2  # seconds between two questions for a value that is awaited
# seconds that the first process, which may hold the store, waits for the others to leave: after an error, at the end
LINGER, AT_END = 5.0, 60.0
GONE = "gone"  # the pulse of a process that has left
INTERFACE = "GLOO_SOCKET_IFNAME"


class Meeting:
    """This process among those of the run."""

    def __init__(self, rank: int, count: int) -> None:
        """Joins the others. Raises RiyazError where they do not come within PATIENCE, or one is gone at once."""
        self.rank, self.count = rank, count
        self.said = 0  # values that the first process has said so far
        self.kept: list[str] = []  # those that the store still holds
        self.store = dist.PrefixStore("riyaz", _rendezvous(rank, count))
        try:
            self.pulses = dist.PrefixStore("riyaz", _client())  # a connection of its own: a wait blocks the other one
            self._beat()
        except RuntimeError as error:
            raise Lost("process 0") from error
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._keep_beating, daemon=True)
        self.thread.start()

    def first(self, value: Any) -> Any:
        """The value of the first process, which JSON can hold; the others wait for it. Raises Lost."""
        self.said += 1
        key = f"said-{self.said}"
        if self.rank:
            return json.loads(self._awaited(key, 0))
        self._set(key, json.dumps(value))
        self.kept.append(key)
        return value

    def forget(self) -> None:
        """Remove what the first process has said; all have heard it."""
        for key in self.kept:
            with suppress(RuntimeError):
                self.store.delete_key(key)
        self.kept.clear()

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in the first one; elsewhere none. Raises Lost."""
        if self.rank:
            self._set(f"of-{self.rank}-{self.said}", json.dumps(value))
            return []
        keys = {rank: f"of-{rank}-{self.said}" for rank in range(1, self.count)}
        others = [json.loads(self._awaited(key, rank)) for rank, key in keys.items()]
        self.kept += keys.values()
        return [value, *others]

    def difference(self, values: Mapping[str, object]) -> str:
        """Which value differs in which process, with both values; "" where all are alike. The same in every process.
        Raises Lost."""
        texts = {name: str(value) for name, value in values.items()}
        first, *others = self.gathered(texts) or [texts]
        none = "not given"
        unlike = (
            f"{name} is {other.get(name, none)} in process {rank} and {first.get(name, none)} in process 0"
            for rank, other in enumerate(others, 1)
            for name in first | other
            if first.get(name) != other.get(name)
        )
        return str(self.first(next(unlike, "")))

    def tells(self) -> bool:
        """Whether this process is the one that tells the user why the run has failed: the first to ask. Where the store
        is gone with the process that held it, that is process 1."""
        try:
            return int(self.store.add("told", 1)) == 1
        except RuntimeError:
            return self.rank <= 1

    def leave(self, linger: float = LINGER) -> None:
        """Leave the others; the first process, with which the store may end, lets them leave before it."""
        self.ended.set()
        self.thread.join()
        with suppress(RuntimeError):
            self.pulses.set(f"pulse-{self.rank}", GONE)
            until, others = time.monotonic() + linger, [] if self.rank else [*range(1, self.count)]
            while time.monotonic() < until and any(self._pulse(rank) != GONE for rank in others):
                time.sleep(0.05)

    def _set(self, key: str, text: str) -> None:
        try:
            self.store.set(key, text)
        except RuntimeError as error:
            raise Lost() from error

    def _awaited(self, key: str, rank: int) -> bytes:
        """The value that a process will set. Raises Lost when that process is gone."""
        began = since = looked = now = time.monotonic()
        seen = ""
        try:
            while not self.store.check([key]):  # torch's own wait would log each second that it takes
                time.sleep(min(max(SHORTEST, (now - began) / 20), LONGEST))
                now = time.monotonic()
                if now - looked < LOOK:
                    continue
                looked, pulse = now, self._pulse(rank)
                if pulse != seen:
                    seen, since = pulse, now
                gone = pulse == GONE or now - since > PATIENCE
                if gone and not self.store.check([key]):  # what it said last may be there now
                    raise Lost(f"process {rank}")
            return bytes(self.store.get(key))
        except RuntimeError as error:
            raise Lost(f"process {rank}") from error

    def _pulse(self, rank: int) -> str:
        """The latest pulse of a process; that of one that is gone where the store is."""
        key = f"pulse-{rank}"
        try:
            return bytes(self.pulses.get(key)).decode() if self.pulses.check([key]) else ""
        except RuntimeError:
            return GONE

    def _beat(self) -> None:
        self.pulses.set(f"pulse-{self.rank}", str(time.monotonic()))

    def _keep_beating(self) -> None:
        while not self.ended.wait(PULSE):
            try:
                self._beat()
            except RuntimeError:  # the store is gone, which the other thread will notice
                return


def _rendezvous(rank: int, count: int) -> Any:
    """The store at the address that torchrun gave. Raises RiyazError where it, or a process, is not there."""
    host, port = _address()
    try:
        if rank:
            _await_answer(host, port)
        _name_interface(host)
        return next(dist.rendezvous("env://", rank, count, timeout=timedelta(seconds=PATIENCE)))[0]
    except (RuntimeError, ValueError, OSError) as error:
        what = f"the {count} processes did not meet here within {PATIENCE:.0f} seconds"
        raise RiyazError(what, f"{host}:{port}", "check the address, the firewall and that all were started") from error


def _await_answer(host: str, port: int) -> None:
    """Wait until the store is there, at most PATIENCE: torch would try twice as long. Raises OSError."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, port), LOOK).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(0.1)


def _client() -> Any:
    host, port = _address()
    store = dist.TCPStore(host, port, None, False, timedelta(seconds=PATIENCE), wait_for_workers=False)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT")  # whose values torchrun's own store keeps apart
    return store if attempt is None else dist.PrefixStore(f"/worker/attempt_{attempt}", store)


def _address() -> tuple[str, int]:
    """Where the processes meet. Raises RiyazError for what torchrun does not give."""
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not host or not (port.isdecimal() and int(port) < 2**16):
        what = "RANK is set, but there is no address in MASTER_ADDR and MASTER_PORT"
        raise RiyazError(what, hint="start the command with torchrun")
    return host, int(port)


def _name_interface(host: str) -> None:
    """Have gloo use the interface that reaches the host: it looks for its own by the machine's name, which may belong
    to none. What the user has chosen stays."""
    if INTERFACE in os.environ:
        return
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                if address_of(probe.fileno(), name) == own:
                    os.environ[INTERFACE] = name
                    return
