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
from riyaz.comparison.folder import DAMAGED
from riyaz.config import Seconds
from riyaz.errors import RiyazError, joined, shown
from riyaz.json_files import Keys, from_json, read_json
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import ArmPlan
from riyaz.methods.fitting.choices import VALID_ROWS
from riyaz.methods.fitting.recipe import opening, search_rates, trains_opening

RESERVE = 0.95  # share of the budget that is planned; the rest covers what was not measured
CHECKPOINT_SECONDS = 150.0  # between two checkpoints; one of a fully fine-tuned model takes seconds to write
NEARLY = 0.95  # share of a recipe's steps from which it is trained whole: the reserve covers the rest
LEAST_ARMS = 2  # fewer compare nothing
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

    def arm(self, method: str) -> ArmPlan:
        """The plan of one arm."""
        for arm in self.arms:
            if arm.method == method:
                return arm
        raise RiyazError(f"the plan has no arm {method}", "plan.json", DAMAGED)

    @classmethod
    def read(cls, path: Path) -> "ComparisonPlan":
        """The plan in a plan.json. Raises RiyazError naming the place that is wrong."""
        plan = from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED)
        strange = [arm.method for arm in plan.arms if arm.method not in METHODS]  # it names a folder
        if strange:
            raise RiyazError(f"{shown(strange[0])} is not a method", str(path), DAMAGED)
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
    before = {arm.method: arm for arm in earlier.arms} if earlier else {}
    fixed = {method: arm for method, arm in before.items() if arm.state == "begun" or arm.skipped}
    able = [method for method in inputs.methods if method not in fixed and method not in inputs.speeds.unable]
    pace = _pace(fixed.values())
    left = (budget * RESERVE - spent) / pace  # by the speeds measured at first
    if not earlier and inputs.optional and not _all_whole(inputs, able, left - refits_seconds(inputs, able)):
        able = [method for method in able if method not in inputs.optional]
    waiting = _waiting(inputs, able, before, left, QUICK * budget / pace)
    able = [method for method in able if method not in waiting]
    running = _fitting(inputs, able, before, left) if leave_out else able
    steps = _steps(inputs, running, before, left)
    if not earlier and (steps is None or len(running) < min(LEAST_ARMS, len(able))):
        raise _too_short(inputs, able, budget, spent)
    seconds, arms = fixed_seconds(inputs), []
    rest = left - sum(total(seconds[method]) for method in running)
    tried = sum(seconds[method]["start"] + seconds[method]["fit"] for method in waiting)  # their choices, at least
    steps = steps and _with_refits(inputs, steps, before, rest - tried)
    for method in inputs.methods:
        if method in fixed:
            arms.append(fixed[method])
        elif method in waiting:
            arms.append(ArmPlan(method, _times(seconds[method], pace), waits=True, pace=pace))
        elif method not in running:
            arms.append(_skipped(inputs, method, able, earlier))
        elif inputs.methods[method] is None:
            arms.append(ArmPlan(method, _times(seconds[method], pace), pace=pace))
        else:
            arms.append(_trained_arm(inputs, method, (steps or {})[method], seconds[method], pace, before.get(method)))
    planned = [arm for arm in arms if arm.method in running]
    spare = left * pace / max(1e-9, sum(total(arm.seconds) for arm in planned))
    limited = {arm.method: _with_limit(arm, max(1.0, spare), inputs.sizes.parts) for arm in planned if arm.steps}
    arms = [limited.get(arm.method, arm) for arm in arms]
    return _plan(inputs, tuple(arms), spent, budget, earlier)


def _waiting(
    inputs: PlanInputs, able: Sequence[str], before: Mapping[str, ArmPlan], left: float, quick: float
) -> list[str]:
    """The methods that train nothing, take more than `quick` seconds and keep others from their whole recipes; none if
    fewer than LEAST_ARMS would not wait. For the recipe of an arm that waits itself no other begins to wait."""
    seconds = {method: total(each) for method, each in fixed_seconds(inputs).items()}
    slow = [method for method in able if method in inputs.may_wait and seconds[method] > quick]
    slow = [method for method in slow if inputs.methods[method] is None]
    if not slow or (len(able) - len(slow) < LEAST_ARMS and not before):
        return []
    steps, held = _steps(inputs, able, before, left), {method for method, arm in before.items() if arm.waits}
    cut = {method for method, run in (steps or {}).items() if run.steps < full_steps(inputs, method)}
    if steps is None or cut - held:
        return slow
    return [method for method in slow if method in held] if cut else []


