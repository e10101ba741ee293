"""The plan of a comparison: which arms run, which wait, and the training steps of the trained ones.

`make_plan` is a pure function of speeds, row counts and the budget. `plan.json` holds its result: a comparison that
is continued from there takes the same steps with the same learning rates, however fast the machine is then.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from riyaz.comparison.arm_seconds import (
    PlanInputs,
    Training,
    affordable_steps,
    fixed_seconds,
    full_steps,
    in_refit_order,
    least_steps,
    looked_rows,
    refit_seconds,
    refits_seconds,
    total,
    training_seconds,
    tried_rates,
    validation_count,
)
from riyaz.comparison.bases import in_leaving_order, parts_of, unplanned
from riyaz.comparison.folder import DAMAGED
from riyaz.config import Seconds
from riyaz.errors import RiyazError, joined, shown
from riyaz.files import is_bare
from riyaz.json_files import Keys
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import VALID_ROWS, ArmPlan
from riyaz.methods.fitting.recipe import opening, search_rates, trains_opening
from riyaz.results import parted
from riyaz.results.documents import read_document

RESERVE = 0.95  # share of the budget that is planned; the rest covers what was not measured
CHECKPOINT_SECONDS = 150.0  # between two checkpoints; one of a fully fine-tuned model takes seconds to write
NEARLY = 0.95  # share of a recipe's steps from which it is trained whole: the reserve covers the rest
LEAST_ARMS = 2  # fewer compare nothing
MORE = "; --more continues"  # behind why an arm was skipped that could go on
NOT_NAMED = "it is optional"  # why an arm counts as no better than the others unless it was measured near them
PACE_SECONDS = 10.0  # of ended arms, after which their pace counts
# Share of the budget. An arm that takes less runs before those that take more; one that trains nothing and takes more
# runs after the trained ones, in the time that they leave: answers of 500 ms are seldom worth a training's steps.
QUICK = 0.15


class TooShort(RiyazError):
    """The budget is too short for the evaluation alone."""


Needs = Annotated[dict[str, float], Keys(seconds=float, peak_rss_mb=float, disk_mb=float)]


@dataclass(frozen=True)
class ComparisonPlan:
    """plan.json: the settings of a comparison that were derived from the budget and the speeds."""

    seed: int
    threads: int
    compute: Literal["bfloat16", "float32"]
    arms: tuple[ArmPlan, ...]
    valid_rows: int  # on which candidates are compared
    latency_rows: int  # answered alone
    looked: int  # test rows on which retrieval is evaluated
    estimate: Needs  # of the whole command, measuring included
    folds: bool = True  # whether a small data set is tested in folds
    limit_test: int | None = None  # most test rows
    format: Literal[1] = 1

    def arm(self, name: str) -> ArmPlan:
        """The plan of the arm of this name."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise RiyazError(f"the plan has no arm {name}", "plan.json", DAMAGED)

    @classmethod
    def read(cls, path: Path) -> "ComparisonPlan":
        """The plan in a plan.json. Raises RiyazError naming the place that is wrong."""
        plan = read_document(cls, path, DAMAGED)
        strange = [arm.name for arm in plan.arms if arm.method not in METHODS or not is_bare(arm.name)]
        if strange:  # it names a folder
            raise RiyazError(f"{shown(strange[0])} is not the name of an arm", str(path), DAMAGED)
        return plan


