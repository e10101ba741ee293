"""The inputs of a plan that come from the command: each arm's full training, and what the user has named."""

from collections.abc import Sequence

from riyaz.comparison import extra_runs
from riyaz.comparison.arm_seconds import PlanInputs, Sizes
from riyaz.comparison.bases import method_of, rate_of
from riyaz.comparison.by_hand import by_hand
from riyaz.comparison.speeds import Speeds
from riyaz.config import CompareConfig, Kind
from riyaz.methods.fitting.recipe import Recipe


def full_recipes(arms: Sequence[str], config: CompareConfig, kind: Kind) -> dict[str, Recipe | None]:
    """The full training of every arm for this kind of task, as the user has changed it; None: it trains nothing."""
    methods = [method_of(name).name for name in arms]
    return {
        name: method_of(name).for_task(kind, by_hand(method, config, methods)).recipe
        for name, method in zip(arms, methods, strict=True)
    }


def plan_inputs(arms: Sequence[str], config: CompareConfig, kind: Kind, speeds: Speeds, sizes: Sizes) -> PlanInputs:
    """The inputs of the plan of these arms at these speeds. An arm whose method the user has named gets its time in any
    case."""
    default = () if config.methods else arms
    return PlanInputs(
        full_recipes(arms, config, kind), speeds, sizes, config.seed,
        aside=extra_runs.SHARE if config.data_curve else 0.0,
        rate_of={name: rate_of(name) for name in arms},
        optional=tuple(name for name in default if method_of(name).optional),
        may_wait=tuple(
            name for name in default if method_of(name).about.language_model and not method_of(name).of
        ),
        seeds=config.seeds or 1,
    )  # fmt: skip