def _with_limit(arm: ArmPlan, spare: float, parts: int) -> ArmPlan:
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


def _skipped(inputs: PlanInputs, method: str, able: Sequence[str], earlier: "ComparisonPlan | None") -> ArmPlan:
    """An arm that does not run, and why. It counts as no better than the others if it cannot run, or if the user has
    not asked for it: no measured comparison has been won by an optional method."""
    why = _why_out(inputs, method, able, earlier)
    unable, optional = method in inputs.speeds.unable, method in inputs.optional
    ruled_out = "it cannot run" if unable else "it is optional" if optional else ""
    return ArmPlan(method, recipe_steps=full_steps(inputs, method), skipped=why, ruled_out=ruled_out)


def _fitting(inputs: PlanInputs, able: Sequence[str], before: Mapping[str, ArmPlan], left: float) -> list[str]:
    """The methods that fit into `left` seconds: arms are left out in their order until the rest fits, and those
    that then fit beside it are taken in again, but none without those that it joins."""
    running = list(able)
    out = sorted(able, key=lambda method: METHODS[method].left_out)
    while running and _steps(inputs, running, before, left) is None:
        running.remove(out[len(able) - len(running)])
    for method in reversed(out[: len(able) - len(running)]):
        if _steps(inputs, [*running, method], before, left) is not None:
            running.append(method)
    done = {method for method, arm in before.items() if arm.state == "begun" and not arm.skipped}
    absent = inputs.methods.keys() - done - {*running}
    return [method for method in running if not absent & {*METHODS[method].of}]


def _steps(
    inputs: PlanInputs, running: Sequence[str], before: Mapping[str, ArmPlan], left: float
) -> dict[str, Training] | None:
    """Training steps of the arms that are trained, if all of `running` fit into `left` seconds; None if evaluating them
    does not fit, or leaves one fewer than LEAST_STEPS."""
    fixed = fixed_seconds(inputs)
    left -= sum(total(fixed[method]) for method in running)
    if left < 0:
        return None
    trained = [method for method in running if inputs.methods[method] is not None]
    steps = _divided(inputs, trained, before, left)
    opened = {method for method, arm in before.items() if arm.state == "opened"}
    enough = all(steps[method].steps >= least_steps(inputs, method) or method in opened for method in steps)
    return steps if enough else None


def _with_refits(
    inputs: PlanInputs, runs: Mapping[str, Training], before: Mapping[str, ArmPlan], left: float
) -> dict[str, Training]:
    """The trainings of whole recipes, with refits as far as the seconds last that all arms leave of `left`, those arms
    first that are left out last. No refits if extra runs with other numbers of rows are to be compared with these."""
    if inputs.aside or any(run.steps < full_steps(inputs, method) for method, run in runs.items()):
        return dict(runs)
    opened = {method: arm for method, arm in before.items() if arm.state == "opened"}
    left -= sum(total(training_seconds(inputs, method, run, opened.get(method))) for method, run in runs.items())
    granted = dict(runs)
    for method in in_refit_order(inputs, (method for method in runs if not runs[method].refit)):
        more = refit_seconds(inputs, method, runs[method], opened.get(method))
        if more <= left:
            granted[method], left = replace(runs[method], refit=True), left - more
    return granted


def _why_out(inputs: PlanInputs, method: str, able: Sequence[str], earlier: "ComparisonPlan | None") -> str:
    if method in inputs.speeds.unable:
        return inputs.speeds.unable[method]
    for part in METHODS[method].of:
        if part in inputs.speeds.unable:
            return f"it joins {joined(METHODS[method].of)}; {part}: {inputs.speeds.unable[part]}"
    if method not in able:
        return f"not every recipe fits the budget; raise --budget, or name {method} with --methods"
    return "no time was left for it; --more continues" if earlier else "the budget is too short for it; raise --budget"


def _all_whole(inputs: PlanInputs, able: Sequence[str], left: float) -> bool:
    """Whether every arm's full recipe fits into `left` seconds of a first plan."""
    steps = _steps(inputs, able, {}, left)
    return steps is not None and all(steps[method].steps == full_steps(inputs, method) for method in steps)


