"""Inputs of a plan for tests: speeds as in a measured.json, row counts, a short recipe for every trained
method, and drawn speeds."""

from dataclasses import replace
from typing import Any

from grids import examples
from hypothesis import settings
from hypothesis import strategies as st

from riyaz import methods as table
from riyaz.comparison import plan as planning
from riyaz.comparison.arm_seconds import PlanInputs, Sizes
from riyaz.comparison.plan import ComparisonPlan
from riyaz.comparison.speeds import Speeds
from riyaz.json_files import from_json
from riyaz.methods.fitting.recipe import Recipe, opening

METHODS = ("nearest", "zero_shot", "few_shot", "lora", "full")
SIZES = Sizes(train=240, valid=40, test=100)
START = 1.5
TEXT = {"row_seconds": 0.2, "answer_seconds": 0.3, "choose_seconds": 6.0, "loss_seconds": 0.1, "load_seconds": 1.0,
        "look_seconds": 0.0}  # fmt: skip
TRAINED = {
    "step_seconds": 1.0, "validate_seconds": 2.0, "build_seconds": 0.5, "rss_mb": 900.0, "disk_mb": 20.0,
    "trainable": 10,
}  # fmt: skip
PLAIN = Recipe(epochs=2, least_steps=1, batch_size=8, learning_rates=(1e-4, 2e-4, 4e-4), default_rate=2e-4)
OPENING, HALF = opening(60, 60), 30  # steps, where the recipe has 60: the opening, and the least with a search
NAMES, OPTIONAL = tuple(table.METHODS), ("prompt_tuning",)
TRAINING = tuple(name for name in NAMES if table.METHODS[name].recipe)


def measured(text: dict[str, dict[str, float]] | None = None, **arms: dict[str, float]) -> Speeds:
    """Speeds as in a measured.json; `text` and `arms` give the values that differ, of answers and of training."""
    predict = {method: TEXT | (text or {}).get(method, {}) for method in NAMES}
    predict["nearest"] = dict.fromkeys(TEXT, 0.0)
    document = {
        "threads": 2, "compute": "bfloat16", "rss_mb": 400.0, "start_seconds": START, "base_seconds": 3.0,
        "predict": predict, "arms": {method: TRAINED | arms.get(method, {}) for method in TRAINING},
    }  # fmt: skip
    return from_json(Speeds, document, "measured.json")


def given(*methods: str, speeds: Speeds | None = None, sizes: Sizes = SIZES, **rest: Any) -> PlanInputs:
    """What a plan of these methods (default: METHODS) is made from, every trained one with the recipe PLAIN."""
    recipes = {method: table.METHODS[method].recipe for method in methods or METHODS}
    recipes = {method: recipe and replace(PLAIN, share=recipe.share) for method, recipe in recipes.items()}
    return PlanInputs(recipes, speeds or measured(), sizes, **{"seed": 7, **rest})


def made(budget: float, *methods: str, spent: float = 0.0, sizes: Sizes = SIZES, **arms: Any) -> ComparisonPlan:
    """The plan of these methods within a budget in seconds."""
    return planning.make_plan(given(*methods, speeds=measured(**arms), sizes=sizes), budget=budget, spent=spent)


def seconds(plan: ComparisonPlan, method: str) -> float:
    """Those of the arm's search and training."""
    return plan.arm(method).seconds["search"] + plan.arm(method).seconds["train"]


def out(plan: ComparisonPlan) -> set[str]:
    """The methods that are left out."""
    return {arm.method for arm in plan.arms if arm.skipped}


def changed(plan: ComparisonPlan, method: str, **fields: Any) -> ComparisonPlan:
    """The plan with other values of one arm."""
    return replace(plan, arms=tuple(replace(arm, **fields) if arm.method == method else arm for arm in plan.arms))


COSTS = st.floats(0, 50)
SPEEDS = st.builds(
    lambda text, arms: measured(
        {name: dict(zip(TEXT, costs, strict=True)) for name, costs in zip(NAMES, text, strict=True)},
        **{name: TRAINED | {"step_seconds": costs[0] + 1e-3, "validate_seconds": costs[1], "build_seconds": costs[2]}
           for name, costs in zip(TRAINING, arms, strict=True)},
    ),
    st.tuples(*[st.tuples(*[COSTS] * len(TEXT))] * len(NAMES)), st.tuples(*[st.tuples(*[COSTS] * 3)] * len(TRAINING)),
)  # fmt: skip
CHOSEN = st.lists(st.sampled_from(NAMES), min_size=1, unique=True)
MANY = settings(deadline=None, max_examples=examples(60))
