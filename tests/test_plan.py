"""The plan as a pure function: what is reserved, how the rest is shared, what is cut, skipped and refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from expect import assert_refused

from riyaz import methods as table
from riyaz.comparison import plan as planning
from riyaz.comparison.plan import LATENCY_ROWS, LEAST_STEPS, RESERVE, START_SECONDS, VALID_ROWS, ComparisonPlan, Sizes
from riyaz.comparison.speeds import Speeds
from riyaz.evaluate import RETRIEVAL_ROWS
from riyaz.files import from_json, to_document, write_json
from riyaz.methods.recipe import Recipe, rungs, search_rates, search_steps
from riyaz.scoring import REOPEN_ROWS

METHODS = ("nearest", "zero_shot", "few_shot", "lora", "full")
SIZES = Sizes(train=240, valid=60, test=100)
TEXT = {"row_seconds": 0.2, "answer_seconds": 0.3, "choose_seconds": 0.5, "loss_seconds": 0.1, "load_seconds": 1.0,
        "look_seconds": 0.0}  # fmt: skip
TRAINED = {
    "step_seconds": 1.0, "validate_seconds": 2.0, "build_seconds": 0.5, "rss_mb": 900.0, "disk_mb": 20.0,
    "trainable": 10,
}  # fmt: skip
PLAIN = Recipe(epochs=2, least_steps=1, batch_size=8, learning_rates=(1e-4, 2e-4, 4e-4, 8e-4), default_rate=2e-4)


def measured(**arms: dict[str, float]) -> Speeds:
    """Speeds as in a measured.json; `arms` gives the values that differ for one trained arm."""
    predict = {method: dict(TEXT) for method in METHODS} | {"nearest": dict.fromkeys(TEXT, 0.0)}
    document = {
        "threads": 2, "compute": "bfloat16", "rss_mb": 400.0, "base_seconds": 3.0, "predict": predict,
        "arms": {method: TRAINED | arms.get(method, {}) for method in ("lora", "full")},
    }  # fmt: skip
    return from_json(Speeds, document, "measured.json")


def made(budget: float, *methods: str, sizes: Sizes = SIZES, spent: float = 0.0, **arms: Any) -> ComparisonPlan:
    """The plan of these methods (default: all), every trained one with the recipe PLAIN."""
    recipes = {method: PLAIN if table.METHODS[method].recipe else None for method in methods or METHODS}
    return planning.make(recipes, measured(**arms), sizes, budget=budget, spent=spent, seed=7)


def seconds(plan: ComparisonPlan, method: str) -> float:
    return plan.arm(method).seconds["search"] + plan.arm(method).seconds["train"]


def reserved(plan: ComparisonPlan) -> float:
    """What the arms take besides learning."""
    return sum(sum(arm.seconds[key] for key in ("start", "fit", "evaluate")) for arm in plan.arms)


def test_with_time_enough_every_arm_trains_its_whole_recipe() -> None:
    plan = made(10_000)
    assert [arm.method for arm in plan.arms] == list(METHODS)
    lora = plan.arm("lora")
    assert (lora.steps, lora.recipe_steps, lora.batch_size, lora.cut, lora.skipped) == (60, 60, 8, False, "")
    assert lora.learning_rates == (1e-4, 2e-4) and lora.rungs == ({"rates": 2, "steps": 15},)
    assert (lora.validate_every, lora.checkpoint_every) == (10, 150)
    assert all(not plan.arm(name).cut and plan.arm(name).steps == 0 for name in METHODS[:3])
    assert (plan.seed, plan.threads, plan.compute) == (7, 2, "bfloat16")
    assert (plan.valid_rows, plan.latency_rows) == (60, LATENCY_ROWS)


def test_seconds_are_those_of_the_measured_speeds() -> None:
    plan = made(10_000)
    zero = plan.arm("zero_shot").seconds
    assert zero["start"] == START_SECONDS + 2 * 1.0 and zero["fit"] == pytest.approx(60 * 0.5)
    assert zero["evaluate"] == pytest.approx(100 * 0.2 + LATENCY_ROWS * 0.3 + 3.0 + REOPEN_ROWS * 0.1)
    assert plan.arm("nearest").seconds == {"start": START_SECONDS, "fit": 0.0, "evaluate": 0.0}
    lora = plan.arm("lora").seconds
    assert lora["evaluate"] == pytest.approx(zero["evaluate"] + 3.0), "its base is read once more"
    assert lora["search"] == pytest.approx(30 * 1.0 + 2 * (2.0 + 0.5))
    assert lora["train"] == pytest.approx(60 * 1.0 + 7 * 2.0 + 0.5)


def test_the_estimate_is_of_the_whole_command_and_of_the_largest_arm() -> None:
    plan = made(10_000, spent=33.0, full={"rss_mb": 1700.0, "disk_mb": 50.0})
    assert plan.estimate["seconds"] == pytest.approx(33 + sum(sum(arm.seconds.values()) for arm in plan.arms))
    assert plan.estimate["peak_rss_mb"] == 1700 and plan.estimate["disk_mb"] == pytest.approx(75)
    assert made(10_000, "nearest", "zero_shot").estimate["peak_rss_mb"] == 400


def test_evaluation_is_reserved_and_the_rest_shared_equally() -> None:
    budget = 470.0
    plan = made(budget, spent=20.0)
    left = budget * RESERVE - 20.0 - reserved(plan)
    lora, full = plan.arm("lora"), plan.arm("full")
    assert LEAST_STEPS < lora.steps <= full.steps <= lora.steps + 1 < 60 and lora.cut and full.cut
    assert seconds(plan, "lora") <= left / 2 < seconds(plan, "lora") + 3, "one step more would not fit"
    assert plan.estimate["seconds"] <= budget * RESERVE


def test_a_combination_has_a_share_for_each_of_its_parts_and_extra_parts_have_their_own() -> None:
    long = replace(PLAIN, epochs=30)
    recipes = {"lora": long, "full": replace(long, share=2)}
    plan = planning.make(recipes, measured(), SIZES, budget=400.0, spent=0.0, seed=7)
    left = 400 * RESERVE - reserved(plan)
    step = 8.0  # one more step lengthens the search too
    assert seconds(plan, "full") == pytest.approx(2 * left / 3, abs=step)
    assert seconds(plan, "lora") == pytest.approx(left / 3, abs=step)
    apart = planning.make(recipes, measured(), SIZES, budget=400.0, spent=0.0, seed=7, aside=1.0)
    assert seconds(apart, "full") == pytest.approx(left / 2, abs=step)
    assert seconds(apart, "lora") == pytest.approx(left / 4, abs=step)


def test_looking_at_what_retrieval_did_is_part_of_the_evaluation() -> None:
    speeds = measured()
    slow = replace(speeds.predict["zero_shot"], look_seconds=0.5)
    speeds = replace(speeds, predict={"zero_shot": slow})
    rows = replace(SIZES, test=300)
    plan, plain = (planning.make({"zero_shot": None}, m, rows, budget=900.0, spent=0.0, seed=7)
                   for m in (speeds, measured()))  # fmt: skip
    more = plan.arm("zero_shot").seconds["evaluate"] - plain.arm("zero_shot").seconds["evaluate"]
    assert more == pytest.approx(0.5 * RETRIEVAL_ROWS)


def test_an_arm_that_needs_less_leaves_the_rest_to_the_others() -> None:
    alone = made(400.0)
    plan = made(400.0, lora={"step_seconds": 0.1, "validate_seconds": 0.1})
    assert alone.arm("full").cut and not plan.arm("lora").cut
    assert plan.arm("full").steps > alone.arm("full").steps
    left = 400 * RESERVE - reserved(plan)
    assert seconds(plan, "lora") < left / 2 < seconds(plan, "full") <= left - seconds(plan, "lora")


def test_a_slower_arm_makes_fewer_steps_in_the_same_time() -> None:
    plan = made(500.0, full={"step_seconds": 3.0})
    assert 0 < plan.arm("full").steps < plan.arm("lora").steps


def test_more_budget_never_means_fewer_steps() -> None:
    sizes = replace(SIZES, valid=min(VALID_ROWS))  # it may mean more validation rows instead
    steps = [made(float(budget), "lora", sizes=sizes).arm("lora").steps for budget in range(60, 400, 5)]
    assert steps == sorted(steps) and steps[0] < LEAST_STEPS and steps[-1] == 60


def test_an_arm_without_time_is_skipped_and_says_so() -> None:
    plan = made(120.0, "nearest", "full", full={"step_seconds": 9.0})
    full = plan.arm("full")
    assert full.skipped == f"the budget leaves fewer than {LEAST_STEPS} training steps; raise --budget"
    assert full.steps == 0 and full.seconds == {} and plan.estimate["seconds"] <= 120


def test_evaluation_that_does_not_fit_is_refused_with_what_it_needs() -> None:
    with assert_refused("evaluating 5 methods on 100 test rows takes about", "--budget 30s", "raise --budget"):
        made(30.0)
    with assert_refused("--budget 200s"):
        made(200.0, spent=150.0)


def test_the_budget_that_a_refusal_asks_for_is_enough() -> None:
    with pytest.raises(planning.RiyazError) as caught:
        made(30.0)
    need = float(str(caught.value).split("about ")[1].split(" s")[0])
    assert made(need + 1).estimate["seconds"] <= need + 1


def test_when_time_is_short_choices_are_made_on_fewer_rows() -> None:
    sizes = replace(SIZES, valid=200)
    rows = [made(float(budget), sizes=sizes).valid_rows for budget in (10_000, 540, 400)]
    assert rows == list(VALID_ROWS)
    assert made(10_000, sizes=replace(SIZES, valid=9)).valid_rows == 9


def test_folds_multiply_what_is_done_in_each_of_them() -> None:
    one, six = made(10_000), made(60_000, sizes=replace(SIZES, parts=6))
    for method in ("zero_shot", "lora"):
        before, after = one.arm(method).seconds, six.arm(method).seconds
        for key in ("start", "fit", *(("search", "train") if method == "lora" else ())):
            assert after[key] == pytest.approx(6 * before[key])
        more = 5 * REOPEN_ROWS * 0.1  # validation again; the test rows are divided among the folds
        assert after["evaluate"] == pytest.approx(before["evaluate"] + more)


@pytest.mark.parametrize("budget", [130.0, 450.0, 10_000.0])
def test_a_plan_survives_its_file(budget: float, tmp_path: Path) -> None:
    plan = made(budget, "nearest", "lora", full={"step_seconds": 3.0})
    write_json(tmp_path / "plan.json", plan)
    again = ComparisonPlan.read(tmp_path / "plan.json")
    assert again == plan
    write_json(tmp_path / "plan.json", to_document(plan) | {"spent_seconds": 9.0})
    assert ComparisonPlan.read(tmp_path / "plan.json") == plan, "of an older version"
    assert again.arm("lora") == plan.arm("lora") and isinstance(again.arm("lora").learning_rates, tuple)


def test_speeds_survive_their_file_and_each_method_must_be_there(tmp_path: Path) -> None:
    path, speeds = tmp_path / "measured.json", replace(measured(), unable={"rag": "does not fit"})
    document = to_document(speeds)
    document["arms"]["lora"]["save_seconds"] = 0.0  # of an older version
    write_json(path, document)
    assert Speeds.read(path, [*METHODS, "rag"], ["lora", "full"]) == speeds
    with assert_refused("measured.json", "predict.rag_lora is missing", "remove it"):
        Speeds.read(path, ["rag_lora"], [])
    with assert_refused("measured.json", "arms.rag_lora is missing"):
        Speeds.read(path, [], ["rag_lora"])
    for arm, wrong in (({"step_seconds": 0.0}, "0 is out of range"), ({"rss_mb": -1.0}, "-1 is out of range")):
        write_json(path, document | {"arms": {"lora": document["arms"]["lora"] | arm}})
        with assert_refused("measured.json", f"arms.lora.{next(iter(arm))}: {wrong}"):
            Speeds.read(path, METHODS, ["lora"])


@pytest.mark.parametrize("steps", [*range(LEAST_STEPS, 90), 100, 128, 1000])
def test_the_search_costs_at_most_half_of_the_final_run(steps: int) -> None:
    plan = rungs(PLAIN, steps)
    assert search_steps(PLAIN, steps) <= steps / 2
    assert [rung.rates for rung in plan] == [[], [2], [4, 2]][(steps >= 16) + (steps >= 64)]
    assert all(rung.steps >= 4 for rung in plan)
    assert len(search_rates(PLAIN, steps)) == (plan[0].rates if plan else 1)


def test_a_short_search_keeps_the_rates_nearest_to_the_default() -> None:
    assert search_rates(PLAIN, 8) == (2e-4,)
    assert set(search_rates(PLAIN, 20)) < {1e-4, 2e-4, 4e-4} and 2e-4 in search_rates(PLAIN, 20)
    assert search_rates(PLAIN, 100) == PLAIN.learning_rates


@pytest.mark.parametrize("method", ["prompt_tuning", "lora", "full"])
def test_recipes_name_ascending_rates_around_the_default(method: str) -> None:
    found = table.METHODS[method].recipe
    assert found is not None and found.default_rate in found.learning_rates
    assert list(found.learning_rates) == sorted(found.learning_rates)
    assert found.steps(10) == found.least_steps and found.steps(8 * 1000) == found.epochs * 1000
