"""The speed of this machine: steps of the training loop, and the peak FLOP/s of a large matrix product.

Only the functions import torch.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from riyaz import folders, hardware
from riyaz.data.rows import Row
from riyaz.events import Listen
from riyaz.families import FAMILIES, ModelConfig
from riyaz.pretraining.shapes import micro_tokens
from riyaz.ranks import ALONE, Ranks

STEPS = 4  # the first is a warm-up and does not count
STEP_TOKENS = 2048
SCRATCH = "riyaz-speed-"  # beginning of the name of the folder that is trained in
BOTH_UP_TO = 256  # width; a wider model is never faster in float32 on a CPU with bf16 instructions
PEAK_SIZE = 2048  # rows and columns of the matrices whose product is timed
PEAK_SECONDS = 0.4


@dataclass
class Machine:
    """Training speeds on these rows, each measured once; of several processes by all of them together."""

    rows: Sequence[Row]
    context: int
    seed: int = 0
    ternary: bool = False
    ranks: Ranks = ALONE
    speeds: dict[tuple[ModelConfig, str], float] = field(default_factory=dict)  # tokens per second, as measured so far

    def tokens_s(self, config: ModelConfig, compute: str) -> float:
        """Training speed in tokens per second."""
        if (config, compute) not in self.speeds:
            how = (compute, self.context, self.seed, self.ternary)
            if self.ranks.count > 1:
                model = FAMILIES[config.model_type].to_hf(config)
                self.ranks.first({"do": "measure", "family": config.model_type, "model": model, "how": how})
            self.speeds[config, compute] = measured(config, self.rows, *how, self.ranks)
        return self.speeds[config, compute]

    def quicker(self, config: ModelConfig) -> str:
        """The number type in which this model trains faster: "bfloat16" or "float32"."""
        if not hardware.bf16_is_fast():
            return "float32"
        if config.hidden_size > BOTH_UP_TO:
            return "bfloat16"
        return max(("bfloat16", "float32"), key=lambda compute: self.tokens_s(config, compute))

    def peak_flops(self, compute: str) -> float:
        """Floating point operations per second of a large matrix product in this number type, on all cores; of several
        processes as many times that of the first."""
        return self.ranks.count * peak(compute)


def measured(
    config: ModelConfig, rows: Sequence[Row], compute: str, context: int, seed: int, ternary: bool = False,
    ranks: Ranks = ALONE,
) -> float:  # fmt: skip
    """Tokens per second of a few steps of the training loop with a fresh model, after a warm-up step."""
    from riyaz.models.fresh import fresh
    from riyaz.train import TrainPlan, train

    batch = min(len(rows), max(1, STEP_TOKENS // context))
    plan = TrainPlan(STEPS, 1e-4, batch, validate_every=STEPS + 1, keep_best=False, compute=compute, seed=seed,
                     checkpoint_every=STEPS + 1, micro_tokens=micro_tokens(context))  # fmt: skip
    with folders.temporary(Path(tempfile.gettempdir()), SCRATCH) as scratch:
        seconds = step_seconds(
            lambda listen: train(fresh(config, seed, ternary), rows, [rows[0]], plan, scratch, listen, ranks=ranks)
        )
    return batch * context / seconds


def step_seconds(run: Callable[[Listen], object]) -> float:
    """Median seconds of a step of the training loop that `run(listen)` calls, without the first step, which warms up,
    and the last, which includes a validation."""
    ends: list[float] = []
    run(lambda event: ends.append(time.perf_counter()))
    return statistics.median(after - before for before, after in pairwise(ends[:-1]))


def peak(compute: str) -> float:
    """Floating point operations per second of a large matrix product, the best of several."""
    import torch

    a = torch.ones(PEAK_SIZE, PEAK_SIZE, dtype=getattr(torch, compute))
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < PEAK_SECONDS:
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2.0 * PEAK_SIZE**3 / best
