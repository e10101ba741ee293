"""Runs the arms of a comparison, each in its own processes, and plans the remaining ones again before each.

Arms without a language model and those that take a small share of the budget come first, the cheapest before the
others. Where not every other trained arm has time for its recipe, or the first none for its training on all rows, they
race: each trains its opening, and those that score worse on the validation rows than the best beyond chance wait until
the others are done; where none does, the one that a short budget leaves out first.
Arms without training that take long come last. plan.json says what each arm was given; an arm that has begun is
finished as it was planned, also by a command that continues a stopped one. Only slow steps shorten it
(`methods.fitting.pacing`), and what still runs when the budget is well over is stopped.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from riyaz.comparison import plan as planning
from riyaz.comparison import processes
from riyaz.comparison.arm_row import FINISHED, arm_row
from riyaz.comparison.arm_seconds import PlanInputs, in_refit_order
from riyaz.comparison.bases import in_leaving_order, instruction_of, method_of, parts_of, unplanned
from riyaz.comparison.folder import FINAL, ComparisonFolder
from riyaz.comparison.following import fit_together
from riyaz.comparison.plan import ComparisonPlan
from riyaz.config import Seconds
from riyaz.errors import joined
from riyaz.events import ArmDone, Listen, Note, Phase, about
from riyaz.files import remove
from riyaz.json_files import to_document
from riyaz.methods.fitting.base import ArmPlan
from riyaz.methods.fitting.held_out import HELD_OUT
from riyaz.methods.fitting.learning_rate import OPENINGS, SEARCH, Search
from riyaz.methods.fitting.pacing import PACE, Paced
from riyaz.metrics.groups import group_numbers
from riyaz.metrics.intervals import wilson
from riyaz.metrics.paired import paired_test
from riyaz.ranks import ALONE, Ranks
from riyaz.results import COMPARE, FIT, LEARNED, PREDICTIONS, REFITTED, RESULT, ArmResult, Fit

PRODUCTS = (FIT, RESULT, PREDICTIONS, PACE, HELD_OUT, LEARNED, "artifact")
BEFORE = "before"  # folder of what an arm had made before a longer run, until that is done
ALPHA = 0.05  # p-value below which an opening is worse than the best one beyond chance
WORTH = 1.2  # an arm is continued for at least so many times its steps
# The trained arm that leads on validation rows is trained anew for more steps, if time is left: so many times its steps
# at least, so many times its recipe's at most, and only if no arm has scored so much more on validation rows. The rest
# of the time is for close picks, whose arms answer again one row at a time.
LONGER, LONGEST, NEAR, LONGER_SHARE = 1.5, 3.0, 0.1, 0.6
OVERRUN = 1.1  # of the budget, when the process of an arm is stopped
# An arm without training is stopped after so many times its planned seconds, but not before this share of the budget.
UNTRAINED_TIMES, UNTRAINED_SHARE = 2.0, 0.25
OWN_SHARE = 0.8  # of the seconds until it would be stopped: the training of an arm without a recipe


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
    failed: dict[str, str] = field(default_factory=dict)  # by the arm's name: why
    ranks: Ranks = ALONE  # the processes that fit an arm together

    def run(self) -> None:
        """Run every arm that has not run, and continue those that were cut short while there is time."""
        self._run_all()
        if self.parts == [FINAL] and self.revive():
            self._run_all()
        if self.parts == [FINAL] and not self.inputs.aside and self.inputs.seeds == 1 and (arm := self._longer()):
            self.listen(Note(f"{arm.name} was still improving: it trains on for the time that is left, {arm.steps} "
                             f"steps instead of {arm.had}"))  # fmt: skip
            self.set_aside(arm.name)
            self.save_arm(arm)
            seconds = self.since() + planned_seconds(arm)
            self._save(replace(self.plan, estimate=self.plan.estimate | {"seconds": seconds}))
            self._run_planned(arm.name)
            for other in self._joining(arm.name):
                if other.state != "begun":
                    self._run_planned(other.name)

    def revive(self, stopped: bool = False) -> bool:
        """Plan again the arms that were cut short or had no time, and with `stopped` those that were stopped; False if
        nothing is worth running."""
        earlier, unable = self.plan, self.inputs.speeds.unable
        lost = {arm.name for arm in earlier.arms if self.failed.keys() & set(parts_of(arm.name))}
        arms = tuple(arm if arm.name in unable or arm.name in lost else self._revived(arm, stopped)
                     for arm in earlier.arms)  # fmt: skip
        revived = replace(earlier, arms=arms)
        plan = planning.make_plan(self.inputs, budget=self.budget, spent=self.since(), earlier=revived)
        unchanged = {arm.name: arm for arm in earlier.arms if not self._gains(arm, plan.arm(arm.name))}
        self._save(replace(plan, arms=tuple(unchanged.get(arm.name, arm) for arm in plan.arms)))
        return len(unchanged) < len(earlier.arms)

    def rows(self) -> list[ArmResult]:
        """The rows of compare.json, in the order of the plan."""
        return [arm_row(self.folder, arm, self.parts, self.failed.get(arm.name, "")) for arm in self.plan.arms]

    def _run_all(self) -> None:
        in_order = sorted(self.plan.arms, key=lambda arm: (self._follows(arm), planned_seconds(arm)))
        quick = [arm.name for arm in in_order if self._is_quick(arm)]
        for name in quick:
            self._run_planned(name)
        self._race([arm for arm in self.plan.arms if arm.recipe_steps and not arm.skipped and arm.name not in quick
                    and not _is_taught(arm)])  # fmt: skip
        for arm in sorted((arm for arm in self.plan.arms if arm.name not in quick), key=self._turn):
            self._run_planned(arm.name)

    def _turn(self, arm: ArmPlan) -> tuple[bool, bool, bool, int, float]:
        """What orders the arms that are not quick: trained ones and those that join them before the others, and of
        these the one first that is left out last, as what the others leave is too short for some of the refits."""
        method, parts = method_of(arm.name), parts_of(arm.name)
        waits = arm.waits or any(other.waits for other in self.plan.arms if other.name in parts)
        trained = bool(arm.recipe_steps or parts)
        follows = self._takes(arm) or self._follows(arm)
        return not trained, waits, follows, -method.left_out * trained, planned_seconds(arm)

    def _is_quick(self, arm: ArmPlan) -> bool:
        """Whether an arm runs before the openings of the others."""
        if arm.skipped or arm.waits or arm.cut or self._takes(arm) or parts_of(arm.name):
            return False
        if self._follows(arm) and not self._is_quick(self.plan.arm(instruction_of(arm.name))):
            return False  # what it takes comes later
        return not method_of(arm.name).about.language_model or planned_seconds(arm) <= planning.QUICK * self.budget

    def _takes(self, arm: ArmPlan) -> bool:
        """Whether an arm takes the learning rate that another finds, and so comes after it."""
        return self.inputs.rate_of.get(arm.name) in self.inputs.methods

    def _follows(self, arm: ArmPlan) -> bool:
        """Whether an arm takes the instruction that another finds, which has not run yet."""
        leader = next((other for other in self.plan.arms if other.name == instruction_of(arm.name)), None)
        return leader is not None and not leader.skipped and leader.state != "begun"

    def _run_planned(self, name: str) -> None:
        """Plan an arm anew, unless it has begun, and run it."""
        arm = self.plan.arm(name)
        if parts_of(name) and arm.skipped and arm.state != "begun" and not self.missing(name):
            arm = unplanned(name)  # its parts had no result before
            self.save_arm(arm)
        if arm.state != "begun" and not arm.skipped:
            self._replan()
            arm = self._with_time(self.plan.arm(name))
            if arm.had and not arm.skipped and not is_worth(arm):
                arm = replace(arm, steps=arm.had, had=0)
            elif arm.had and not arm.skipped:
                self.set_aside(name)
        self.save_arm(arm)
        if not arm.skipped:
            self._run(arm)
            if arm.had:
                self.keep_the_longer(arm)
        row = arm_row(self.folder, self.plan.arm(name), self.parts, self.failed.get(name, ""))
        self.listen(ArmDone(to_document(row)))

    def _with_time(self, arm: ArmPlan) -> ArmPlan:
        """The arm as begun; one without training that has waited for the others is skipped if it takes too long."""
        left = self.budget * planning.RESERVE - self.since()
        if missing := self.missing(arm.name):
            return replace(arm, skipped=missing)
        if arm.waits and not arm.recipe_steps and planned_seconds(arm) > left:
            return self._tried(arm, left)
        if method_of(arm.name).own_training:
            arm = replace(arm, train_limit=OWN_SHARE * self.limit_of(arm, 0.0) / len(self.parts))
        return arm if arm.skipped else replace(arm, state="begun")

    def _tried(self, arm: ArmPlan, left: float) -> ArmPlan:
        """An arm that takes longer than the `left` seconds, skipped. Where there is time for its choices on validation
        rows, and on these its labels are worse than the best arm's beyond chance, it counts as no better."""
        skipped = replace(arm, skipped=f"it takes longer than the time that was left{planning.MORE}")
        tried = (self.folder.part(arm.name, FINAL) / FIT).exists()  # in an earlier round
        if self.parts != [FINAL] or (not tried and arm.seconds["start"] + arm.seconds["fit"] > left):
            return skipped
        if not tried:
            self.listen(Phase("fit", "on validation rows", arm.name))
            self._process("fit", arm, FINAL)
        fit = None if self.plan.arm(arm.name).skipped else self._fit(arm)
        self.failed.pop(arm.name, None)
        if fit is None or fit.valid_score is None or self.folder.settings().task.kind not in ("closed", "questions"):
            return skipped
        begun = [other for other in self.plan.arms if other.state == "begun" and not _is_taught(other)]
        fits = {other.name: self._fit(other) for other in begun}
        scores = {name: each.valid_score for name, each in fits.items() if each and each.valid_score is not None}
        best = max(scores, key=lambda name: scores[name], default="")
        rows, valid = (self._independent(count) for count in (self.plan.valid_rows, self.inputs.sizes.valid))
        if not best or wilson(fit.valid_score * rows, rows)[1] >= wilson(scores[best] * valid, valid)[0]:
            return skipped
        why = f"on validation rows it scores {fit.valid_score:.2f}, {best} {scores[best]:.2f}"
        return replace(skipped, skipped=f"{why}; {skipped.skipped}", ruled_out=why)

    def _valid_groups(self, count: int) -> np.ndarray | None:
        """The number (n,) of the group of each of the first validation rows; None where no two share one."""
        return group_numbers([row.group for row in self.folder.rows(FINAL, "valid")[:count]])

    def _independent(self, count: int) -> int:
        """How many groups the first `count` validation rows have; without groups, each row is one."""
        groups = self._valid_groups(count)
        return count if groups is None else int(groups.max()) + 1

    def _joining(self, name: str) -> list[ArmPlan]:
        """The arms that join this one."""
        return [arm for arm in self.plan.arms if name in parts_of(arm.name)]

    def missing(self, name: str) -> str:
        """Why an arm cannot join those that it is made of: the first of them without a result; "" if it can."""
        joins = f"it joins {joined(parts_of(name))}"
        for other in parts_of(name):
            arm = self.plan.arm(other)
            if arm.skipped or other in self.failed:
                return f"{joins}; {other}: {arm.skipped or self.failed[other]}"
            if not all((self.folder.part(other, part) / RESULT).exists() for part in self.parts):
                return f"{joins}, and {other} has no result"
            row = arm_row(self.folder, arm, self.parts, "")
            if row.status not in FINISHED:
                return f"{joins}; {other}: {row.reason}"
        return ""

    def _longer(self) -> ArmPlan | None:
        """The trained arm that leads on validation rows, planned for as many more steps as the time that is left
        allows; None if its best validation was not its last, or the time is too short. No test row has a say."""
        fits = {arm.name: self._fit(arm) for arm in self.plan.arms}
        scores = {name: fit.valid_score for name, fit in fits.items() if fit and fit.valid_score is not None}
        trained = [arm for arm in self.plan.arms if arm.steps and arm.took and not arm.cut and arm.name in scores]
        if not trained:
            return None
        arm = max(trained, key=lambda arm: scores[arm.name])
        fit = fits[arm.name]
        assert fit is not None
        recipe = self.inputs.methods[arm.name]
        improving = fit.chosen.get("best_step") == fit.chosen.get("steps") == arm.steps
        if (
            not improving
            or recipe is None
            or recipe.fixed
            or scores[arm.name] < max(scores.values()) - NEAR
            or fit.train_seconds <= 0
        ):
            return None
        each = fit.train_seconds / arm.steps
        rest = arm.took - fit.train_seconds - fit.search_seconds
        again = sum(other.took or planned_seconds(other) for other in self._joining(arm.name))  # which are made anew
        left = LONGER_SHARE * (self.budget * planning.RESERVE - self.since()) - rest - again
        steps = min(int(LONGEST * arm.recipe_steps), int(left / each))
        if steps < LONGER * arm.steps:
            return None
        return replace(
            arm, steps=steps, had=arm.steps, took=0.0, opening=0, learning_rates=(fit.chosen["learning_rate"],),
            validate_every=max(1, arm.validate_every * steps // arm.steps), step_seconds=each, pace=1.0,
            seconds={"start": rest, "fit": 0.0, "evaluate": 0.0, "search": 0.0, "train": steps * each},
            train_limit=left, after_seconds=rest,
        )  # fmt: skip

    def _fit(self, arm: ArmPlan) -> Fit | None:
        """How the arm's artifact was made; None where it has none."""
        path = self.folder.part(arm.name, FINAL) / FIT
        return Fit.read(path) if path.exists() and not arm.skipped and arm.name not in self.failed else None

    def _replan(self) -> None:
        plan = planning.make_plan(self.inputs, budget=self.budget, spent=self.since(), earlier=self.plan)
        arms = (self._spared(arm) if arm.skipped else arm for arm in plan.arms)
        self._save(replace(plan, arms=tuple(arms)))

    def _spared(self, arm: ArmPlan) -> ArmPlan:
        """A skipped arm, or, if it has run before, the arm as it was then."""
        before = self.plan.arm(arm.name)
        return replace(before, state="begun", steps=before.had, had=0) if before.had else arm

    def _run(self, arm: ArmPlan) -> None:
        """Fit and evaluate every part of an arm; a failure becomes the reason in its row."""
        began, whole = time.monotonic(), True
        for part in self.parts:
            run = self.folder.part(arm.name, part)
            for work, product in (("fit", FIT), ("evaluate", RESULT)):
                if arm.name in self.failed or self.plan.arm(arm.name).skipped or (run / product).exists():
                    whole = False  # the time of this command is not that of the whole arm
                    continue
                self.listen(Phase(work, part if part != FINAL else "", arm.name))
                self._process(work, arm, part, time.monotonic() - began)
        if arm.name in self.failed or self.plan.arm(arm.name).skipped:
            return
        arm = self.as_trained(arm)
        self.save_arm(replace(arm, took=time.monotonic() - began) if whole else arm)

    def as_trained(self, arm: ArmPlan) -> ArmPlan:
        """The arm with the steps that its run had in the end, and the seconds that these were planned to take."""
        changes = [Paced.read(self.folder.part(arm.name, part) / PACE).changes for part in self.parts]
        steps = min(each[-1][1] if each else arm.steps for each in changes)
        if steps == arm.steps:
            return arm
        less = (arm.steps - steps) * arm.step_seconds * len(self.parts)
        return replace(arm, steps=steps, seconds=arm.seconds | {"train": max(0.0, arm.seconds["train"] - less)})

    def _process(self, work: str, arm: ArmPlan, part: str, spent: float = 0.0) -> None:
        """Run one process of an arm that has run for `spent` seconds; it is stopped when it takes much too long."""
        name, run = arm.name, self.folder.part(arm.name, part)
        arguments, limit = [work, str(self.folder.path), name, part], self.limit_of(arm, spent)
        listen = about(name, self.listen)
        if work == "fit" and self.ranks.count > 1:  # which has no limit but that of its steps
            reason = fit_together(self.folder, name, part, self.ranks, listen)
        else:
            reason = processes.run_worker(arguments, run / "log.txt", listen, limit=max(1.0, limit))
        if reason == processes.STOPPED:
            after = f"it was stopped after {Seconds(round(spent + limit))}, when the budget was spent"
            self.save_arm(replace(arm, skipped=f"{after}{planning.MORE}"))
        elif reason:
            self.failed[name] = reason

    def limit_of(self, arm: ArmPlan, spent: float) -> float:
        """Seconds after which a process is stopped that begins now, of an arm that has run for `spent` seconds."""
        left = OVERRUN * self.budget - self.since()
        alone = not any(other.took for other in self.plan.arms) and not method_of(arm.name).own_training
        if arm.recipe_steps or alone:
            return left
        return min(left, max(UNTRAINED_TIMES * planned_seconds(arm), UNTRAINED_SHARE * self.budget) - spent)

    def _race(self, arms: Sequence[ArmPlan]) -> None:
        """Train the openings of the arms, if not all of them have time for their recipes, or the first one none
        for its refit; those that score worse on the validation rows than the best beyond chance then wait, and where
        none does, the one that is left out first."""
        racing = [arm for arm in arms if arm.state == "planned" and arm.opening]
        opened = [arm for arm in arms if arm.state == "opened"]
        if self.parts != [FINAL] or len(racing) + len(opened) < 2 or not self._short_of_time(racing + opened):
            return
        for name in [arm.name for arm in racing]:
            self._replan()
            arm = self.plan.arm(name)
            if arm.skipped or not arm.opening:
                continue
            self.save_arm(arm)
            self.listen(Phase("search", "opening", name))
            self._process("open", arm, FINAL)
            if name not in self.failed and not self.plan.arm(name).skipped:
                self.save_arm(replace(arm, state="opened"))
        scores = {arm.name: rows for arm in self.plan.arms if (rows := self._opening_scores(arm)) is not None}
        if len(scores) < 2:
            return
        behind = _behind(scores, self._valid_groups(len(next(iter(scores.values())))))
        waiting = behind or in_leaving_order(scores)[:1]
        for name in waiting:
            self.save_arm(replace(self.plan.arm(name), waits=True, behind=name in behind))
        shown = ", ".join(f"{name} {rows.mean():.3f}" for name, rows in scores.items())
        wait = f"{joined(waiting)} {'waits' if len(waiting) == 1 else 'wait'} for the others"
        self.listen(Note(f"after their openings the arms score on validation rows: {shown}; {wait}"))

    def _short_of_time(self, arms: Sequence[ArmPlan]) -> bool:
        """Whether an arm is planned for less than its recipe, or the one whose refit comes first has no time for it."""
        if any(arm.cut for arm in arms):
            return True
        refitted = [] if self.inputs.aside else in_refit_order(self.inputs, (arm.name for arm in arms))
        return bool(refitted) and not self.plan.arm(refitted[0]).refit

    def _opening_scores(self, arm: ArmPlan) -> np.ndarray | None:
        """The row scores (n,) of an opened arm; None if there are none."""
        path = self.folder.part(arm.name, FINAL) / SEARCH
        scores = Search.read(path).scores if arm.state == "opened" and path.exists() else None
        return np.array(scores) if scores else None

    def _revived(self, arm: ArmPlan, stopped: bool) -> ArmPlan:
        if arm.skipped and arm.state == "begun":  # stopped: it goes on where it was
            return replace(arm, skipped="") if stopped else arm
        if arm.skipped:
            return unplanned(arm.name)
        if arm.state != "begun" or not arm.cut:
            return arm
        has_openings = (self.folder.part(arm.name, FINAL) / OPENINGS).is_dir()
        return replace(arm, state="opened" if has_openings else "planned", waits=False, had=arm.steps)

    def _gains(self, before: ArmPlan, after: ArmPlan) -> bool:
        """Whether an arm as planned anew is worth running."""
        if after.skipped or after.state == "begun":
            return before.skipped != after.skipped == ""
        return before.skipped != "" or before.state != "begun" or is_worth(after)

    def set_aside(self, name: str) -> None:
        """Move what an arm has made into the folder BEFORE, before it goes on."""
        remove(self.folder.path / COMPARE)  # it is written again from the arms as they are then
        for run in (self.folder.path / "arms" / name).glob("*"):
            if run.name in self.parts:
                _move(run, run / BEFORE)
            else:  # an extra run, of the arm as it was
                remove(run)

    def keep_the_longer(self, arm: ArmPlan) -> None:
        """Remove the result of the arm's earlier run; if the new run failed, was stopped, has no more steps, or is no
        better on validation rows where it is longer than the recipe, bring it back."""
        now, folders = self.plan.arm(arm.name), [self.folder.part(arm.name, part) for part in self.parts]
        worse = bool(now.skipped) or arm.name in self.failed or now.steps <= arm.had
        if not worse and arm.had >= arm.recipe_steps:
            before, after = (Fit.read(folders[-1] / name) for name in (f"{BEFORE}/{FIT}", FIT))
            lost_refit = REFITTED in before.chosen and REFITTED not in after.chosen
            worse = lost_refit or _goodness(after) <= _goodness(before)
        for run in folders:
            if worse and (run / BEFORE).exists():
                for product in PRODUCTS:
                    remove(run / product)
                _move(run / BEFORE, run)
            remove(run / BEFORE)
        self.failed.pop(arm.name, None)
        if not worse:
            self._outdate(arm.name)
        self.save_arm(replace(now, skipped="", steps=arm.had, had=0) if worse else replace(now, had=0))

    def _outdate(self, name: str) -> None:
        """Plan those arms anew that have joined an earlier run of this one."""
        for arm in self._joining(name):
            if arm.state == "begun":
                remove(self.folder.path / "arms" / arm.name)
                self.save_arm(replace(unplanned(arm.name), seconds=arm.seconds, pace=arm.pace))

    def save_arm(self, arm: ArmPlan) -> None:
        """Save the plan with this arm in the place of the one of its name."""
        arms = tuple(arm if arm.name == other.name else other for other in self.plan.arms)
        self._save(replace(self.plan, arms=arms))

    def _save(self, plan: ComparisonPlan) -> None:
        if plan != self.plan:
            self.plan = plan
            self.folder.write("plan.json", plan)


def _goodness(fit: Fit) -> tuple[float, float]:
    """The score on validation rows, and of equal ones the negative loss."""
    return fit.valid_score or 0.0, -math.inf if fit.valid_loss is None else -fit.valid_loss


def _is_taught(arm: ArmPlan) -> bool:
    """Whether an arm's score on validation rows is by a teacher's answers, which says nothing beside the others'."""
    return method_of(arm.name).needs_teacher


def _move(source: Path, target: Path) -> None:
    """Move what an arm has made from one folder to another."""
    target.mkdir(exist_ok=True)
    for product in PRODUCTS:
        if (source / product).exists():
            (source / product).replace(target / product)


def planned_seconds(arm: ArmPlan) -> float:
    """Seconds that an arm is planned to take."""
    return sum(arm.seconds.values())


def _behind(scores: dict[str, np.ndarray], groups: np.ndarray | None) -> list[str]:
    """The arms whose row scores (n,) are below the best one's beyond chance; `groups` (n,) of the same rows."""
    best = max(scores, key=lambda name: float(scores[name].mean()))
    others = {name: rows for name, rows in scores.items() if name != best}
    return [name for name, rows in others.items() if paired_test(rows, scores[best], groups).p_value < ALPHA]


def is_worth(arm: ArmPlan) -> bool:
    """Whether a run of the arm's steps is worth more than the one that it had."""
    return arm.steps >= min(arm.recipe_steps, math.ceil(WORTH * arm.had))
