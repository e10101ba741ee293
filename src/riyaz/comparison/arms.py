"""Runs the arms of a comparison, each in its own processes, and plans the remaining ones again before each.

Where not every trained arm has time for its recipe, they race: each trains its opening, and those that score worse on
the validation rows than the best beyond chance, the worst in any case, wait until the others are done. plan.json says
what each arm was given; an arm that has begun is finished as it was planned, also by a command that continues a stopped
one.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from riyaz.comparison import plan as planning
from riyaz.comparison import processes
from riyaz.comparison.arm_row import arm_row
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.plan import ComparisonPlan, PlanInputs
from riyaz.errors import joined
from riyaz.events import ArmDone, Listen, Note, Phase, about
from riyaz.files import remove
from riyaz.json_files import to_document
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import ArmPlan
from riyaz.methods.fitting.learning_rate import OPENINGS, SEARCH, Search
from riyaz.metrics.paired import paired_test
from riyaz.results import COMPARE, FIT, PREDICTIONS, RESULT, ArmResult

PRODUCTS = (FIT, RESULT, PREDICTIONS, "artifact")
ALPHA = 0.05  # p-value below which an opening is worse than the best one beyond chance
WORTH = 1.2  # an arm is continued for at least so many times its steps


@dataclass
class Arms:
    """The arms of a comparison while they run: their plan, and the reasons of those that failed."""

    folder: ComparisonFolder
    inputs: PlanInputs
    plan: ComparisonPlan
    parts: list[str]
    budget: float  # seconds of the whole command
    since: Callable[[], float]  # seconds since it began
    listen: Listen
    failed: dict[str, str] = field(default_factory=dict)  # method -> why

    def run(self) -> None:
        """Run every arm that has not run, and continue those that were cut short while there is time."""
        self._run_all()
        if self.parts == [FINAL] and self.revive():
            self._run_all()

    def revive(self) -> bool:
        """Plan again the arms that were cut short or had no time; False if nothing is worth running."""
        earlier, unable = self.plan, self.inputs.speeds.unable
        arms = tuple(self._revived(arm) if arm.method not in unable else arm for arm in earlier.arms)
        revived = replace(earlier, arms=arms)
        plan = planning.make_plan(self.inputs, budget=self.budget, spent=self.since(), earlier=revived)
        unchanged = {arm.method: arm for arm in earlier.arms if not self._gains(arm, plan.arm(arm.method))}
        self._save(replace(plan, arms=tuple(unchanged.get(arm.method, arm) for arm in plan.arms)))
        return len(unchanged) < len(earlier.arms)

    def rows(self) -> list[ArmResult]:
        """The rows of compare.json, in the order of the plan."""
        return [arm_row(self.folder, arm, self.parts, self.failed.get(arm.method, "")) for arm in self.plan.arms]

    def _run_all(self) -> None:
        untrained = [arm.method for arm in self.plan.arms if not arm.recipe_steps]
        for method in untrained:
            self._run_planned(method)
        self._race([arm for arm in self.plan.arms if arm.recipe_steps and not arm.skipped])
        trained = [arm for arm in self.plan.arms if arm.recipe_steps]
        for arm in sorted(trained, key=lambda arm: arm.waits):
            self._run_planned(arm.method)

    def _run_planned(self, method: str) -> None:
        """Plan an arm anew, unless it has begun, and run it."""
        arm = self.plan.arm(method)
        if arm.state != "begun" and not arm.skipped:
            self._replan()
            arm = replace(self.plan.arm(method), state="begun")
            if arm.had and not arm.skipped and not _worth(arm):
                arm = replace(arm, steps=arm.had, had=0)
            elif arm.had and not arm.skipped:
                self._discard(method)
                arm = replace(arm, had=0)
        if not arm.skipped:
            self._save_arm(arm)
            self._run(arm)
        row = arm_row(self.folder, self.plan.arm(method), self.parts, self.failed.get(method, ""))
        self.listen(ArmDone(to_document(row)))

    def _replan(self) -> None:
        plan = planning.make_plan(self.inputs, budget=self.budget, spent=self.since(), earlier=self.plan)
        arms = (self._spared(arm) if arm.skipped else arm for arm in plan.arms)
        self._save(replace(plan, arms=tuple(arms)))

    def _spared(self, arm: ArmPlan) -> ArmPlan:
        """A skipped arm, or, if it has run before, the arm as it was then."""
        before = self.plan.arm(arm.method)
        return replace(before, state="begun", steps=before.had, had=0) if before.had else arm

    def _run(self, arm: ArmPlan) -> None:
        """Fit and evaluate every part of an arm; a failure becomes the reason in its row."""
        began, whole = time.monotonic(), True
        for part in self.parts:
            run = self.folder.part(arm.method, part)
            for work, product in (("fit", FIT), ("evaluate", RESULT)):
                if arm.method in self.failed or (run / product).exists():
                    whole = False  # the time of this command is not that of the whole arm
                    continue
                self.listen(Phase(work, part if part != FINAL else "", arm.method))
                self._process(work, arm.method, part, run)
        if whole and arm.method not in self.failed:
            self._save_arm(replace(arm, took=time.monotonic() - began))

    def _process(self, work: str, method: str, part: str, run: Path) -> None:
        arguments = [work, str(self.folder.path), method, part]
        reason = processes.run_worker(arguments, run / "log.txt", about(method, self.listen))
        if reason:
            self.failed[method] = reason

    def _race(self, arms: Sequence[ArmPlan]) -> None:
        """Train the openings of the arms, if not all of them have time for their recipes; those that score worse on
        the validation rows than the best beyond chance then wait, and the worst in any case."""
        racing = [arm for arm in arms if arm.state == "planned" and arm.opening]
        opened = [arm for arm in arms if arm.state == "opened"]
        if self.parts != [FINAL] or len(racing) + len(opened) < 2 or not any(arm.cut for arm in racing + opened):
            return
        for method in [arm.method for arm in racing]:
            self._replan()
            arm = self.plan.arm(method)
            if arm.skipped or not arm.opening:
                continue
            self._save_arm(arm)
            self.listen(Phase("search", "opening", method))
            self._process("open", method, FINAL, self.folder.part(method, FINAL))
            if method not in self.failed:
                self._save_arm(replace(arm, state="opened"))
        scores = {arm.method: rows for arm in self.plan.arms if (rows := self._opening_scores(arm)) is not None}
        if len(scores) < 2:
            return
        waiting = _behind(scores)
        for method in waiting:
            self._save_arm(replace(self.plan.arm(method), waits=True))
        shown = ", ".join(f"{method} {rows.mean():.3f}" for method, rows in scores.items())
        wait = f"{joined(waiting)} {'waits' if len(waiting) == 1 else 'wait'} for the others"
        self.listen(Note(f"after their openings the arms score on validation rows: {shown}; {wait}"))

    def _opening_scores(self, arm: ArmPlan) -> np.ndarray | None:
        """The row scores (n,) of an opened arm; None if there are none."""
        path = self.folder.part(arm.method, FINAL) / SEARCH
        scores = Search.read(path).scores if arm.state == "opened" and path.exists() else None
        return np.array(scores) if scores else None

    def _revived(self, arm: ArmPlan) -> ArmPlan:
        if arm.skipped:
            return ArmPlan(arm.method)
        if arm.state != "begun" or not arm.cut:
            return arm
        has_openings = (self.folder.part(arm.method, FINAL) / OPENINGS).is_dir()
        return replace(arm, state="opened" if has_openings else "planned", waits=False, had=arm.steps)

    def _gains(self, before: ArmPlan, after: ArmPlan) -> bool:
        """Whether an arm as planned anew is worth running."""
        if after.skipped or after.state == "begun":
            return False
        return before.skipped != "" or before.state != "begun" or _worth(after)

    def _discard(self, method: str) -> None:
        """Remove what an arm has made, before it goes on."""
        remove(self.folder.path / COMPARE)  # it is written again from the arms as they are then
        for run in (self.folder.path / "arms" / method).glob("*"):
            if run.name in self.parts:
                for product in PRODUCTS:
                    remove(run / product)
            else:  # an extra run, of the arm as it was
                remove(run)

    def _save_arm(self, arm: ArmPlan) -> None:
        arms = tuple(arm if arm.method == other.method else other for other in self.plan.arms)
        self._save(replace(self.plan, arms=arms))

    def _save(self, plan: ComparisonPlan) -> None:
        if plan != self.plan:
            self.plan = plan
            self.folder.write("plan.json", plan)


def _behind(scores: dict[str, np.ndarray]) -> list[str]:
    """The methods whose row scores (n,) are below the best one's beyond chance, and the lowest in any case."""
    means = {method: (float(rows.mean()), METHODS[method].left_out) for method, rows in scores.items()}
    best, last = max(means, key=lambda method: means[method]), min(means, key=lambda method: means[method])
    return [
        method
        for method, rows in scores.items()
        if method == last or (method != best and paired_test(rows, scores[best]).p_value < ALPHA)
    ]


def _worth(arm: ArmPlan) -> bool:
    """Whether a run of the arm's steps is worth more than the one that it had."""
    return arm.steps >= min(arm.recipe_steps, math.ceil(WORTH * arm.had))
