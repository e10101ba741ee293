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
    def read(cls, folder: Path) -> "Paced":
        """The changes of the run in a part's folder; none where it kept its length."""
        path = folder / PACE
        return from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED) if path.exists() else cls()


def paced(context: Context, plan: "TrainPlan") -> "tuple[TrainPlan, Callable[[TrainPlan, int], TrainPlan] | None]":
    """The plan with the changes of length that the run has had, and the function that makes further ones before a step;
    None where the arm has no limit. Call it when the training begins."""
    arm, before, began = context.arm, Paced.read(context.folder), time.perf_counter()
    plan = replace(plan, changes=before.changes)
    if not arm.train_limit:
        return plan, None

    def seconds() -> float:
        return time.perf_counter() - began

    def record(changed: "TrainPlan") -> None:
        write_json(context.folder / PACE, Paced(changed.changes, before.seconds + seconds()))

    pace = Pace(
        budget=arm.train_limit + arm.after_seconds, before=before.seconds, step_seconds=arm.step_seconds,
        end=arm.after_seconds, clock=seconds, record=record, first=None,
    )  # fmt: skip
    return plan, pace.adjusted