def _plan(
    inputs: PlanInputs, arms: tuple[ArmPlan, ...], spent: float, budget: float, earlier: "ComparisonPlan | None"
) -> ComparisonPlan:
    if earlier:
        return replace(earlier, arms=arms)
    speeds, latency_rows, looked = inputs.speeds, *looked_rows(inputs)
    running = [arm for arm in arms if not arm.skipped]
    needs = [(speeds.arms if arm.steps else speeds.predict)[arm.method] for arm in running]
    return ComparisonPlan(
        seed=inputs.seed,
        threads=speeds.threads,
        compute=speeds.compute,
        arms=arms,
        valid_rows=min(VALID_ROWS, inputs.sizes.valid),
        latency_rows=latency_rows,
        looked=looked,
        estimate={
            "seconds": _estimate(arms, spent, budget),
            "peak_rss_mb": max([speeds.rss_mb, *(need.rss_mb for need in needs)]),
            "disk_mb": sum(need.disk_mb for need in needs) + 5.0,
        },
    )


def _estimate(arms: Iterable[ArmPlan], spent: float, budget: float) -> float:
    """Seconds of the whole command, with those of the waiting arms that fit the budget."""
    seconds = spent + sum(total(arm.seconds) for arm in arms if not arm.waits)
    for more in sorted(total(arm.seconds) for arm in arms if arm.waits):
        seconds += more if seconds + more <= budget * RESERVE else 0.0
    return seconds


def _too_short(inputs: PlanInputs, able: Sequence[str], budget: float, spent: float) -> "TooShort":
    """The refusal of a budget in which fewer than LEAST_ARMS arms fit; one with the named budget fits those that are
    left out last."""
    last = sorted(able, key=lambda method: METHODS[method].left_out)[-LEAST_ARMS:]
    share = {method: recipe.share for method in last if (recipe := inputs.methods[method]) is not None}
    # too few steps to compare rates
    shortest = {method: Training(least_steps(inputs, method), (0.0,)) for method in share}
    least = [total(training_seconds(inputs, method, shortest[method], None)) / share[method] for method in share]
    seconds = sum(total(fixed_seconds(inputs)[method]) for method in last)
    seconds += max(least, default=0.0) * (sum(share.values()) + inputs.aside)  # as `_divided` shares it
    need = math.ceil((seconds + spent) / RESERVE / 10) * 10
    work = "training and evaluating" if share else "evaluating"
    return TooShort(
        f"{work} {' and '.join(last)} on {inputs.sizes.test} test rows takes about {need} s",
        f"--budget {budget:.0f}s",
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
    needs = {m: total(training_seconds(inputs, m, whole[m], opened.get(m))) / max(1, share[m]) for m in trained}
    shares, rest = sum(share.values()) + inputs.aside, left
    runs: dict[str, Training] = {}
    for method in sorted(trained, key=lambda m: (m in waiting, needs[m])):
        if method in waiting:
            others = (waiting & opened.keys()) - runs.keys()
            least = {m: Training(opened[m].opening, opened[m].learning_rates) for m in others}
            kept = {m: total(training_seconds(inputs, m, run, opened[m])) for m, run in least.items()}
            runs = _with_refits(inputs, runs, before, left - sum(kept.values()))
            rest = left - sum(total(training_seconds(inputs, m, run, opened.get(m))) for m, run in runs.items())
            rest -= sum(seconds for m, seconds in kept.items() if m != method)
        mine = rest if method in waiting else rest * share[method] / shares
        shares -= share[method]
        runs[method] = _run_within(inputs, method, mine, opened.get(method))
        rest -= total(training_seconds(inputs, method, runs[method], opened.get(method)))
    return runs


def _run_within(inputs: PlanInputs, method: str, seconds: float, opened: ArmPlan | None) -> Training:
    """The longest training that fits into `seconds`, at most the full recipe: with all learning rates, or with the
    default alone where these would leave too few steps to compare them."""
    recipe, full = inputs.methods[method], full_steps(inputs, method)
    assert recipe is not None
    rates = opened.learning_rates if opened else tried_rates(inputs, method)
    steps = affordable_steps(inputs, method, rates, seconds, opened)
    if not opened and len(rates) > 1 and search_rates(recipe, steps, full) != rates:
        rates = (recipe.default_rate,)
        steps = affordable_steps(inputs, method, rates, seconds, opened)
    least = opened.opening if opened else 0  # these steps are trained
    return Training(full if steps >= NEARLY * full else max(least, steps), rates)


def _trained_arm(
    inputs: PlanInputs, method: str, run: Training, fixed: dict[str, float], pace: float, before: ArmPlan | None
) -> ArmPlan:
    recipe, speed, full = inputs.methods[method], inputs.speeds.arms[method], full_steps(inputs, method)
    assert recipe is not None
    opened = before if before and before.state == "opened" else None
    return ArmPlan(
        method,
        _times(fixed | training_seconds(inputs, method, run, opened), pace),
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
    )