def make_plan(
    inputs: PlanInputs, *, budget: float, spent: float, earlier: "ComparisonPlan | None" = None, leave_out: bool = True
) -> ComparisonPlan:
    """Reserve time for evaluation and divide the rest of `budget` seconds over the trained arms by their shares.

    `spent` is the time since the command began. Arms that have begun in the plan `earlier` stay as they are; the others
    are planned anew, slower or faster by the pace of those that have ended. An arm that needs less than its share
    leaves the rest to the others; one that could not be measured is skipped. Where not every recipe fits, arms that
    train nothing and take long wait for what the others leave. Where not every other arm can be evaluated and trained
    for LEAST_STEPS, arms are left out in their order, if `leave_out`. Raises TooShort when the arms do not fit, or
    fewer than LEAST_ARMS.
    """
    before = {arm.name: arm for arm in earlier.arms} if earlier else {}
    fixed = {name: arm for name, arm in before.items() if arm.state == "begun" or arm.skipped}
    able = [name for name in inputs.methods if name not in fixed and name not in inputs.speeds.unable]
    pace = _pace(fixed.values())
    left = (budget * RESERVE - spent) / pace  # by the speeds measured at first
    left -= sum((inputs.runs(name) - 1) * total(arm.seconds) / arm.pace for name, arm in fixed.items())  # other seeds
    if not earlier and inputs.optional and not _all_whole(inputs, able, left - refits_seconds(inputs, able)):
        able = [name for name in able if name not in inputs.optional]
    waiting = _waiting(inputs, able, before, left, QUICK * budget / pace)
    able = [name for name in able if name not in waiting]
    running = _fitting(inputs, able, before, left) if leave_out else able
    steps = _steps(inputs, running, before, left)
    if not earlier and (steps is None or len(running) < min(LEAST_ARMS, len(able))):
        raise _too_short(inputs, able, budget, spent)
    seconds, arms = fixed_seconds(inputs), []
    rest = left - sum(inputs.runs(name) * total(seconds[name]) for name in running)
    tried = sum(seconds[name]["start"] + seconds[name]["fit"] for name in waiting)  # their choices, at least
    steps = steps and _with_refits(inputs, steps, before, rest - tried)
    for name in inputs.methods:
        if name in fixed:
            arms.append(fixed[name])
        elif name in waiting:
            arms.append(replace(unplanned(name), seconds=_times(seconds[name], pace), waits=True, pace=pace))
        elif name not in running:
            arms.append(_skipped(inputs, name, able, earlier))
        elif inputs.methods[name] is None:
            arms.append(replace(unplanned(name), seconds=_times(seconds[name], pace), pace=pace))
        else:
            arms.append(_trained_arm(inputs, name, (steps or {})[name], seconds[name], pace, before.get(name)))
    planned = [arm for arm in arms if arm.name in running]
    spare = left * pace / max(1e-9, sum(inputs.runs(arm.name) * total(arm.seconds) for arm in planned))
    limited = {arm.name: with_limit(arm, max(1.0, spare), inputs.sizes.parts) for arm in planned if arm.steps}
    arms = [limited.get(arm.name, arm) for arm in arms]
    return _plan(inputs, tuple(arms), spent, budget, earlier)


def _waiting(
    inputs: PlanInputs, able: Sequence[str], before: Mapping[str, ArmPlan], left: float, quick: float
) -> list[str]:
    """The arms that train nothing, take more than `quick` seconds and keep others from their whole recipes; none if
    fewer than LEAST_ARMS would not wait. For the recipe of an arm that waits itself no other begins to wait."""
    seconds = {name: total(each) for name, each in fixed_seconds(inputs).items()}
    slow = [name for name in able if name in inputs.may_wait and seconds[name] > quick]
    slow = [name for name in slow if inputs.methods[name] is None]
    if not slow or (len(able) - len(slow) < LEAST_ARMS and not before):
        return []
    steps, held = _steps(inputs, able, before, left), {name for name, arm in before.items() if arm.waits}
    cut = {name for name, run in (steps or {}).items() if run.steps < full_steps(inputs, name)}
    if steps is None or cut - held:
        return slow
    return [name for name in slow if name in held] if cut else []


def with_limit(arm: ArmPlan, spare: float, parts: int) -> ArmPlan:
    """The arm with the seconds that its steps after the opening may take: as planned, and its share of the time that no
    arm is planned to take, which is `spare` times that."""
    after = arm.seconds["fit"] + arm.seconds["evaluate"]
    first = arm.opening * arm.step_seconds * parts if _opens(arm) else 0.0  # of the chosen rate, trained before the run
    limit = arm.seconds["train"] - first + (spare - 1) * total(arm.seconds)
    return replace(arm, train_limit=limit / parts, after_seconds=after / parts)


