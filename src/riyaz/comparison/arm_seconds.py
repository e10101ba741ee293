"""The estimated seconds of an arm: those that do not depend on its training, those of a training of so many steps, and
the most steps that fit into given seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from riyaz.comparison.bases import method_of
from riyaz.comparison.speeds import Speeds
from riyaz.evaluate import LATENCY_ROWS, RETRIEVAL_ROWS
from riyaz.methods.fitting.base import ArmPlan
from riyaz.methods.fitting.recipe import Recipe, opening, refit_steps, search_rates, trains_opening
from riyaz.results import parted
from riyaz.scoring import REOPEN_ROWS

VALIDATIONS, BETWEEN = 6, 8  # validations of a final run, at most, and training steps between two, at least
LEAST_STEPS = 8  # an arm with fewer steps is left out, unless its recipe has no more
LATENCY_LEAST, LATENCY_SECONDS = 2, 20.0  # rows answered alone, at least; more of them while they take so many seconds
RETRIEVAL_LEAST, RETRIEVAL_SECONDS = 8, 60.0  # the same for rows on which retrieval is evaluated


@dataclass(frozen=True)
class Sizes:
    """Row counts; `parts` is how often every arm is fitted: 1, or with folds their number + 1."""

    train: int
    valid: int
    test: int
    parts: int = 1
    unlabelled: int = 0  # rows that a teacher alone has answered


@dataclass(frozen=True)
class PlanInputs:
    """The inputs of a plan that stay the same when it is made anew during the comparison."""

    methods: Mapping[str, Recipe | None]  # by the arm's name, as everything here; None: not trained
    speeds: Speeds
    sizes: Sizes
    seed: int
    aside: float = 0.0  # share of the training time that is kept for extra runs
    rate_of: Mapping[str, str] = field(default_factory=dict)  # whose learning rate an arm takes
    # arms whose methods the user did not name: those left out where not every recipe fits, and those that wait there
    optional: tuple[str, ...] = ()
    may_wait: tuple[str, ...] = ()
    seeds: int = 1  # with which every trained arm is trained, and scored

    def runs(self, name: str) -> int:
        """How often an arm is trained whole: with every seed, but once where folds train it several times anyway."""
        return self.seeds if self.methods[name] is not None and self.sizes.parts == 1 else 1


@dataclass(frozen=True)
class Training:
    """The training of an arm: its steps, and the learning rates whose openings are trained."""

    steps: int
    rates: tuple[float, ...]
    refit: bool = False  # whether it is trained once more, on all rows


def total(seconds: Mapping[str, float]) -> float:
    """The sum of an arm's seconds by part."""
    return sum(seconds.values())


def full_steps(inputs: PlanInputs, name: str) -> int:
    """The steps of an arm's full recipe; 0 if it trains nothing."""
    recipe = inputs.methods[name]
    return 0 if recipe is None else recipe.steps(learned_rows(inputs, name))


def learned_rows(inputs: PlanInputs, name: str) -> int:
    """The rows that an arm is trained on."""
    return inputs.sizes.train + (inputs.sizes.unlabelled if method_of(name).needs_teacher else 0)


def least_steps(inputs: PlanInputs, name: str) -> int:
    """The steps with fewer of which an arm is left out: LEAST_STEPS, or all where its recipe has fewer."""
    return min(LEAST_STEPS, full_steps(inputs, name))


def tried_rates(inputs: PlanInputs, name: str) -> tuple[float, ...]:
    """The learning rates that the full training tries: the default alone where it takes the rate of another arm."""
    recipe, full = inputs.methods[name], full_steps(inputs, name)
    assert recipe is not None
    return (recipe.default_rate,) if inputs.rate_of.get(name) in inputs.methods else search_rates(recipe, full, full)


def looked_rows(inputs: PlanInputs) -> tuple[int, int]:
    """(rows answered alone, rows on which retrieval is evaluated), as many as their time allows."""
    able = [speed for name, speed in inputs.speeds.predict.items() if name in inputs.methods]
    alone = max((speed.answer_seconds for speed in able), default=0.0)
    look = max((speed.look_seconds for speed in able), default=0.0)
    test = inputs.sizes.test
    return (
        _rows_within(LATENCY_SECONDS, alone, LATENCY_LEAST, min(LATENCY_ROWS, test)),
        _rows_within(RETRIEVAL_SECONDS, look, RETRIEVAL_LEAST, min(RETRIEVAL_ROWS, test)),
    )


