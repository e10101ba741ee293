"""What this machine does in a second, measured: real steps of the real loop, and its largest matrix product.

torch is imported by the functions.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from riyaz import hardware
from riyaz.data.rows import Row
from riyaz.events import Event
from riyaz.pretraining.shapes import Config, micro_tokens

STEPS = 4  # the first of them warms up and does not count
STEP_TOKENS = 2048
BOTH_UP_TO = 256  # width; wider models are never quicker in float32 where bf16 has instructions of its own
PEAK_SIZE = 2048  # rows and columns of the product that is timed for the peak
PEAK_SECONDS = 0.4


@dataclass
class Machine:
    """Speeds of training on these rows, each measured once."""

    rows: Sequence[Row]
    context: int
    seed: int = 0
    known: dict[tuple[Config, str], float] = field(default_factory=dict)

    def tokens_s(self, config: Config, compute: str) -> float:
        """Tokens per second of training."""
        if (config, compute) not in self.known:
            self.known[config, compute] = measured(config, self.rows, compute, self.context, self.seed)
        return self.known[config, compute]

    def quicker(self, config: Config) -> str:
        """The type of the matrix products in which this model trains faster."""
        if not hardware.bf16_is_fast():
            return "float32"
        if config.hidden_size > BOTH_UP_TO:
            return "bfloat16"
        return max(("bfloat16", "float32"), key=lambda compute: self.tokens_s(config, compute))

    def peak_flops(self, compute: str) -> float:
        """Floating point operations per second of a large matrix product in this type, on all cores."""
        return peak(compute)


def measured(config: Config, rows: Sequence[Row], compute: str, context: int, seed: int) -> float:
    """Tokens per second of a few steps of the training loop with a fresh model, warm."""
    from riyaz.models.fresh import fresh
    from riyaz.train import TrainPlan, train

    batch = min(len(rows), max(1, STEP_TOKENS // context))
    plan = TrainPlan(STEPS, 1e-4, batch, validate_every=STEPS + 1, keep_best=False, compute=compute, seed=seed,
                     checkpoint_every=STEPS + 1, micro_tokens=micro_tokens(context))  # fmt: skip
    ends: list[float] = []

    def listen(event: Event) -> None:
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        train(fresh(config, seed), rows, [rows[0]], plan, Path(scratch), listen)
    steps = [after - before for before, after in pairwise(ends[:-1])]  # the last one has a validation in it
    return batch * context / statistics.median(steps)


def peak(compute: str) -> float:
    """Floating point operations per second of one large matrix product."""
    import torch

    a = torch.ones(PEAK_SIZE, PEAK_SIZE, dtype=getattr(torch, compute))
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < PEAK_SECONDS:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2.0 * PEAK_SIZE**3 / best
