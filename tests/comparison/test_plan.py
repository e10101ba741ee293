"""The plan as a pure function: what is reserved, how the rest is shared, what is cut, left out and refused."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given as whatever
from hypothesis import strategies as st
from planned import (
    CHOSEN,
    HALF,
    MANY,
    METHODS,
    NAMES,
    OPENING,
    OPTIONAL,
    PLAIN,
    SIZES,
    SPEEDS,
    START,
    TRAINING,
    changed,
    given,
    made,
    measured,
    out,
    seconds,
)
from refusals import assert_refused

from riyaz.comparison import plan as planning
from riyaz.comparison.arm_seconds import LEAST_STEPS, PlanInputs
from riyaz.comparison.plan import RESERVE, ComparisonPlan, TooShort
from riyaz.comparison.speeds import Speeds
from riyaz.config import Seconds
from riyaz.evaluate import LATENCY_ROWS, RETRIEVAL_ROWS
from riyaz.json_files import to_document, write_json
from riyaz.methods.fitting.base import VALID_ROWS, ArmPlan
from riyaz.methods.fitting.recipe import opening
from riyaz.scoring import REOPEN_ROWS


def reserved(plan: ComparisonPlan) -> float:
    """What the arms take besides learning."""
    return sum(arm.seconds[key] for arm in plan.arms for key in ("start", "fit", "evaluate") if arm.seconds)


def total(plan: ComparisonPlan) -> float:
    return sum(sum(arm.seconds.values()) for arm in plan.arms)


def test_with_time_enough_every_arm_trains_its_whole_recipe() -> None:
    plan = made(10_000)
    assert [arm.method for arm in plan.arms] == list(METHODS)
    lora = plan.arm("lora")
    assert (lora.steps, lora.recipe_steps, lora.batch_size, lora.cut, lora.skipped) == (60, 60, 8, False, "")
    assert lora.learning_rates == (1e-4, 2e-4, 4e-4) and lora.opening == OPENING
    assert lora.state == "planned" and not lora.waits
    assert (lora.validate_every, lora.checkpoint_every) == (10, 150)
    assert all(not plan.arm(name).cut and plan.arm(name).steps == 0 for name in METHODS[:3])
    assert (plan.seed, plan.threads, plan.compute) == (7, 2, "bfloat16")
    assert (plan.valid_rows, plan.latency_rows) == (40, LATENCY_ROWS)


def test_seconds_are_those_of_the_measured_speeds() -> None:
    plan = made(10_000)
    zero = plan.arm("zero_shot").seconds
    assert zero["start"] == 2 * (START + 1.0) and zero["fit"] == 6.0
    assert zero["evaluate"] == pytest.approx(100 * 0.2 + LATENCY_ROWS * 0.3 + 3.0 + REOPEN_ROWS * 0.1)
    assert plan.arm("nearest").seconds == {"start": 2 * START, "fit": 0.0, "evaluate": 0.0}
    lora = plan.arm("lora").seconds
    torch = planning.make_plan(given(speeds=replace(measured(), torch_seconds=2.0)), budget=10_000, spent=0.0)
    assert [torch.arm(name).seconds["start"] for name in ("zero_shot", "lora")] == [zero["start"], lora["start"] + 2]
    assert lora["evaluate"] == pytest.approx(zero["evaluate"] + 3.0), "its base is read once more"
    # the openings of the two rates that are not continued
    assert lora["search"] == pytest.approx(2 * OPENING * 1.0 + 3 * (2 * 2.0 + 0.5))
    assert lora["train"] == pytest.approx(60 * 1.0 + 7 * 2.0 + 0.5)


def test_arms_are_trained_once_more_on_all_rows_in_the_time_that_whole_recipes_leave() -> None:
    recipe, again = replace(PLAIN, refit=True), math.ceil(60 * (SIZES.train + SIZES.valid) / SIZES.train)
    inputs = replace(given(speeds=measured(lora={"step_seconds": 3.0})), methods={"lora": recipe, "full": recipe})

    def made_within(budget: float, aside: float = 0.0) -> dict[str, ArmPlan]:
        arms = planning.make_plan(replace(inputs, aside=aside), budget=budget, spent=0.0).arms
        return {arm.method: arm for arm in arms}

    both = made_within(10_000)
    assert both["lora"].refit and both["full"].refit
    whole = sum(sum(arm.seconds.values()) for arm in made_within(10_000, aside=1.0).values())
    assert not any(arm.refit for arm in made_within(10_000, aside=1.0).values()), "fewer rows would have none"
    more = {"lora": again * 3.0 + 0.5, "full": again * 1.0 + 0.5}
    assert sum(sum(arm.seconds.values()) for arm in both.values()) == pytest.approx(whole + sum(more.values()))
    for spare, refits in ((-60.0, []), (more["full"] + 1, ["full"]), (more["lora"] + 1, ["lora"])):
        arms = made_within((whole + spare) / RESERVE)
        assert [name for name, arm in arms.items() if arm.refit] == refits
        assert any(arm.cut for arm in arms.values()) == (spare < 0), "no recipe is cut for it"


def test_the_estimate_is_of_the_whole_command_and_of_the_largest_arm() -> None:
    plan = made(10_000, spent=33.0, full={"rss_mb": 1700.0, "disk_mb": 50.0})
    assert plan.estimate["seconds"] == pytest.approx(33 + total(plan))
    assert plan.estimate["peak_rss_mb"] == 1700 and plan.estimate["disk_mb"] == pytest.approx(75)
    assert made(10_000, "nearest", "zero_shot").estimate["peak_rss_mb"] == 400


def test_evaluation_is_reserved_and_the_rest_shared_equally() -> None:
    budget = 265.0
    plan = made(budget, spent=20.0)
    left = budget * RESERVE - 20.0 - reserved(plan)
    lora, full = plan.arm("lora"), plan.arm("full")
    assert LEAST_STEPS < lora.steps <= full.steps <= lora.steps + 3 < HALF and lora.cut and full.cut
    assert seconds(plan, "lora") <= left / 2 < seconds(plan, "lora") + 4, "one step more would not fit"
    assert plan.estimate["seconds"] <= budget * RESERVE


def test_a_combination_has_a_share_for_each_of_its_parts_and_extra_parts_have_their_own() -> None:
    recipes = {"lora": replace(PLAIN, epochs=60), "full": replace(PLAIN, epochs=60, share=2)}

    def plan(aside: float) -> ComparisonPlan:
        return planning.make_plan(PlanInputs(recipes, measured(), SIZES, 7, aside), budget=700.0, spent=0.0)

    alone, apart = plan(0.0), plan(1.0)
    left = 700 * RESERVE - reserved(alone)
    assert seconds(alone, "full") == pytest.approx(2 * left / 3, abs=4)
    assert seconds(alone, "lora") == pytest.approx(left / 3, abs=4)
    assert seconds(apart, "full") == pytest.approx(left / 2, abs=4)
    assert seconds(apart, "lora") == pytest.approx(left / 4, abs=4)


def test_looking_at_what_retrieval_did_is_part_of_the_evaluation() -> None:
    rows = replace(SIZES, test=300)
    plan, plain = (
        planning.make_plan(given("nearest", "rag", speeds=speeds, sizes=rows), budget=900.0, spent=0.0)
        for speeds in (measured({"rag": {"look_seconds": 0.5}}), measured())
    )
    assert plan.looked == min(RETRIEVAL_ROWS, 120) and plain.looked == RETRIEVAL_ROWS
    more = plan.arm("rag").seconds["evaluate"] - plain.arm("rag").seconds["evaluate"]
    assert more == pytest.approx(0.5 * plan.looked)


def test_an_arm_that_needs_less_leaves_the_rest_to_the_others() -> None:
    alone = made(400.0)
    for quick, slow in (("lora", "full"), ("full", "lora")):
        plan = made(400.0, **{quick: {"step_seconds": 0.1, "validate_seconds": 0.1}})
        assert alone.arm(slow).cut and not plan.arm(quick).cut
        assert plan.arm(slow).steps > alone.arm(slow).steps
        left = 400 * RESERVE - reserved(plan)
        assert seconds(plan, quick) < left / 2 < seconds(plan, slow) <= left - seconds(plan, quick)


def test_a_slower_arm_makes_fewer_steps_in_the_same_time() -> None:
    plan = made(500.0, full={"step_seconds": 3.0})
    assert 0 < plan.arm("full").steps < plan.arm("lora").steps


def test_more_budget_means_more_steps_and_then_a_search() -> None:
    arms = [made(float(budget), "nearest", "lora").arm("lora") for budget in range(80, 400, 5)]
    alone, searched = ([arm for arm in arms if len(arm.learning_rates) == count] for count in (1, 3))
    assert [*alone, *searched] == arms
    for part in (alone, searched):
        assert [arm.steps for arm in part] == sorted(arm.steps for arm in part) and part[-1].steps > HALF
    assert alone[0].steps < HALF <= searched[0].steps and searched[-1].steps == 60
    assert all(arm.learning_rates == (PLAIN.default_rate,) for arm in alone)
    assert all(arm.opening == opening(arm.steps, 60) for arm in arms)
    assert {(arm.cut, arm.seconds["search"]) for arm in alone if arm.opening} == {(True, 2 * 2.0 + 0.5), (False, 0.0)}
    assert alone[-1].steps > 50, "time for fewer than half of the steps with a search trains more without one"


def test_a_method_that_takes_the_rate_of_another_searches_none_where_that_takes_part() -> None:
    both, alone = (
        planning.make_plan(given(*methods, rate_of={"rag_lora": "lora", "lora": ""}), budget=1e5, spent=0.0)
        for methods in (("lora", "rag_lora"), ("nearest", "rag_lora"))
    )
    one, three = both.arm("rag_lora"), both.arm("lora").learning_rates
    assert (one.learning_rates, one.seconds["search"], one.steps, len(three)) == ((2e-4,), 0.0, 60, 3), "no opening"
    assert alone.arm("rag_lora").learning_rates == PLAIN.learning_rates and alone.arm("rag_lora").seconds["search"] > 20


def test_folds_multiply_what_is_done_in_each_of_them() -> None:
    one, six = made(10_000), made(60_000, sizes=replace(SIZES, parts=6))
    for method in ("zero_shot", "lora"):
        before, after = one.arm(method).seconds, six.arm(method).seconds
        for key in ("start", "fit", *(("search", "train") if method == "lora" else ())):
            assert after[key] == pytest.approx(6 * before[key])
        more = 5 * REOPEN_ROWS * 0.1  # validation again; the test rows are divided among the folds
        assert after["evaluate"] == pytest.approx(before["evaluate"] + more)


@pytest.mark.parametrize("valid", [9, 200])
def test_how_many_rows_choose_depends_on_neither_budget_nor_speed(valid: int) -> None:
    sizes = replace(SIZES, valid=valid)
    slow = measured({"zero_shot": {"choose_seconds": 60.0}})
    rows = [planning.make_plan(given(sizes=sizes, speeds=speeds), budget=budget, spent=0.0).valid_rows
            for speeds in (measured(), slow) for budget in (350.0, 10_000.0)]  # fmt: skip
    assert set(rows) == {min(VALID_ROWS, valid)}


# a budget that is too short for all

# as the guide has it
ORDER = ["prompt_tuning", "instruct", "full", "few_shot", "orpo", "kto", "rag_lora", "ensemble", "dpo", "distil",
         "lora", "rag", "zero_shot", "nearest", "encoder", "linear"]  # fmt: skip


def test_arms_are_left_out_in_the_stated_order_and_say_so() -> None:
    quick = {name: {"step_seconds": 1e-3, "validate_seconds": 0.0, "build_seconds": 0.0} for name in TRAINING}
    speeds = replace(measured(**quick), base_seconds=0.0)
    speeds = replace(speeds, predict=dict.fromkeys(NAMES, speeds.predict["zero_shot"]))
    plans = [planning.make_plan(given(*NAMES, speeds=speeds), budget=float(budget), spent=0.0)
             for budget in range(90, 700, 10)]  # fmt: skip
    found = [out(plan) for plan in plans]
    assert [len(some) for some in found] == sorted(map(len, found), reverse=True)
    assert all(some == set(ORDER[: len(some)]) for some in found)
    assert {len(some) for some in found} == set(range(len(ORDER) - 1)), "from none to all but two"
    for arm in plans[0].arms:
        assert arm.skipped == ("" if arm.method in ORDER[-2:] else "the budget is too short for it; raise --budget")
        assert not arm.skipped or (arm.seconds, arm.steps) == ({}, 0)
    assert plans[0].arm("full").recipe_steps == 60


def test_an_arm_that_fits_beside_the_rest_is_not_left_out_for_a_dear_one() -> None:
    speeds = measured({"rag": {"row_seconds": 90.0}})
    plan = planning.make_plan(given(*NAMES, speeds=speeds), budget=1500.0, spent=0.0)
    assert out(plan) == {"rag"} and plan.estimate["seconds"] <= 1500 * RESERVE
    dear = {"rag": {"row_seconds": 90.0}, "full": {"row_seconds": 4.0}, "few_shot": {"row_seconds": 4.0}}
    plan = planning.make_plan(given(*NAMES, speeds=measured(dear)), budget=1300.0, spent=0.0)
    assert out(plan) == {"rag", "full"}, "of the two that do not both fit the one that is left out last"


def test_an_arm_without_time_to_train_is_left_out() -> None:
    plan = made(120.0, "nearest", "zero_shot", "full", full={"step_seconds": 9.0})
    assert out(plan) == {"full"} and plan.estimate["seconds"] <= 120 * RESERVE
    assert made(260.0, "nearest", "zero_shot", "full", full={"step_seconds": 9.0}).arm("full").steps >= LEAST_STEPS


def test_no_arm_is_left_out_where_that_is_not_asked_for() -> None:
    with pytest.raises(TooShort):
        planning.make_plan(given(*NAMES), budget=300.0, spent=0.0, leave_out=False)
    assert out(planning.make_plan(given(*NAMES), budget=300.0, spent=0.0)) > set()
    assert out(planning.make_plan(given(*NAMES), budget=3000.0, spent=0.0, leave_out=False)) == set()


def test_prompt_tuning_is_left_out_where_not_every_recipe_fits_unless_it_is_named() -> None:
    def plan(budget: float, optional: tuple[str, ...] = OPTIONAL, aside: float = 0.0) -> ComparisonPlan:
        return planning.make_plan(given(*NAMES, optional=optional, aside=aside), budget=budget, spent=0.0)

    need = total(plan(1e5)) / RESERVE
    assert out(plan(need + 1)) == set() == out(plan(need - 10, optional=()))
    assert not any(arm.cut for arm in plan(need + 1).arms)
    short = plan(need - 10)
    assert out(short) == {"prompt_tuning"} and not any(arm.cut for arm in short.arms if not arm.skipped)
    told = short.arm("prompt_tuning").skipped
    assert told == "not every recipe fits the budget; raise --budget, or name prompt_tuning with --methods"
    assert out(plan(need + 1, aside=1.0)) == {"prompt_tuning"}, "extra runs have their share"


def test_what_could_not_be_measured_is_skipped_with_its_reason() -> None:
    speeds = measured()
    predict = {name: speed for name, speed in speeds.predict.items() if name != "zero_shot"}
    speeds = replace(speeds, predict=predict, unable={"zero_shot": "row 3: too long"})
    plan = planning.make_plan(given(speeds=speeds), budget=5000.0, spent=0.0)
    assert [arm.method for arm in plan.arms] == list(METHODS)
    assert out(plan) == {"zero_shot"} and plan.arm("zero_shot").skipped == "row 3: too long"
    again = planning.make_plan(given(speeds=speeds), budget=5000.0, spent=100.0, earlier=plan)
    assert again.arm("zero_shot") == plan.arm("zero_shot") and again.arm("lora").steps > 0


def named(error: TooShort) -> Seconds:
    """The duration after the last --budget of the message, as a user pastes it."""
    return Seconds(str(error).split("--budget ")[-1].split()[0].rstrip(".)"))


def test_a_budget_too_short_for_two_arms_is_refused_with_one_that_is_enough() -> None:
    with assert_refused("evaluating zero_shot and nearest on 100 test rows takes about 50s", "--budget 20s",
                        "give --budget 50s"):  # fmt: skip
        made(20.0)
    with assert_refused("training and evaluating full and lora on 100 test rows"):
        made(30.0, "lora", "full")
    speeds = measured(rag_lora={"step_seconds": 3.0})
    with assert_refused("training and evaluating full and rag_lora", "give --budget 2m30s"):
        planning.make_plan(given("full", "rag_lora", speeds=speeds), budget=30.0, spent=0.0)
    with assert_refused("takes about 4m10s", "--budget 3m20s", "give --budget 4m10s"):
        made(200.0, spent=190.0)
    with assert_refused("evaluating zero_shot on 100 test rows"):
        made(20.0, "zero_shot")
    assert out(made(50.0)) == {"few_shot", "lora", "full"}
    assert out(made(50.0, "zero_shot")) == set(), "one arm alone, as `riyaz adapt` has it"


@MANY
@whatever(SPEEDS, CHOSEN, st.floats(1, 1e5), st.floats(0, 1e3), st.sampled_from((0.0, 2.0)))
def test_a_plan_fits_its_budget_or_names_one_that_it_fits(
    speeds: Speeds, methods: list[str], budget: float, spent: float, aside: float
) -> None:
    optional = OPTIONAL if len(methods) > 2 else ()  # more than one is left then, as in a comparison
    inputs = given(*methods, speeds=speeds, aside=aside, optional=optional)
    try:
        plan = planning.make_plan(inputs, budget=budget, spent=spent)
    except TooShort as error:
        plan = planning.make_plan(inputs, budget=(budget := named(error)), spent=spent)
    assert [arm.method for arm in plan.arms] == methods and len(methods) - len(out(plan)) >= min(2, len(methods))
    assert plan.estimate["seconds"] == pytest.approx(spent + total(plan))
    assert spent + total(plan) <= budget * RESERVE + 1e-6
    for arm in plan.arms:
        assert arm.skipped or arm.method not in TRAINING or LEAST_STEPS <= arm.steps <= arm.recipe_steps


# files


@pytest.mark.parametrize("budget", [130.0, 450.0, 10_000.0])
def test_a_plan_survives_its_file(budget: float, tmp_path: Path) -> None:
    plan = changed(made(budget, "nearest", "lora", full={"step_seconds": 3.0}), "lora", state="opened", took=1.5)
    write_json(tmp_path / "plan.json", plan)
    read = ComparisonPlan.read(tmp_path / "plan.json")
    assert read == plan and isinstance(read.arm("lora").learning_rates, tuple)
    wrong = to_document(plan)
    wrong["arms"][1]["state"] = "done"
    write_json(tmp_path / "plan.json", wrong)
    with assert_refused("plan.json", "arms[1].state", "remove it"):
        ComparisonPlan.read(tmp_path / "plan.json")
    with assert_refused("plan.json", "no arm full"):
        plan.arm("full")


def test_an_arm_is_cut_where_it_trains_less_than_its_recipe() -> None:
    assert ArmPlan("lora", steps=59, recipe_steps=60).cut
    assert not ArmPlan("lora", steps=60, recipe_steps=60).cut and not ArmPlan("nearest").cut


def test_speeds_survive_their_file_and_each_method_must_be_there(tmp_path: Path) -> None:
    speeds = replace(measured(), derived=("full",), unable={"rag": "does not fit"})
    speeds = replace(speeds, predict={name: speeds.predict[name] for name in METHODS},
                     arms={name: speeds.arms[name] for name in ("lora", "full")})  # fmt: skip
    path, document = tmp_path / "measured.json", to_document(speeds)
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
