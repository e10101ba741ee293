"""From measured speeds to a plan: how long everything takes, and how many steps each trained arm gets.

`make` is a pure function of measured speeds, sizes and the budget. Its result is frozen in `plan.json`; a run
repeated from that file does the same steps with the same learning rates, however fast the machine is that day.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from riyaz.comparison.folder import DAMAGED
from riyaz.errors import RiyazError
from riyaz.evaluate import LATENCY_ROWS, LOOKED
from riyaz.files import Keys, from_json, read_json
from riyaz.methods.base import ArmPlan
from riyaz.methods.recipe import Recipe, rungs, search_rates, search_steps
from riyaz.scoring import KNOWN_BY

RESERVE = 0.95  # of the budget is planned; the rest is for what no measurement foresees
VALIDATIONS, BETWEEN = 6, 8  # at most so many in a final run, with at least so many steps between two
VALID_ROWS = (64, 32, 16)  # rows on which text arms and calibration are chosen: fewer when time is short
FIXED_SHARE = 0.5  # of the budget that choosing and evaluating may take before that
START_SECONDS = 6.0  # a process that imports torch, twice per arm
CHECKPOINT_SECONDS = 150.0  # between checkpoints, which cost full fine-tuning seconds each
LEAST_STEPS = 8  # fewer is no training
IMPOSSIBLE = 1e9  # seconds or MB that nothing here takes
LATENCY_LEAST, LATENCY_SECONDS = 2, 20.0  # rows answered alone at least, and the time they may take beyond that
LOOKED_LEAST, LOOK_SECONDS = 8, 60.0  # the same of rows on which retrieval is looked at


class TooShort(RiyazError):
    """The budget does not hold the evaluation."""


@dataclass(frozen=True)
class Sizes:
    """Row counts that the plan depends on; `parts` is 1, or folds + 1."""

    train: int
    valid: int
    test: int
    parts: int = 1


Predicting = Annotated[
    dict[str, float],
    Keys(row_seconds=float, answer_seconds=float, choose_seconds=float, loss_seconds=float, load_seconds=float,
         look_seconds=float),
]  # fmt: skip
Training = Annotated[
    dict[str, float],
    Keys(step_seconds=float, validate_seconds=float, build_seconds=float, save_seconds=float, rss_mb=float,
         disk_mb=float),
]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """measured.json: speeds of this machine by method, and why some methods have none (`unable`)."""

    threads: int
    compute: Literal["bfloat16", "float32"]
    rss_mb: float
    base_seconds: float
    predict: dict[str, Predicting]
    arms: dict[str, Training]  # of the trained methods
    unable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, methods: Mapping[str, Recipe | None]) -> "Measured":
        """The speeds of these methods in a measured.json. Raises RiyazError naming the place that is wrong."""
        measured = from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED)
        for method, recipe in methods.items():
            if method not in measured.unable:
                for name, speeds in (("predict", measured.predict), *([("arms", measured.arms)] if recipe else [])):
                    if method not in speeds:
                        raise RiyazError(f"{name}.{method} is missing", str(path), DAMAGED)
                    for key, value in speeds[method].items():
                        if not 0 <= value < IMPOSSIBLE or (key == "step_seconds" and not value):
                            raise RiyazError(f"{name}.{method}.{key} is {value:g}", str(path), DAMAGED)
        return measured


Needs = Annotated[dict[str, float], Keys(seconds=float, peak_rss_mb=float, disk_mb=float)]


@dataclass(frozen=True)
class ComparisonPlan:
    """Everything that decides a comparison besides the data and the model."""

    seed: int
    threads: int
    compute: Literal["bfloat16", "float32"]
    arms: tuple[ArmPlan, ...]
    valid_rows: int
    latency_rows: int
    looked: int  # test rows of an arm on which retrieval is looked at
    spent_seconds: float  # before the plan: measuring
    estimate: Needs  # `seconds` of the whole command
    folds: bool = True  # whether few rows are tested in folds,
    limit_test: int | None = None  # and on how many at most

    def arm(self, method: str) -> ArmPlan:
        """The plan of one arm."""
        for arm in self.arms:
            if arm.method == method:
                return arm
        raise RiyazError(f"the plan has no arm {method}", "plan.json", DAMAGED)

    @classmethod
    def read(cls, path: Path) -> "ComparisonPlan":
        """The plan in a plan.json. Raises RiyazError naming the place that is wrong."""
        return from_json(cls, read_json(path, DAMAGED), str(path), DAMAGED)


def make(
    methods: Mapping[str, Recipe | None],
    measured: Mapping[str, Any],
    sizes: Sizes,
    *,
    budget: float,
    spent: float,
    seed: int,
    aside: float = 0.0,
) -> ComparisonPlan:
    """Divide what the budget leaves after evaluation over the trained arms, by the shares of their recipes.

    `methods` gives each method its recipe (None: not trained). `measured` is what `compare.worker` wrote. An arm
    that needs less than its share leaves the rest to the others; one that could not be measured is skipped.
    `aside` is a share that is kept for extra parts. Raises TooShort when evaluation alone does not fit.
    """
    unable = measured.get("unable", {})
    asked, methods = methods, {method: recipe for method, recipe in methods.items() if method not in unable}
    answering = max((measured["predict"][method]["answer_seconds"] for method in methods), default=0.0)
    alone = _rows_within(LATENCY_SECONDS, answering, LATENCY_LEAST, min(LATENCY_ROWS, sizes.test))
    looking = max((measured["predict"][method]["look_seconds"] for method in methods), default=0.0)
    looked = _rows_within(LOOK_SECONDS, looking, LOOKED_LEAST, min(LOOKED, sizes.test))
    for chosen in VALID_ROWS:
        chosen = min(chosen, sizes.valid)
        fixed = {m: _fixed_seconds(m, recipe, measured, sizes, chosen, alone, looked) for m, recipe in methods.items()}
        reserved = sum(sum(seconds.values()) for seconds in fixed.values())
        if reserved <= FIXED_SHARE * budget:
            break
    left = budget * RESERVE - spent - reserved
    trained = {method: recipe for method, recipe in methods.items() if recipe is not None}
    if left < 0:
        need = (reserved + spent) / RESERVE
        raise TooShort(
            f"evaluating {len(methods)} methods on {sizes.test} test rows takes about {need:.0f} s",
            f"--budget {budget:.0f}s",
            "raise --budget, or name fewer --methods",
        )
    steps: dict[str, int] = {}
    full = {method: recipe.steps(sizes.train) for method, recipe in trained.items()}
    needs = {m: _training_seconds(r, full[m], measured["arms"][m], sizes) for m, r in trained.items()}
    shares = sum(recipe.share for recipe in trained.values()) + aside
    for method in sorted(trained, key=lambda m: sum(needs[m].values()) / trained[m].share):
        share = left * trained[method].share / shares
        shares -= trained[method].share
        steps[method] = _affordable(trained[method], full[method], share, measured["arms"][method], sizes)
        left -= sum(_training_seconds(trained[method], steps[method], measured["arms"][method], sizes).values())
    arms = tuple(
        ArmPlan(method, skipped=unable[method])
        if method in unable
        else ArmPlan(method, fixed[method])
        if recipe is None
        else _trained_arm(method, recipe, steps[method], full[method], fixed[method], measured, sizes)
        for method, recipe in asked.items()
    )
    return ComparisonPlan(
        seed=seed,
        threads=measured["threads"],
        compute=measured["compute"],
        arms=arms,
        valid_rows=chosen,
        latency_rows=alone,
        looked=looked,
        spent_seconds=spent,
        estimate={
            "seconds": spent + sum(sum(arm.seconds.values()) for arm in arms),
            "peak_rss_mb": max(measured["arms"][m]["rss_mb"] for m in trained) if trained else measured["rss_mb"],
            "disk_mb": sum(measured["arms"][m]["disk_mb"] for m in trained) + 5.0,
        },
    )


def _trained_arm(
    method: str, recipe: Recipe, steps: int, full: int, fixed: dict, measured: Mapping, sizes: Sizes
) -> ArmPlan:
    if steps < LEAST_STEPS:
        reason = f"the budget leaves fewer than {LEAST_STEPS} training steps; raise --budget"
        return ArmPlan(method, recipe_steps=full, skipped=reason)
    speed = measured["arms"][method]
    return ArmPlan(
        method,
        fixed | _training_seconds(recipe, steps, speed, sizes),
        steps=steps,
        recipe_steps=full,
        batch_size=recipe.batch_size,
        learning_rates=search_rates(recipe, steps),
        rungs=tuple(asdict(rung) for rung in rungs(recipe, steps)),
        validate_every=max(1, steps // _validations(steps)),
        checkpoint_every=max(1, round(CHECKPOINT_SECONDS / speed["step_seconds"])),
    )


def _fixed_seconds(
    method: str, recipe: Recipe | None, measured: Mapping[str, Any], sizes: Sizes, chosen: int, alone: int,
    looked: int,
) -> dict[str, float]:  # fmt: skip
    """Seconds of an arm that do not depend on its steps: process starts, choices on validation, evaluation."""
    speed = measured["predict"][method]
    once = {"start": START_SECONDS + 2 * speed["load_seconds"], "fit": chosen * speed["choose_seconds"]}
    tested = sizes.test * speed["row_seconds"] + alone * speed["answer_seconds"]
    facts = measured["base_seconds"] * (0 if speed["load_seconds"] == 0 else 1 if recipe is None else 2)
    total = {key: value * sizes.parts for key, value in once.items()}
    known = min(KNOWN_BY, sizes.valid) * sizes.parts * speed["loss_seconds"]
    return total | {"evaluate": tested + facts + looked * speed["look_seconds"] + known}


def _rows_within(seconds: float, each: float, least: int, most: int) -> int:
    """Rows that are looked at one by one: as many as `seconds` allow, fewer where each takes long."""
    return min(most, max(least, int(seconds / each))) if each * most > seconds else most


def _training_seconds(recipe: Recipe, steps: int, speed: Mapping[str, float], sizes: Sizes) -> dict[str, float]:
    """Search and final training, validations and fresh models included."""
    if steps < LEAST_STEPS:
        return {"search": 0.0, "train": 0.0}
    runs = sum(rung.rates for rung in rungs(recipe, steps))
    validate = speed["validate_seconds"]
    search = search_steps(recipe, steps) * speed["step_seconds"] + runs * (validate + speed["build_seconds"])
    train = steps * speed["step_seconds"] + (_validations(steps) + 1) * (validate + speed["save_seconds"])
    return {"search": search * sizes.parts, "train": (train + speed["build_seconds"]) * sizes.parts}


def _validations(steps: int) -> int:
    return max(1, min(VALIDATIONS, steps // BETWEEN))


def _affordable(recipe: Recipe, full: int, seconds: float, speed: Mapping[str, float], sizes: Sizes) -> int:
    """The most steps, at most the full recipe, whose search and training fit into `seconds`."""
    low, high = 0, full
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_training_seconds(recipe, middle, speed, sizes).values()) <= seconds:
            low = middle
        else:
            high = middle - 1
    return low
