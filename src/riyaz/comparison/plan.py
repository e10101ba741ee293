"""The plan of a comparison: estimated seconds of every arm and training steps of the trained ones.

`make` is a pure function of speeds, row counts and the budget. Its result is kept in `plan.json`: a comparison that
is continued from there takes the same steps with the same learning rates, however fast the machine is then.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from riyaz.comparison.folder import DAMAGED
from riyaz.comparison.speeds import Speeds, TrainSpeed
from riyaz.errors import RiyazError
from riyaz.evaluate import LATENCY_ROWS, RETRIEVAL_ROWS
from riyaz.files import Keys, from_json, read_json
from riyaz.methods.base import ArmPlan
from riyaz.methods.recipe import Recipe, rungs, search_rates, search_steps
from riyaz.scoring import REOPEN_ROWS

RESERVE = 0.95  # share of the budget that is planned; the rest covers what was not measured
VALIDATIONS, BETWEEN = 6, 8  # validations of a final run, at most, and training steps between two, at least
VALID_ROWS = (64, 32, 16)  # validation rows on which candidates are compared, tried in this order until time is enough
FIXED_SHARE = 0.5  # share of the budget that choosing and evaluating may take; above it fewer validation rows are used
START_SECONDS = 6.0  # of the two processes of an arm, which import torch
CHECKPOINT_SECONDS = 150.0  # between two checkpoints; one of a fully fine-tuned model takes seconds to write
LEAST_STEPS = 8  # an arm with fewer steps is skipped
LATENCY_LEAST, LATENCY_SECONDS = 2, 20.0  # rows answered alone, at least; more of them while they take so many seconds
RETRIEVAL_LEAST, RETRIEVAL_SECONDS = 8, 60.0  # the same for rows on which retrieval is evaluated


class TooShort(RiyazError):
    """The budget is too short for the evaluation alone."""


@dataclass(frozen=True)
class Sizes:
    """Row counts; `parts` is how often every arm is fitted: 1, or with folds their number + 1."""

    train: int
    valid: int
    test: int
    parts: int = 1


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
        document = read_json(path, DAMAGED)
        if isinstance(document, dict):
            document.pop("spent_seconds", None)  # written by older versions
        return from_json(cls, document, str(path), DAMAGED)


def make(
    methods: Mapping[str, Recipe | None],
    speeds: Speeds,
    sizes: Sizes,
    *,
    budget: float,
    spent: float,
    seed: int,
    aside: float = 0.0,
) -> ComparisonPlan:
    """Reserve time for evaluation and divide the rest of `budget` seconds over the trained arms by their shares.

    `methods` gives each method its recipe (None: not trained), `spent` the seconds that measuring took, `aside` the
    share kept for extra runs. An arm that needs less than its share leaves the rest to the others; one that could not
    be measured is skipped. Raises TooShort when evaluation alone does not fit.
    """
    able = {method: recipe for method, recipe in methods.items() if method not in speeds.unable}
    answer_seconds = max((speeds.predict[method].answer_seconds for method in able), default=0.0)
    latency_rows = _rows_within(LATENCY_SECONDS, answer_seconds, LATENCY_LEAST, min(LATENCY_ROWS, sizes.test))
    look_seconds = max((speeds.predict[method].look_seconds for method in able), default=0.0)
    looked = _rows_within(RETRIEVAL_SECONDS, look_seconds, RETRIEVAL_LEAST, min(RETRIEVAL_ROWS, sizes.test))
    for valid_rows in VALID_ROWS:
        valid_rows = min(valid_rows, sizes.valid)
        fixed = {m: _fixed_seconds(m, r, speeds, sizes, valid_rows, latency_rows, looked) for m, r in able.items()}
        reserved = sum(sum(seconds.values()) for seconds in fixed.values())
        if reserved <= FIXED_SHARE * budget:
            break
    left = budget * RESERVE - spent - reserved
    trained = {method: recipe for method, recipe in able.items() if recipe is not None}
    if left < 0:
        need = (reserved + spent) / RESERVE
        raise TooShort(
            f"evaluating {len(able)} methods on {sizes.test} test rows takes about {need:.0f} s",
            f"--budget {budget:.0f}s",
            "raise --budget, or name fewer --methods",
        )
    full = {method: recipe.steps(sizes.train) for method, recipe in trained.items()}
    steps = _divided(trained, full, speeds, sizes, left, aside)
    arms = tuple(
        ArmPlan(method, skipped=speeds.unable[method])
        if method in speeds.unable
        else ArmPlan(method, fixed[method])
        if recipe is None
        else _trained_arm(method, recipe, steps[method], full[method], fixed[method], speeds.arms[method], sizes)
        for method, recipe in methods.items()
    )
    return ComparisonPlan(
        seed=seed,
        threads=speeds.threads,
        compute=speeds.compute,
        arms=arms,
        valid_rows=valid_rows,
        latency_rows=latency_rows,
        looked=looked,
        estimate={
            "seconds": spent + sum(sum(arm.seconds.values()) for arm in arms),
            "peak_rss_mb": max(speeds.arms[m].rss_mb for m in trained) if trained else speeds.rss_mb,
            "disk_mb": sum(speeds.arms[m].disk_mb for m in trained) + 5.0,
        },
    )


def _divided(
    trained: Mapping[str, Recipe], full: Mapping[str, int], speeds: Speeds, sizes: Sizes, left: float, aside: float
) -> dict[str, int]:
    """Training steps of every trained arm within `left` seconds: the arm that needs least for its share comes first."""
    needs = {m: _training_seconds(r, full[m], speeds.arms[m], sizes) for m, r in trained.items()}
    shares = sum(recipe.share for recipe in trained.values()) + aside
    steps: dict[str, int] = {}
    for method in sorted(trained, key=lambda m: sum(needs[m].values()) / trained[m].share):
        recipe, speed = trained[method], speeds.arms[method]
        share = left * recipe.share / shares
        shares -= recipe.share
        steps[method] = _affordable(recipe, full[method], share, speed, sizes)
        left -= sum(_training_seconds(recipe, steps[method], speed, sizes).values())
    return steps


def _trained_arm(
    method: str, recipe: Recipe, steps: int, full: int, fixed: dict[str, float], speed: TrainSpeed, sizes: Sizes
) -> ArmPlan:
    if steps < LEAST_STEPS:
        reason = f"the budget leaves fewer than {LEAST_STEPS} training steps; raise --budget"
        return ArmPlan(method, recipe_steps=full, skipped=reason)
    return ArmPlan(
        method,
        fixed | _training_seconds(recipe, steps, speed, sizes),
        steps=steps,
        recipe_steps=full,
        batch_size=recipe.batch_size,
        learning_rates=search_rates(recipe, steps),
        rungs=tuple(asdict(rung) for rung in rungs(recipe, steps)),
        validate_every=max(1, steps // _validations(steps)),
        checkpoint_every=max(1, round(CHECKPOINT_SECONDS / speed.step_seconds)),
    )


def _fixed_seconds(
    method: str, recipe: Recipe | None, speeds: Speeds, sizes: Sizes, valid_rows: int, latency_rows: int, looked: int
) -> dict[str, float]:
    """Seconds of an arm that do not depend on its steps: process starts, choices on validation, evaluation."""
    speed = speeds.predict[method]
    start, fit = START_SECONDS + 2 * speed.load_seconds, valid_rows * speed.choose_seconds
    answers = sizes.test * speed.row_seconds + latency_rows * speed.answer_seconds
    base_runs = 0 if speed.load_seconds == 0 else 1 if recipe is None else 2
    reopening = min(REOPEN_ROWS, sizes.valid) * sizes.parts * speed.loss_seconds
    evaluation = answers + speeds.base_seconds * base_runs + looked * speed.look_seconds + reopening
    return {"start": start * sizes.parts, "fit": fit * sizes.parts, "evaluate": evaluation}


def _rows_within(seconds: float, each: float, least: int, most: int) -> int:
    """As many rows as fit into `seconds` when one takes `each` seconds, between `least` and `most`."""
    return min(most, max(least, int(seconds / each))) if each * most > seconds else most


def _training_seconds(recipe: Recipe, steps: int, speed: TrainSpeed, sizes: Sizes) -> dict[str, float]:
    """Seconds of the learning-rate search and of the final training, with validations and model building."""
    if steps < LEAST_STEPS:
        return {"search": 0.0, "train": 0.0}
    runs = sum(rung.rates for rung in rungs(recipe, steps))
    validate = speed.validate_seconds
    search = search_steps(recipe, steps) * speed.step_seconds + runs * (validate + speed.build_seconds)
    train = steps * speed.step_seconds + (_validations(steps) + 1) * validate
    return {"search": search * sizes.parts, "train": (train + speed.build_seconds) * sizes.parts}


def _validations(steps: int) -> int:
    return max(1, min(VALIDATIONS, steps // BETWEEN))


def _affordable(recipe: Recipe, full: int, seconds: float, speed: TrainSpeed, sizes: Sizes) -> int:
    """The most steps, at most the full recipe, whose search and training fit into `seconds`."""
    low, high = 0, full
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_training_seconds(recipe, middle, speed, sizes).values()) <= seconds:
            low = middle
        else:
            high = middle - 1
    return low