def _opens(arm: ArmPlan) -> bool:
    """Whether the time of the arm's training holds that of an opening."""
    trains = trains_opening(arm.learning_rates, arm.steps, arm.recipe_steps)
    return bool(arm.opening) and arm.state != "opened" and trains


def _skipped(inputs: PlanInputs, name: str, able: Sequence[str], earlier: "ComparisonPlan | None") -> ArmPlan:
    """An arm that does not run, and why. It counts as no better than the others if it cannot run, or if the user has
    not asked for it: no measured comparison has been won by an optional method."""
    why = _why_out(inputs, name, able, earlier)
    unable, optional = name in inputs.speeds.unable, name in inputs.optional
    ruled_out = "it cannot run" if unable else NOT_NAMED if optional else ""
    return replace(unplanned(name), recipe_steps=full_steps(inputs, name), skipped=why, ruled_out=ruled_out)


def _fitting(inputs: PlanInputs, able: Sequence[str], before: Mapping[str, ArmPlan], left: float) -> list[str]:
    """The arms that fit into `left` seconds: arms are left out in their order until the rest fits, and those
    that then fit beside it are taken in again, but none without those that it joins."""
    running = list(able)
    out = in_leaving_order(able)
    while running and _steps(inputs, running, before, left) is None:
        running.remove(out[len(able) - len(running)])
    for name in reversed(out[: len(able) - len(running)]):
        if _steps(inputs, [*running, name], before, left) is not None:
            running.append(name)
    done = {name for name, arm in before.items() if arm.state == "begun" and not arm.skipped}
    absent = inputs.methods.keys() - done - {*running}
    return [name for name in running if not absent & {*parts_of(name)}]


def _steps(
    inputs: PlanInputs, running: Sequence[str], before: Mapping[str, ArmPlan], left: float
) -> dict[str, Training] | None:
    """Training steps of the arms that are trained, if all of `running` fit into `left` seconds; None if evaluating them
    does not fit, or leaves one fewer than LEAST_STEPS."""
    fixed = fixed_seconds(inputs)
    left -= sum(inputs.runs(name) * total(fixed[name]) for name in running)
    if left < 0:
        return None
    trained = [name for name in running if inputs.methods[name] is not None]
    steps = _divided(inputs, trained, before, left)
    opened = {name for name, arm in before.items() if arm.state == "opened"}
    enough = all(steps[name].steps >= least_steps(inputs, name) or name in opened for name in steps)
    return steps if enough else None


def _with_refits(
    inputs: PlanInputs, runs: Mapping[str, Training], before: Mapping[str, ArmPlan], left: float
) -> dict[str, Training]:
    """The trainings of whole recipes, with refits as far as the seconds last that all arms leave of `left`, those arms
    first that are left out last. No refits if extra runs with other numbers of rows are to be compared with these."""
    if inputs.aside or any(run.steps < full_steps(inputs, name) for name, run in runs.items()):
        return dict(runs)
    opened = {name: arm for name, arm in before.items() if arm.state == "opened"}
    left -= sum(_all_seconds(inputs, name, run, opened.get(name)) for name, run in runs.items())
    granted = dict(runs)
    for name in in_refit_order(inputs, (name for name in runs if not runs[name].refit)):
        more = inputs.runs(name) * refit_seconds(inputs, name, runs[name], opened.get(name))
        if more <= left:
            granted[name], left = replace(runs[name], refit=True), left - more
    return granted


