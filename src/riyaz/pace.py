"""Keeps a run within its budget: where its steps take longer than planned, it gets fewer of them.

The speed that the plan was made from was measured for a few seconds, and a machine may be busy later. Each change of
length is recorded with the step after which it was made, and a resumed run takes it after the same step.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from riyaz.train import TrainPlan

FIRST, BETWEEN = 0.1, 0.02  # shares of the budget: the training before the first look at the clock, and between two
SLACK = 0.02  # share of the remaining steps; a smaller change is not made


@dataclass
class Pace:
    """Compares the clock of a run with its plan."""

    budget: float | None  # seconds of the whole work; None: the run has its length whatever it takes
    before: float  # seconds of it in which no step was trained that `clock` counts
    step_seconds: float  # of one step, as planned
    end: float  # seconds from the last step to the end of the work, as planned
    clock: Callable[[], float | None]  # seconds of training at the last step; None before this command's first one
    record: Callable[["TrainPlan"], None]  # writes a plan with a further change
    next: float = 0.0  # seconds of training at the next look
    first: int | None = 0  # the steps that are not in the clock; None: those before the first look

    def adjusted(self, plan: "TrainPlan", step: int) -> "TrainPlan":
        """The plan after `step` steps, with as many steps as the budget holds at the mean pace of those done, and never
        more than it had at first."""
        self.first = step if self.first is None else self.first
        seconds = self.clock()
        if (
            self.budget is None
            or step == self.first
            or seconds is None
            or seconds < max(self.next, FIRST * self.budget)
        ):
            return plan
        if plan.changes and step <= plan.changes[-1][0]:  # what this run did before it was killed
            return plan
        self.next = seconds + BETWEEN * self.budget
        pace = seconds / (step - self.first)
        left = self.budget - self.before - seconds - self.end * max(1.0, pace / self.step_seconds)
        steps = min(plan.steps, step + max(1, int(left / pace)))
        if abs(steps - plan.length) <= SLACK * (plan.length - step):
            return plan
        plan = replace(plan, changes=(*plan.changes, (step, steps)))
        self.record(plan)
        return plan
