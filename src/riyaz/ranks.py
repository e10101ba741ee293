"""The processes that train one model together: what torchrun says of this one, and what a process alone does.

torchrun starts several processes of one command and gives each its rank, 0, 1, 2 …. The first one, rank 0, is the
ordinary command: it reads, plans, prints and writes. The others only train (`layers.fast.group`).
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from riyaz.errors import RiyazError, brief

RANK, COUNT, HERE = "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"
# what torchrun gives a process; a child that inherited it would join the group in its parent's place
NAMES = {RANK, COUNT, "LOCAL_RANK", HERE, "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE",
         "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"}  # fmt: skip
BEGINNINGS = ("TORCHELASTIC_", "PET_")
GO_ON = "the same command with --resume goes on"

Value = TypeVar("Value")


class Lost(RiyazError):
    """Another process of the run has ended, or does not answer."""

    def __init__(self, who: str = "a process") -> None:
        super().__init__(f"{who} of this run is gone", hint=GO_ON)

    def goes_on_by(self, how: str) -> None:
        """Say in place of GO_ON how the run continues."""
        self.hint = how


class ProcessError(RiyazError):
    """An error of one of several processes, named by it."""

    def __init__(self, who: str, error: RiyazError) -> None:
        super().__init__(error.what, f"{who}: {error.where}" if error.where else who, error.hint)


class ToldElsewhere(Exception):
    """The run has failed, and another of its processes tells the user why."""


def environment() -> dict[str, str]:
    """The environment of this process without what torchrun gave it, for its children."""
    return {name: value for name, value in os.environ.items() if name not in NAMES and not name.startswith(BEGINNINGS)}


def launched(values: Mapping[str, str] | None = None) -> tuple[int, int]:
    """(rank, number of processes) in the variables of torchrun; (0, 1) where it has not started this process. Raises
    RiyazError for values that torchrun does not give."""
    values = os.environ if values is None else values
    count = _number(values, COUNT, 1, 2**20)
    return (_number(values, RANK, 0, count - 1), count) if count > 1 else (0, 1)


def on_this_machine() -> int:
    """How many of the processes run on this machine, and share its memory."""
    return _number(os.environ, HERE, 1, 2**20) if launched()[1] > 1 else 1


def _number(values: Mapping[str, str], name: str, least: int, most: int) -> int:
    text = values.get(name, str(least) if name != RANK else "")
    if not (text.isdecimal() and text.isascii() and least <= int(text) <= most):
        hint = f"start the command with torchrun, or remove {COUNT} and {RANK} from the environment"
        raise RiyazError(f"{brief(text)} is not a number from {least} to {most}", name, hint)
    return int(text)


def dealt(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The places of rows of these sizes for each of `count` processes: longest first, each to the process with the
    fewest tokens so far; in every share in the order in which they were. With few rows some shares are empty."""
    totals, shares = [0] * count, [list[int]() for _ in range(count)]
    for place in sorted(range(len(sizes)), key=lambda place: (-sizes[place], place)):
        least = min(range(count), key=lambda rank: (totals[rank], rank))
        totals[least] += sizes[place]
        shares[least].append(place)
    return [sorted(share) for share in shares]


class Ranks:
    """A process alone, which is all of them: whatever is said is said by it, and every sum is its own."""

    rank, count = 0, 1

    def own_rows(self, rows: Sequence[Any]) -> Sequence[Any]:
        """This process's share of the rows of a step."""
        return rows

    def trained_by(self, trainer: str) -> str:
        """What computes, for the notes about a run that others continue."""
        return trainer

    def first(self, value: Value) -> Value:
        """The value of the first process, which the others wait for."""
        return value

    def paced(self, plan: Any) -> Any:
        """The plan with the changes of length of the first process, which has the clock."""
        return plan

    def total(self, number: float) -> float:
        """The sum of a number over all processes."""
        return number

    def whole_norm(self, norm: float) -> float:
        """The norm of a block from the norm of this process's part."""
        return norm

    def wait_for_all(self) -> None:
        """Wait until all processes are here, however long they take."""

    def expect_alike(self, values: Mapping[str, object], hint: str = "") -> None:
        """Raises RiyazError, with both values, where another process has another one."""

    def own_part(self, size: int) -> slice:
        """The part of a block of this size that this process steps."""
        return slice(0, size)

    def kept(self, block: Any) -> Any:
        """Of a block what this process keeps: a copy of its own part, so that the block can be freed."""
        return block

    def add_up(self, block: Any) -> None:
        """Add to this process's part of a block those of the others' blocks."""

    def spread(self, block: Any) -> None:
        """Give every process the parts of a block that the others have stepped."""

    def whole(self, part: Any, size: int) -> Any:
        """The block of which each process keeps a part, in every process."""
        return part

    def gathered(self, part: Any, size: int) -> Any:
        """The block of which each process keeps a part, in the first process; elsewhere its shape alone."""
        return part

    def scattered(self, block: Any, part: Any) -> None:
        """Copy this process's part of the block of the first process into `part`."""

    def copied(self, block: Any) -> None:
        """Copy the block of the first process into that of every other."""


ALONE = Ranks()
