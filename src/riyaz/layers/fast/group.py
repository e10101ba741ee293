"""Several processes that train one model: each takes a share of a step's rows and steps a part of the weights.

The gradients of all weights lie in one block of memory (`layers.fast.masters`), and each process owns a part of it, as
in ZeRO-1 (Rajbhandari et al. 2020, arXiv 1910.02054). A step sends every other process its part of this process's
gradients; each adds up what it gets, in the order of the ranks, takes its step of AdamW there and sends the new weights
to all. So every weight is stepped by one process, copies cannot drift, and moments are kept once.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from riyaz import hardware
from riyaz.errors import RiyazError
from riyaz.layers.fast import meeting
from riyaz.ranks import Lost, Ranks, ToldElsewhere, Value, dealt

PIECE = 1 << 20  # numbers of a block that a process gets from all others together at once


class Group(Ranks):
    """This process and the others that torchrun has started, connected by gloo."""

    def __init__(self, rank: int, count: int) -> None:
        """Raises RiyazError where the others do not come."""
        self.rank, self.count = rank, count
        self.meeting = meeting.Meeting(rank, count)
        self.changes: Any = None  # the first process's changes of length that all know
        self.may_pause = True  # since the last step the first process may have been busy for longer than PATIENCE
        store, patience = dist.PrefixStore("gloo", self.meeting.store), timedelta(seconds=meeting.PATIENCE)
        with _losing():
            dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=patience)

    def leave(self, linger: float = meeting.LINGER) -> None:
        """Leave the others, which notice it at once; the first one waits so many seconds until they have left."""
        with suppress(RuntimeError):
            dist.destroy_process_group()
        self.meeting.leave(linger)

    def own_rows(self, rows: Sequence[Any]) -> list[Any]:
        """This process's share of the rows of a step."""
        rows = list(rows)
        return [rows[place] for place in dealt([row.tokens for row in rows], self.count)[self.rank]]

    def trained_by(self, trainer: str) -> str:
        """What computes, and in how many processes, as their number changes the order of sums."""
        return f"{trainer} in {self.count} processes"

    def first(self, value: Value) -> Value:
        """The value of the first process, JSON or a dataclass of JSON, which the others wait for. Raises Lost."""
        kind: Any = type(value)
        fields: Any = asdict(value) if is_dataclass(value) and not isinstance(value, type) else None
        said: Value = self.meeting.first(value) if fields is None else kind(**self.meeting.first(fields))
        return said

    def paced(self, plan: Any) -> Any:
        """The plan with the changes of length of the first process. Between two steps one number says whether there are
        new ones: the store would be asked again and again, and shares its core with what computes. Raises Lost."""
        new = torch.tensor([int(plan.changes != self.changes)])
        if self.may_pause:
            self.wait_for_all()  # others may validate still
        else:
            with _losing():
                dist.broadcast(new, 0)
        if self.may_pause or new.item():
            self.changes = tuple(map(tuple, self.meeting.first(plan.changes)))
        self.may_pause = False
        return plan if self.changes == plan.changes else replace(plan, changes=self.changes)

    def total(self, number: float) -> float:
        """The sum of a number over all processes, in the order of the ranks. Raises Lost."""
        numbers = [torch.empty(1, dtype=torch.float64) for _ in range(self.count)]
        with _losing():
            dist.all_gather(numbers, torch.tensor([number], dtype=torch.float64))
        return sum(each.item() for each in numbers)

    def whole_norm(self, norm: float) -> float:
        """The norm of a block from the norm of this process's part. Raises Lost."""
        return math.sqrt(self.total(norm * norm))

    def wait_for_all(self) -> None:
        """Wait until all processes are here, however long they take. Raises Lost where one is gone."""
        self.meeting.gathered(None)
        self.meeting.first(None)

    def expect_alike(self, values: Mapping[str, object], hint: str = "start all processes alike") -> None:
        """Raises RiyazError, in the first process, where another one has another value; Lost."""
        self.may_pause = True  # what follows is a run's beginning or a validation, which may write files
        difference = self.meeting.difference(values)
        if difference and self.rank:
            raise ToldElsewhere
        if difference:
            raise RiyazError(difference, hint=hint)

    def own_part(self, size: int) -> slice:
        """The part of a block of this size that this process steps."""
        return _part(size, self.rank, self.count)

    def kept(self, block: Tensor | None) -> Tensor | None:
        """A copy of this process's part of a block, if there is one."""
        return None if block is None else block[self.own_part(len(block))].clone()

    def add_up(self, block: Tensor) -> None:
        """Add up a block (N,) float32 in this process's part, in the order of the ranks. Raises Lost."""
        parts = [block[_part(len(block), rank, self.count)] for rank in range(self.count)]
        own, most = parts[self.rank], max(map(len, parts))
        size = max(1, PIECE // self.count)
        room = torch.empty(self.count, min(size, most))
        for start in range(0, most, size):
            piece = own[start : start + size]
            arrived = [piece if rank == self.rank else room[rank, : len(piece)] for rank in range(self.count)]
            self._exchange([part[start : start + size] for part in parts], arrived)
            total = room[self.rank, : len(piece)].copy_(arrived[0])
            for other in arrived[1:]:
                total.add_(other)
            piece.copy_(total)
        self.meeting.forget()

    def spread(self, block: Tensor) -> None:
        """Send this process's part of a block to the others and take theirs. Raises Lost."""
        parts = [block[_part(len(block), rank, self.count)] for rank in range(self.count)]
        self._exchange([parts[self.rank]] * self.count, parts)

    def whole(self, part: Tensor | None, size: int) -> Tensor | None:
        """The block, if there is one, of which each process keeps a part, in every process. Raises Lost."""
        if part is None:
            return None
        self.wait_for_all()  # the first one may be writing the last checkpoint
        block = torch.empty(size, dtype=part.dtype)
        block[self.own_part(size)] = part
        self.spread(block)
        return block

    def gathered(self, part: Tensor, size: int) -> Tensor:
        """The block of which each process keeps a part, in the first process; elsewhere its shape alone. Raises
        Lost."""
        self.wait_for_all()  # of which the first may have been writing files, and others validate still
        self.may_pause = True
        if self.rank:
            self._exchange([part], [], [0])
            return torch.empty(size, dtype=part.dtype, device="meta")
        block = torch.empty(size, dtype=part.dtype)
        block[self.own_part(size)] = part
        others = [*range(1, self.count)]
        self._exchange([], [block[_part(size, rank, self.count)] for rank in others], [], others)
        return block

    def scattered(self, block: Tensor, part: Tensor) -> None:
        """Copy this process's part of the block of the first process into `part`. Raises Lost."""
        if self.rank:
            self._exchange([], [part], [], [0])
            return
        part.copy_(block[self.own_part(len(block))])
        others = [*range(1, self.count)]
        self._exchange([block[_part(len(block), rank, self.count)] for rank in others], [], others)

    def copied(self, block: Tensor) -> None:
        """Copy the block of the first process into that of every other. Raises Lost."""
        with _losing():
            dist.broadcast(block.view(torch.uint8), 0)

    def _exchange(
        self, sent: Sequence[Tensor], received: Sequence[Tensor],
        to: Sequence[int] | None = None, of: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """Send tensors to processes and receive others from them, by default one for each rank but this one's."""
        every = range(self.count)
        with _losing():
            works = [dist.irecv(*pair) for pair in self._pairs(received, every if of is None else of)]
            works += [dist.isend(*pair) for pair in self._pairs(sent, every if to is None else to)]
            for work in filter(None, works):
                work.wait()

    def _pairs(self, tensors: Sequence[Tensor], ranks: Sequence[int]) -> list[tuple[Tensor, int]]:
        """The bytes of each tensor and its rank, without this process's own and empty ones."""
        pairs = zip(tensors, ranks)
        return [(x.view(torch.uint8), rank) for x, rank in pairs if rank != self.rank and len(x)]


def _part(size: int, rank: int, count: int) -> slice:
    return slice(size * rank // count, size * (rank + 1) // count)


@contextmanager
def _losing() -> Iterator[None]:
    """Within the block an error of gloo, whose other side has ended or does not answer, is a process that is gone."""
    try:
        yield
    except RuntimeError as error:
        if hardware.ran_out(error) or os.environ.get("RIYAZ_TRACEBACK"):
            raise
        raise Lost from error
