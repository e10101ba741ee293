"""Keeps the training of an arm within its share of the budget: it gets fewer steps where they are slower than planned.

Each change of length is in pace.json, with the seconds of training until then: a run that is continued takes the same
changes after the same steps, and so has the same weights.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from riyaz.json_files import from_json, read_json, write_json
from riyaz.methods.fitting.base import Context
from riyaz.pace import Pace

if TYPE_CHECKING:
    from riyaz.train import TrainPlan

PACE = "pace.json"
DAMAGED = "remove it, and the run gets the length that was planned"


@dataclass(frozen=True)
class Paced:
    """pace.json: (steps done, steps in all) of every change of length, and the seconds of training until the last."""

    changes: tuple[tuple[int, int], ...] = ()
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> "Paced":
        """The changes of a run; none where it kept its length."""
        return from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED) if path.exists() else cls()


Adjust = Callable[["TrainPlan", int], "TrainPlan"]


def paced(context: Context, plan: "TrainPlan") -> "tuple[TrainPlan, Adjust | None]":
    """`within` the limit of the arm's plan."""
    arm = context.arm
    return within(context.folder / PACE, plan, arm.train_limit, arm.after_seconds, arm.step_seconds)


def within(
    path: Path, plan: "TrainPlan", limit: float, after: float = 0.0, step_seconds: float = 1.0
) -> "tuple[TrainPlan, Adjust | None]":
    """The plan with the changes of length that the run has had, as the file says, and the function that makes further
    ones before a step; None where the run has no limit of seconds. `after` are the seconds that work after the last
    step takes if a step takes `step_seconds`. Call it when the training begins."""
    before, began = Paced.read(path), time.perf_counter()
    plan = replace(plan, changes=before.changes)
    if not limit:
        return plan, None

    def seconds() -> float:
        return time.perf_counter() - began

    def record(changed: "TrainPlan") -> None:
        write_json(path, Paced(changed.changes, before.seconds + seconds()))

    pace = Pace(
        budget=limit + after, before=before.seconds, step_seconds=step_seconds, end=after, clock=seconds,
        record=record, first=None,
    )  # fmt: skip
    return plan, pace.adjusted
