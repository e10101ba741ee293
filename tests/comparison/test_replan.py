"""A plan that is made anew during the comparison: what stays, what is planned slower, who gets what is left."""

from dataclasses import replace

import pytest
from hypothesis import given as whatever
from hypothesis import strategies as st
from planned import (
    HALF,
    MANY,
    METHODS,
    NAMES,
    OPTIONAL,
    PLAIN,
    SPEEDS,
    TRAINING,
    changed,
    given,
    out,
    seconds,
)

from riyaz.comparison import plan as planning
from riyaz.comparison.arm_seconds import LEAST_STEPS, PlanInputs
from riyaz.comparison.plan import RESERVE, ComparisonPlan
from riyaz.comparison.speeds import Speeds


def run(plan: ComparisonPlan, *methods: str, slower: float = 1.0) -> ComparisonPlan:
    """The plan after these arms have run, in so many times the planned seconds."""
    return replace(plan, arms=tuple(
        replace(arm, state="begun", took=slower * sum(arm.seconds.values())) if arm.method in methods else arm
        for arm in plan.arms
    ))  # fmt: skip


def again(inputs: PlanInputs, plan: ComparisonPlan, budget: float, spent: float) -> ComparisonPlan:
    return planning.make_plan(inputs, budget=budget, spent=spent, earlier=plan)


def test_an_arm_that_has_begun_stays_as_it_is_and_so_does_the_rest_of_the_plan() -> None:
    inputs = given(*NAMES, optional=OPTIONAL)
    plan = replace(planning.make_plan(inputs, budget=1000.0, spent=5.0), folds=False, limit_test=50)
    plan = run(plan, "nearest", "zero_shot", "lora")
    for spent in (5.0, 300.0, 5000.0):
        later = again(inputs, plan, 1000.0, spent)
        for method in ("nearest", "zero_shot", "lora", "prompt_tuning"):
            assert later.arm(method) == plan.arm(method)
        assert replace(later, arms=plan.arms) == plan
    assert again(inputs, plan, 1e6, 5.0).arm("prompt_tuning").skipped, "left out stays left out"
    asked = again(inputs, changed(plan, "prompt_tuning", skipped="", recipe_steps=0), 1000.0, 200.0)  # by --more
    assert asked.arm("prompt_tuning").steps > 0 and asked.arm("full").cut


def test_arms_on_a_busy_machine_are_planned_slower() -> None:
    inputs = given()
    plan = planning.make_plan(inputs, budget=500.0, spent=0.0)
    used = [sum(plan.arm(method).seconds.values()) for method in METHODS[:3]]
    same, slow = (
        again(inputs, run(plan, *METHODS[:3], slower=slower), 500.0, slower * sum(used)) for slower in (1.0, 2.0)
    )
    first = tuple(replace(arm, pace=1.0, train_limit=now.train_limit) for arm, now in zip(plan.arms[3:], same.arms[3:]))
    assert same.arms[3:] == first, "as it was planned at first"
    for method in ("lora", "full"):
        assert slow.arm(method).pace == pytest.approx(2.0) and slow.arm(method).steps < plan.arm(method).steps
        for part in ("start", "fit", "evaluate"):
            assert slow.arm(method).seconds[part] == pytest.approx(2 * plan.arm(method).seconds[part])
    assert 2 * sum(used) + sum(sum(arm.seconds.values()) for arm in slow.arms[3:]) <= 500 * RESERVE
    untrained = again(inputs, run(plan, "zero_shot", slower=2.0), 500.0, 100.0).arm("few_shot")
    assert untrained.seconds["fit"] == pytest.approx(12.0) and untrained.pace == pytest.approx(2.0)
    later = again(inputs, run(slow, "lora"), 500.0, 300.0)
    assert later.arm("full").pace == pytest.approx(2.0), "it took what was planned for a pace of two"
    brief = again(inputs, run(plan, "nearest", slower=9.0), 500.0, 27.0)
    assert brief.arm("zero_shot").pace == 1.0, "three seconds say nothing about a pace"


def test_the_time_that_an_arm_leaves_goes_to_those_that_were_cut() -> None:
    inputs = given()
    plan = planning.make_plan(inputs, budget=270.0, spent=0.0)
    later = again(inputs, run(plan, "nearest", "zero_shot", "few_shot", "lora"), 270.0, 130.0)
    assert len(plan.arm("full").learning_rates) == 1 and plan.arm("full").cut
    assert later.arm("full").learning_rates == PLAIN.learning_rates and later.arm("full").steps >= HALF
    assert seconds(later, "full") > seconds(plan, "full")


