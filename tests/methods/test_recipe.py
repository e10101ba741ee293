"""The opening of a run and the learning rates that it tries, whatever the recipe and the time."""

from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from riyaz import methods as table
from riyaz.methods.fitting.recipe import (
    LEAST_OPENING,
    OPENING_SHARE,
    SEARCHED_SHARE,
    Recipe,
    opening,
    pass_tokens,
    search_rates,
)

RATES = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=9, unique=True).map(lambda rates: tuple(sorted(rates)))
STEPS = st.integers(1, 5000)
ANY_SPEED = settings(deadline=None)


def recipe(rates: tuple[float, ...]) -> Recipe:
    """With these learning rates; the default is the middle one."""
    return Recipe(5, 100, 8, rates, rates[len(rates) // 2])


@ANY_SPEED
@given(st.integers(1, 10**6), st.integers(1, 64), st.integers(1, 10), st.integers(0, 1000))
def test_steps_are_whole_epochs_and_never_too_few(rows: int, batch: int, epochs: int, least: int) -> None:
    steps = Recipe(epochs, least, batch, (1e-3,), 1e-3).steps(rows)
    assert steps >= least and steps * batch >= epochs * rows
    assert steps == least or (steps % epochs == 0 and steps * batch < epochs * (rows + batch))


def test_the_opening_is_a_quarter_of_the_full_training() -> None:
    assert [opening(steps, 100) for steps in (100, 60, 50, 40, 9, 8, 7)] == [25, 25, 25, 20, 4, 4, 0]
    assert [opening(full, full) for full in (15, 16, 19, 20)] == [0, 4, 4, 5]


@ANY_SPEED
@given(STEPS, STEPS)
@example(8, 16)
@example(9, 100)
def test_an_opening_leaves_half_of_the_run_for_the_rate_to_fall(steps: int, full: int) -> None:
    first = opening(steps, full)
    assert first == 0 or (LEAST_OPENING <= first <= steps / 2 and first <= full * OPENING_SHARE)


@ANY_SPEED
@given(STEPS, STEPS, st.integers(0, 5000))
def test_more_steps_never_have_a_shorter_opening(steps: int, full: int, more: int) -> None:
    assert opening(steps, full) <= opening(steps + more, full)


@ANY_SPEED
@given(RATES, STEPS, STEPS)
def test_all_rates_are_tried_or_the_default_alone(rates: tuple[float, ...], steps: int, full: int) -> None:
    any_recipe = recipe(rates)
    found = search_rates(any_recipe, steps, full)
    searched = opening(steps, full) > 0 and steps >= SEARCHED_SHARE * full
    assert found == (rates if searched else (any_recipe.default_rate,))


def test_a_much_shortened_run_takes_the_default_rate() -> None:
    three = recipe((1e-4, 2e-4, 4e-4))
    assert [len(search_rates(three, steps, 100)) for steps in (100, 50, 49, 10)] == [3, 3, 1, 1]
    assert search_rates(three, 49, 100) == (2e-4,)
    assert search_rates(three, 15, 15) == (2e-4,), "its opening would be too short to tell rates apart"


@pytest.mark.parametrize("method", [name for name, method in table.METHODS.items() if method.recipe])
def test_recipes_name_ascending_rates_around_the_default_and_search_them_all(method: str) -> None:
    found = table.METHODS[method].recipe
    assert found is not None and found.default_rate in found.learning_rates
    assert list(found.learning_rates) == sorted(found.learning_rates)
    assert found.steps(10) == found.least_steps and found.steps(8 * 1000) == found.epochs * 1000
    for rows in (10, 300, 8000):
        assert search_rates(found, found.steps(rows), found.steps(rows)) == found.learning_rates


@pytest.mark.parametrize(
    ("layers", "hidden", "inner", "tokens"),
    [(2, 64, 96, 1024), (30, 576, 1536, 1024), (24, 896, 4864, 1024), (22, 2048, 5632, 512), (28, 3072, 8192, 256),
     (80, 8192, 28672, 256)],
)  # fmt: skip
def test_a_pass_of_a_larger_model_has_fewer_tokens(layers: int, hidden: int, inner: int, tokens: int) -> None:
    config = SimpleNamespace(n_layers=layers, hidden_size=hidden, intermediate_size=inner)
    assert pass_tokens(config) == tokens  # type: ignore[arg-type]