def _why_out(inputs: PlanInputs, name: str, able: Sequence[str], earlier: "ComparisonPlan | None") -> str:
    if name in inputs.speeds.unable:
        return inputs.speeds.unable[name]
    for part in parts_of(name):
        if part in inputs.speeds.unable:
            return f"it joins {joined(parts_of(name))}; {part}: {inputs.speeds.unable[part]}"
    if name not in able:
        return f"not every recipe fits the budget; raise --budget, or name {parted(name)[0]} with --methods"
    return f"no time was left for it{MORE}" if earlier else "the budget is too short for it; raise --budget"


def _all_whole(inputs: PlanInputs, able: Sequence[str], left: float) -> bool:
    """Whether every arm's full recipe fits into `left` seconds of a first plan."""
    steps = _steps(inputs, able, {}, left)
    return steps is not None and all(steps[name].steps == full_steps(inputs, name) for name in steps)


def _plan(
    inputs: PlanInputs, arms: tuple[ArmPlan, ...], spent: float, budget: float, earlier: "ComparisonPlan | None"
) -> ComparisonPlan:
    if earlier:
        return replace(earlier, arms=arms)
    speeds, latency_rows, looked = inputs.speeds, *looked_rows(inputs)
    running = [arm for arm in arms if not arm.skipped]
    needs = [(speeds.arms if arm.steps else speeds.predict)[arm.name] for arm in running]
    return ComparisonPlan(
        seed=inputs.seed,
        threads=speeds.threads,
        compute=speeds.compute,
        arms=arms,
        valid_rows=min(VALID_ROWS, inputs.sizes.valid),
        latency_rows=latency_rows,
        looked=looked,
        estimate={
            "seconds": _estimate(inputs, arms, spent, budget),
            "peak_rss_mb": max([speeds.rss_mb, *(need.rss_mb for need in needs)]),
            "disk_mb": sum(need.disk_mb for need in needs) + 5.0,
        },
    )


def _all_seconds(inputs: PlanInputs, name: str, run: Training, opened: ArmPlan | None) -> float:
    """Seconds of an arm's search and training, with every seed."""
    return inputs.runs(name) * total(training_seconds(inputs, name, run, opened))


def _estimate(inputs: PlanInputs, arms: Iterable[ArmPlan], spent: float, budget: float) -> float:
    """Seconds of the whole command, with those of the waiting arms that fit the budget."""
    seconds = spent + sum(inputs.runs(arm.name) * total(arm.seconds) for arm in arms if not arm.waits)
    for more in sorted(total(arm.seconds) for arm in arms if arm.waits):
        seconds += more if seconds + more <= budget * RESERVE else 0.0
    return seconds


def _too_short(inputs: PlanInputs, able: Sequence[str], budget: float, spent: float) -> "TooShort":
    """The refusal of a budget in which fewer than LEAST_ARMS arms fit; one with the named budget fits those that are
    left out last."""
    last = in_leaving_order(able)[-LEAST_ARMS:]
    share = {name: recipe.share for name in last if (recipe := inputs.methods[name]) is not None}
    # too few steps to compare rates
    shortest = {name: Training(least_steps(inputs, name), (0.0,)) for name in share}
    least = [total(training_seconds(inputs, name, shortest[name], None)) / share[name] for name in share]
    seconds = sum(total(fixed_seconds(inputs)[name]) for name in last)
    seconds += max(least, default=0.0) * (sum(share.values()) + inputs.aside)  # as `_divided` shares it
    need = math.ceil((seconds + spent) / RESERVE / 10) * 10
    work = "training and evaluating" if share else "evaluating"
    return TooShort(
        f"{work} {' and '.join(last)} on {inputs.sizes.test} test rows takes about {Seconds(need)}",
        f"--budget {Seconds(round(budget))}",
        f"give --budget {Seconds(need)}",
    )


def _times(seconds: Mapping[str, float], pace: float) -> dict[str, float]:
    return {part: value * pace for part, value in seconds.items()}