def test_an_opened_arm_keeps_its_opening_and_rates_and_is_not_searched_again() -> None:
    inputs = given("lora", "full")
    plan = planning.make_plan(inputs, budget=1e4, spent=0.0)
    plan = changed(plan, "lora", state="opened", learning_rates=(3e-4,), opening=17)
    for spent in (0.0, 9330.0):
        lora = again(inputs, plan, 1e4, spent).arm("lora")
        assert (lora.state, lora.learning_rates, lora.opening) == ("opened", (3e-4,), 17)
        assert lora.seconds["search"] == 0 and lora.seconds["train"] < 60 * 1.0 + 7 * 2.0 + 0.5
    whole = again(inputs, plan, 1e4, 0.0).arm("lora")
    assert whole.steps == 60 and whole.seconds["train"] == pytest.approx(43 * 1.0 + 7 * 2.0 + 0.5)
    assert 17 <= lora.steps < 60 and lora.cut


def test_an_arm_that_waits_gets_what_the_others_leave() -> None:
    inputs = given("nearest", "lora", "full")
    plan = planning.make_plan(inputs, budget=250.0, spent=0.0)
    for method in ("lora", "full"):
        plan = changed(plan, method, state="opened", opening=6, steps=20)
    equal = again(inputs, plan, 250.0, 60.0)
    assert equal.arm("lora").cut and equal.arm("full").cut
    plan = changed(plan, "lora", waits=True)
    later = again(inputs, plan, 250.0, 60.0)
    assert later.arm("full").steps > equal.arm("full").steps and 6 <= later.arm("lora").steps < equal.arm("lora").steps
    assert later.arm("lora").waits and not later.arm("full").waits
    assert again(inputs, plan, 190.0, 60.0).arm("lora").steps == 6, "its opening is trained, and is evaluated"
    assert not again(inputs, plan, 400.0, 60.0).arm("lora").cut


def test_of_two_arms_that_wait_the_first_leaves_the_other_its_opening() -> None:
    names = ("nearest", "lora", "full", "prompt_tuning")
    inputs = given(*names)
    recipes = {
        name: recipe and replace(recipe, refit=name != "prompt_tuning") for name, recipe in inputs.methods.items()
    }
    inputs = replace(inputs, methods=recipes)
    plan = planning.make_plan(inputs, budget=1e4, spent=0.0)
    for method in names[1:]:
        plan = changed(plan, method, state="opened", opening=15, refit=False, waits=method != "lora")
    refitted = set()
    for budget in range(320, 900, 20):
        later = again(inputs, plan, float(budget), 100.0)
        taken = sum(sum(arm.seconds.values()) for arm in later.arms)
        assert taken <= budget * RESERVE - 100 + 1e-6, budget
        refitted.add(later.arm("lora").refit)
        assert later.arm("lora").refit <= (not later.arm("lora").cut)
    assert refitted == {True, False}


def test_an_arm_for_which_no_time_is_left_says_so_and_is_not_planned_again() -> None:
    inputs = given()
    plan = run(planning.make_plan(inputs, budget=700.0, spent=0.0), "nearest", "zero_shot")
    late = again(inputs, plan, 700.0, 620.0)
    assert out(late) == {"lora", "full"} and late.arm("few_shot") == plan.arm("few_shot")
    assert late.arm("full").skipped == "no time was left for it; --more continues"
    assert out(again(inputs, plan, 700.0, 9000.0)) == {"few_shot", "lora", "full"}, "no refusal once arms have run"
    assert again(inputs, late, 1e5, 0.0).arm("full") == late.arm("full")


STATES = st.sampled_from(("planned", "opened", "begun"))


@MANY
@whatever(SPEEDS, st.floats(0, 1), st.lists(STATES, min_size=8, max_size=8), st.floats(0.2, 9), st.data())
def test_a_plan_made_anew_never_takes_more_than_is_left(
    speeds: Speeds, used: float, states: list[str], slower: float, data: st.DataObject
) -> None:
    inputs = given(*NAMES, speeds=speeds)
    budget = data.draw(st.floats(3e4, 1e6))
    plan = planning.make_plan(inputs, budget=budget, spent=0.0)
    arms = [arm for arm in plan.arms if not arm.skipped]
    for arm, state in zip(arms, states, strict=False):
        if state == "begun":
            plan = run(plan, arm.method, slower=slower)
        elif state == "opened" and arm.opening:
            plan = changed(plan, arm.method, state="opened")
    later = again(inputs, plan, budget, used * budget)
    planned = [arm for arm in later.arms if arm.state != "begun" and not arm.skipped]
    opened = sum(  # an opening that is trained is evaluated at least
        arm.pace * (7 * speeds.arms[arm.method].validate_seconds + speeds.arms[arm.method].build_seconds)
        for arm in planned if arm.state == "opened" and arm.steps == arm.opening
    )  # fmt: skip
    # a recipe that lacks less than a twentieth is trained whole, out of the reserve
    completed = sum(0.06 * arm.seconds["train"] for arm in planned if arm.recipe_steps and not arm.cut)
    left = max(0.0, budget * RESERVE - used * budget)
    assert sum(sum(arm.seconds.values()) for arm in planned) <= left + opened + completed + 1e-6 * budget
    for arm in planned:
        assert arm.method not in TRAINING or arm.state == "opened" or LEAST_STEPS <= arm.steps <= arm.recipe_steps
        assert arm.steps >= arm.opening