def fixed_seconds(inputs: PlanInputs) -> dict[str, dict[str, float]]:
    """Seconds of every measured arm that do not depend on its steps: process starts, choices on validation rows,
    evaluation."""
    speeds, sizes = inputs.speeds, inputs.sizes
    latency_rows, looked = looked_rows(inputs)
    fixed = {}
    for name in inputs.methods:
        if name in speeds.unable:
            continue
        speed, method = speeds.predict[name], method_of(name)
        start = 2 * (speeds.start_seconds + speed.load_seconds) + (speeds.torch_seconds if method.trains else 0.0)
        answers = sizes.test * speed.row_seconds + latency_rows * speed.answer_seconds
        changes = method.about.weights != "none"
        base_runs = 0 if not method.about.language_model else 2 if changes else 1
        reopening = min(REOPEN_ROWS, sizes.valid) * sizes.parts * speed.loss_seconds
        base_seconds = (speeds.base_seconds_of or {}).get(parted(name)[1] or "", speeds.base_seconds)
        evaluation = answers + base_seconds * base_runs + looked * speed.look_seconds + reopening + speed.merge_seconds
        fit = speed.choose_seconds * sizes.parts
        fixed[name] = {"start": start * sizes.parts, "fit": fit, "evaluate": evaluation}
    return fixed


def _rows_within(seconds: float, each: float, least: int, most: int) -> int:
    """As many rows as fit into `seconds` when one takes `each` seconds, between `least` and `most`."""
    return min(most, max(least, int(seconds / each))) if each * most > seconds else most


def training_seconds(inputs: PlanInputs, name: str, run: Training, opened: ArmPlan | None) -> dict[str, float]:
    """Seconds of an arm's learning-rate search and training, with validations and model building; without those of an
    opening that is trained already."""
    speed, parts = inputs.speeds.arms[name], inputs.sizes.parts
    if run.steps < least_steps(inputs, name) and not opened:
        return {"search": 0.0, "train": 0.0}
    search, full = 0.0, full_steps(inputs, name)
    first = opening(run.steps, full)
    if first and not opened and trains_opening(run.rates, run.steps, full):
        rates = len(run.rates)
        search = rates * (speed.build_seconds + 2 * speed.validate_seconds)
        search += (rates - 1) * first * speed.step_seconds  # those of the chosen rate belong to the run
    left = run.steps - opened.opening if opened else run.steps
    validations = (validation_count(run.steps) + 1) * speed.validate_seconds
    train = left * speed.step_seconds + validations + speed.build_seconds
    if run.refit:
        again = refit_steps(learned_rows(inputs, name), inputs.sizes.valid, run.steps)
        train += again * speed.step_seconds + speed.build_seconds
    return {"search": search * parts, "train": train * parts}


def validation_count(steps: int) -> int:
    """How often a final run of so many steps is validated."""
    return max(1, min(VALIDATIONS, steps // BETWEEN))


def refit_seconds(inputs: PlanInputs, name: str, run: Training, opened: ArmPlan | None) -> float:
    """Seconds by which a refit lengthens a training."""
    once, twice = (training_seconds(inputs, name, replace(run, refit=refit), opened) for refit in (False, True))
    return total(twice) - total(once)


def refits_seconds(inputs: PlanInputs, able: Sequence[str]) -> float:
    """Seconds of the refits of these arms' whole recipes."""
    whole = {m: Training(full_steps(inputs, m), tried_rates(inputs, m)) for m in in_refit_order(inputs, able)}
    return sum(refit_seconds(inputs, name, run, None) for name, run in whole.items())


def in_refit_order(inputs: PlanInputs, methods: Iterable[str]) -> list[str]:
    """Those arms whose recipes have a refit; the one first that is left out last."""
    having = [name for name in methods if (recipe := inputs.methods[name]) is not None and recipe.refit]
    return sorted(having, key=lambda name: -method_of(name).left_out)


def affordable_steps(
    inputs: PlanInputs, name: str, rates: tuple[float, ...], seconds: float, opened: ArmPlan | None
) -> int:
    """The most steps, at most the full recipe, whose search among the rates and training fit into `seconds`."""

    def fits(steps: int) -> bool:
        return total(training_seconds(inputs, name, Training(steps, rates), opened)) <= seconds

    low, high = 0, full_steps(inputs, name)
    if fits(high):  # with one rate it may take less than a shorter run, which keeps its opening to be continued
        return high
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