def _pace(arms: Iterable[ArmPlan]) -> float:
    """Seconds that the ended arms took / seconds by the speeds measured at first; 1 before enough was seen."""
    ended = [arm for arm in arms if arm.took]
    expected = sum(total(arm.seconds) / arm.pace for arm in ended)
    return sum(arm.took for arm in ended) / expected if expected > PACE_SECONDS else 1.0


def _divided(
    inputs: PlanInputs, trained: Sequence[str], before: Mapping[str, ArmPlan], left: float
) -> dict[str, Training]:
    """The training of every arm within `left` seconds: the arm that needs least for its share comes first, and one that
    waits last, after the refits of those before it."""
    waiting = {m for m in trained if m in before and before[m].waits}
    opened = {m: before[m] for m in trained if m in before and before[m].state == "opened"}
    share = {m: 0 if m in waiting else recipe.share for m in trained if (recipe := inputs.methods[m]) is not None}
    whole = {m: Training(full_steps(inputs, m), tried_rates(inputs, m)) for m in trained}
    needs = {m: _all_seconds(inputs, m, whole[m], opened.get(m)) / max(1, share[m]) for m in trained}
    shares, rest = sum(share.values()) + inputs.aside, left
    runs: dict[str, Training] = {}
    for name in sorted(trained, key=lambda m: (m in waiting, needs[m])):
        if name in waiting:
            others = (waiting & opened.keys()) - runs.keys()
            least = {m: Training(opened[m].opening, opened[m].learning_rates) for m in others}
            kept = {m: _all_seconds(inputs, m, run, opened[m]) for m, run in least.items()}
            runs = _with_refits(inputs, runs, before, left - sum(kept.values()))
            rest = left - sum(_all_seconds(inputs, m, run, opened.get(m)) for m, run in runs.items())
            rest -= sum(seconds for m, seconds in kept.items() if m != name)
        mine = rest if name in waiting else rest * share[name] / shares
        shares -= share[name]
        runs[name] = _run_within(inputs, name, mine / inputs.runs(name), opened.get(name))
        rest -= _all_seconds(inputs, name, runs[name], opened.get(name))
    return runs


def _run_within(inputs: PlanInputs, name: str, seconds: float, opened: ArmPlan | None) -> Training:
    """The longest training that fits into `seconds`, at most the full recipe: with all learning rates, or with the
    default alone where these would leave too few steps to compare them."""
    recipe, full = inputs.methods[name], full_steps(inputs, name)
    assert recipe is not None
    rates = opened.learning_rates if opened else tried_rates(inputs, name)
    steps = affordable_steps(inputs, name, rates, seconds, opened)
    if not opened and len(rates) > 1 and search_rates(recipe, steps, full) != rates:
        rates = (recipe.default_rate,)
        steps = affordable_steps(inputs, name, rates, seconds, opened)
    least = opened.opening if opened else 0  # these steps are trained
    return Training(full if steps >= NEARLY * full else max(least, steps), rates)


def _trained_arm(
    inputs: PlanInputs, name: str, run: Training, fixed: dict[str, float], pace: float, before: ArmPlan | None
) -> ArmPlan:
    recipe, speed, full = inputs.methods[name], inputs.speeds.arms[name], full_steps(inputs, name)
    assert recipe is not None
    opened = before if before and before.state == "opened" else None
    return replace(
        unplanned(name),
        seconds=_times(fixed | training_seconds(inputs, name, run, opened), pace),
        steps=run.steps,
        recipe_steps=full,
        batch_size=recipe.batch_size,
        learning_rates=run.rates,
        opening=opened.opening if opened else opening(run.steps, full),
        validate_every=max(1, run.steps // validation_count(run.steps)),
        checkpoint_every=max(1, round(CHECKPOINT_SECONDS / speed.step_seconds)),
        state="opened" if opened else "planned",
        waits=opened.waits if opened else False,
        behind=opened.behind if opened else False,
        step_seconds=speed.step_seconds * pace,
        refit=run.refit,
        had=before.had if before else 0,
        pace=pace,
        ruled_out=NOT_NAMED if name in inputs.optional else "",
    )
