"""The plan of a comparison with several seeds, and of one at several places; nothing is run here."""

import pytest
from planned import SIZES, given, made, measured

from riyaz.comparison import plan as planning
from riyaz.comparison.arm_seconds import Sizes
from riyaz.comparison.dispatch import Rules, makespan
from riyaz.comparison.placed import pieces_of, pieces_within, plan_for

RESERVE = planning.RESERVE
TRAINED = ("lora", "full")


def test_one_seed_is_the_plan_without_seeds() -> None:
    for budget in (265.0, 10_000.0):
        assert planning.make_plan(given(seeds=1), budget=budget, spent=20.0) == made(budget, spent=20.0)


def test_every_seed_of_a_trained_arm_is_paid_for() -> None:
    once, thrice = (planning.make_plan(given(seeds=seeds), budget=10_000, spent=0.0) for seeds in (1, 3))
    assert [arm.steps for arm in thrice.arms] == [arm.steps for arm in once.arms]
    more = sum(sum(once.arm(name).seconds.values()) for name in TRAINED)
    assert thrice.estimate["seconds"] == pytest.approx(once.estimate["seconds"] + 2 * more)
    budget = 600.0
    short = planning.make_plan(given(seeds=3), budget=budget, spent=0.0)
    assert short.estimate["seconds"] <= budget * RESERVE
    assert all(0 < short.arm(name).steps < made(budget).arm(name).steps for name in TRAINED)


def test_folds_are_seeds_enough() -> None:
    folded = Sizes(**{**SIZES.__dict__, "parts": 6})
    once, thrice = (planning.make_plan(given(seeds=n, sizes=folded), budget=10_000, spent=0.0) for n in (1, 3))
    assert once == thrice and len(pieces_of(once, given(seeds=3, sizes=folded))) == 2 * 6 * 5


def test_pieces_wait_for_what_they_need() -> None:
    inputs = given(seeds=2)
    pieces = {piece.key: piece for piece in pieces_of(planning.make_plan(inputs, budget=10_000, spent=0.0), inputs)}
    assert len(pieces) == 2 * (5 + 2)
    assert pieces["evaluate", "lora", "kept"].needs == {("fit", "lora", "kept")}
    assert pieces["fit", "lora", "seed-1"].needs == {("fit", "lora", "kept")}, "it takes the rate of its arm"
    assert ("fit", "nearest", "seed-1") not in pieces


def test_openings_apart_are_pieces_before_the_fit() -> None:
    inputs = given(seeds=2)
    plan = planning.make_plan(inputs, budget=10_000, spent=0.0)
    whole, apart = pieces_of(plan, inputs), pieces_of(plan, inputs, apart=True)
    searches = [piece for piece in apart if piece.work == "search"]
    for name in TRAINED:
        rates = plan.arm(name).learning_rates
        mine = [piece for piece in searches if piece.arm == name]
        assert len(rates) > 1 and [piece.rate for piece in mine] == list(rates), "no seed searches again"
        fit = next(piece for piece in apart if piece.key == ("fit", name, "kept"))
        assert {piece.key for piece in mine} <= fit.needs and len({piece.key for piece in mine}) == len(rates)
        once = next(piece for piece in whole if piece.key == fit.key)
        together = fit.seconds + sum(piece.seconds for piece in mine)
        start = plan.arm(name).seconds["start"] / 2  # of each process
        assert together == pytest.approx(once.seconds + len(rates) * start, rel=1e-6)
        assert all(piece.then == fit.seconds for piece in mine)
    assert len(apart) == len(whole) + len(searches) and {piece.arm for piece in searches} == set(TRAINED)
    two = Rules(["a", "b"])
    for name in TRAINED:  # alone, so that a place would have nothing to do
        alone, divided = ([piece for piece in each if piece.arm == name] for each in (whole, apart))
        assert makespan(divided, two) < makespan(alone, two)
    assert pieces_within(Rules(["a"]), plan, inputs) == whole, "at one place another process is no gain"
    quicker = min(makespan(each, two) for each in (whole, apart))
    assert makespan(pieces_within(two, plan, inputs), two) == quicker


def test_two_places_train_more_in_the_same_time() -> None:
    budget, inputs = 265.0, given()
    alone = plan_for(inputs, Rules(["here"]), budget=budget, spent=20.0, leave_out=True)
    both = plan_for(inputs, Rules(["a", "b"]), budget=budget, spent=20.0, leave_out=True)
    steps = [sum(arm.steps for arm in plan.arms) for plan in (alone, both)]
    assert steps[1] > 1.4 * steps[0] and steps[0] == sum(arm.steps for arm in made(budget, spent=20.0).arms)
    assert both.estimate["seconds"] <= budget * RESERVE + 1e-6
    assert both.estimate["seconds"] == pytest.approx(20 + makespan(pieces_of(both, inputs), Rules(["a", "b"])))


def test_a_slow_place_is_no_second_machine() -> None:
    inputs = given()
    slow = {"b": dict.fromkeys(inputs.methods, 50.0)}
    plan = plan_for(inputs, Rules(["here", "b"], slowness=slow), budget=265.0, spent=20.0, leave_out=True)
    assert [arm.steps for arm in plan.arms] == [arm.steps for arm in made(265.0, spent=20.0).arms]


def test_a_budget_that_is_too_short_is_refused_as_it_was_given() -> None:
    with pytest.raises(planning.TooShort, match="--budget 20s"):
        plan_for(given(speeds=measured()), Rules(["a", "b"]), budget=20.0, spent=0.0, leave_out=True)


def test_arms_have_the_time_that_is_left_of_all_places() -> None:
    plan = plan_for(given(), Rules(["a", "b"]), budget=1000.0, spent=0.0, leave_out=True)
    needed = makespan(pieces_of(plan, given()), Rules(["a", "b"]))
    for name in TRAINED:
        arm = plan.arm(name)
        assert arm.train_limit > sum(arm.seconds.values()) - arm.seconds["fit"] - arm.seconds["evaluate"] - 60
        assert arm.train_limit < sum(arm.seconds.values()) * 1000.0 / needed
