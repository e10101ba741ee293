"""The inputs of a plan that come from the command: each method's full training, and what the user has named."""

from collections.abc import Sequence

from riyaz.comparison import extra_runs
from riyaz.comparison.arm_seconds import PlanInputs, Sizes
from riyaz.comparison.by_hand import by_hand
from riyaz.comparison.speeds import Speeds
from riyaz.config import CompareConfig, Kind
from riyaz.methods import METHODS
from riyaz.methods.fitting.recipe import Recipe


def full_recipes(methods: Sequence[str], config: CompareConfig, kind: Kind) -> dict[str, Recipe | None]:
    """The full training of every method for this kind of task, as the user has changed it; None: it trains nothing."""
    return {name: METHODS[name].for_task(kind, by_hand(name, config, methods)).recipe for name in methods}


def plan_inputs(methods: Sequence[str], config: CompareConfig, kind: Kind, speeds: Speeds, sizes: Sizes) -> PlanInputs:
    """The inputs of the plan of these methods at these speeds. A method that the user has named gets its time in any
    case."""
    default = () if config.methods else methods
    return PlanInputs(
        full_recipes(methods, config, kind), speeds, sizes, config.seed,
        aside=extra_runs.SHARE if config.data_curve else 0.0,
        rate_of={name: METHODS[name].rate_of for name in methods},
        optional=tuple(name for name in default if METHODS[name].optional),
        may_wait=tuple(name for name in default if METHODS[name].about.language_model and not METHODS[name].of),
    )  # fmt: skip
