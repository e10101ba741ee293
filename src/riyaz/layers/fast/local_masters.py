"""Masters of processes that step alone for a while and then agree on common weights: local steps, or DiLoCo (Douillard
et al. 2023, arXiv 2311.08105).

Each process takes its steps of AdamW with the gradient of its own rows, and keeps all moments. After some steps all
take the same outer step: Nesterov's momentum over how far the processes have moved on average. The outer optimiser's
state is kept once: each process has a part of it. When a checkpoint is written all go on with the mean of their
moments, so that one file holds the run and any number of processes resumes it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from riyaz.layers.fast.masters import PIECE, Masters, join, split, suffixed
from riyaz.ranks import Ranks

# of the outer step. The paper's .7 and .9 are for a model that has learned much before: docs/log.md
RATE, MOMENTUM = 0.8, 0.6


class LocalMasters(Masters):
    """The weights of a process that steps alone, and its part of what all agree on."""

    def __init__(self, model: nn.Module, compute: torch.dtype, group: Ranks) -> None:
        super().__init__(model, compute)
        self.group, self.part = group, group.own_part(self.size)
        self.momentum = torch.zeros(self.part.stop - self.part.start)
        self.common = torch.zeros(0)  # the weights of the last agreement, this process's part; `take` sets them

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments, from here on the mean of all processes', and the momentum of the outer step; that in the
        first process, in the others its shapes."""
        self.group.wait_for_all()  # of which the first may have been writing files
        for moment in (self.blocks.mean, self.blocks.square):
            self._average(moment)
        outer = self.parts(self.group.gathered(self.momentum, self.size))
        return super().moments() | suffixed(outer, "outer")

    def take(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """Take what a checkpoint has put into the `weights` and `moments` of the first process."""
        for block in self.blocks[:4]:
            if block is not None:
                self.group.copied(block)
        self.group.scattered(self.block(moments, "outer"), self.momentum)
        self.common = self._exact()[self.part].clone()
        self.blocks.grad.zero_()

    @torch.no_grad()
    def agree(self) -> None:
        """Take the outer step: all processes go on with the same weights."""
        self.group.wait_for_all()  # after many steps, some are early
        block = self._exact()
        self.group.add_up(block)
        own = block[self.part]
        moved = self.common - own.div_(self.group.count)
        self.momentum.mul_(MOMENTUM).add_(moved)
        self.common.sub_(moved.add_(self.momentum, alpha=MOMENTUM), alpha=RATE)
        own.copy_(self.common)
        self.group.spread(block)
        working, low = self.blocks[:2]
        for start in range(0, self.size, PIECE):
            at = slice(start, start + PIECE)
            if low is None:
                working[at] = block[at]
            else:
                working[at], low[at] = split(block[at])
        block.zero_()

    def _exact(self) -> Tensor:
        """The weights in float32, in the block of gradients, which is 0 between two steps."""
        working, low, block = self.blocks.working, self.blocks.low, self.blocks.grad
        for start in range(0, self.size, PIECE):
            at = slice(start, start + PIECE)
            block[at] = working[at] if low is None else join(working[at], low[at])
        return block

    @torch.no_grad()
    def _average(self, moment: Tensor) -> None:
        if self.group.count == 1:
            return
        block = self.blocks.grad.copy_(moment)
        self.group.add_up(block)
        block[self.part].div_(self.group.count)
        self.group.spread(block)
        moment.copy_(block)
        block.zero_()
