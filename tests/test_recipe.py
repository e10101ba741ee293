"""The search for a learning rate: what it costs, which rates it tries, whatever the recipe and the time."""

import math
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from riyaz.methods.recipe import SEARCH_SHARE, Recipe, Rung, rungs, search_rates, search_steps

RATES = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=9, unique=True).map(lambda rates: tuple(sorted(rates)))
STEPS = st.integers(1, 5000)
ANY_SPEED = settings(deadline=None)


def recipe(rates: tuple[float, ...], default: float | None = None) -> Recipe:
    """With these learning rates; the default is the middle one."""
    return Recipe(5, 100, 8, rates, default or rates[len(rates) // 2])


@ANY_SPEED
@given(st.integers(1, 10**6), st.integers(1, 64), st.integers(1, 10), st.integers(0, 1000))
def test_steps_are_whole_epochs_and_never_too_few(rows: int, batch: int, epochs: int, least: int) -> None:
    steps = Recipe(epochs, least, batch, (1e-3,), 1e-3).steps(rows)
    assert steps >= least and steps * batch >= epochs * rows
    assert steps == least or (steps % epochs == 0 and steps * batch < epochs * (rows + batch))


@ANY_SPEED
@given(RATES, STEPS)
@example((1e-4, 2e-4, 4e-4), 20)  # halving three rates leaves two, not one and a half
@example((1e-4, 2e-4, 3e-4, 4e-4, 5e-4), 1000)
def test_the_search_costs_at_most_its_share(rates: tuple[float, ...], steps: int) -> None:
    cost = search_steps(recipe(rates), steps)
    assert cost <= SEARCH_SHARE * (cost + steps) + 1e-6
    assert cost == sum(rung.rates * rung.steps for rung in rungs(recipe(rates), steps))


@ANY_SPEED
@given(RATES, STEPS)
def test_every_round_halves_the_rates_and_doubles_the_steps(rates: tuple[float, ...], steps: int) -> None:
    plan = rungs(recipe(rates), steps)
    if plan:
        assert 1 < plan[0].rates <= len(rates) and plan[0].steps >= 4 and plan[-1].rates == 2
    for before, after in pairwise(plan):
        assert after.rates == math.ceil(before.rates / 2) and after.steps == 2 * before.steps


@ANY_SPEED
@given(RATES, STEPS, st.integers(0, 5000))
def test_more_steps_never_search_less(rates: tuple[float, ...], steps: int, more: int) -> None:
    few, many = rungs(recipe(rates), steps), rungs(recipe(rates), steps + more)
    assert len(few) <= len(many)
    if few and len(few) == len(many) and few[0].rates == many[0].rates:
        assert few[0].steps <= many[0].steps


@ANY_SPEED
@given(RATES, STEPS, st.data())
def test_the_rates_tried_are_the_nearest_to_the_default(rates: tuple[float, ...], steps: int, data) -> None:
    default = data.draw(st.sampled_from(rates))
    plan, found = rungs(recipe(rates), steps), search_rates(recipe(rates, default), steps)
    assert default in found and list(found) == sorted(found) and set(found) <= set(rates)
    assert len(found) == (plan[0].rates if plan else 1)

    def distance(rate: float) -> float:
        return abs(math.log(rate / default))

    left_out = [distance(rate) for rate in rates if rate not in found]
    assert not left_out or max(map(distance, found)) <= min(left_out)


def test_little_time_tries_fewer_rates_before_none() -> None:
    four = recipe((1e-4, 2e-4, 4e-4, 8e-4), 2e-4)
    assert [rungs(four, steps) for steps in (64, 63, 16, 15)] == [
        (Rung(4, 4), Rung(2, 8)), (Rung(2, 15),), (Rung(2, 4),), (),
    ]  # fmt: skip


def test_the_methods_recipes_search_all_their_rates_in_a_full_run() -> None:
    from riyaz.methods import full, lora

    for whole in (lora.RECIPE, full.RECIPE):
        steps = whole.steps(300)
        assert search_rates(whole, steps) == whole.learning_rates
        assert [rung.rates for rung in rungs(whole, steps)] == [4, 2]
        assert whole.default_rate in whole.learning_rates
