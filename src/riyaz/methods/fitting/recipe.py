"""The full training of a method, its search for a learning rate, and the part of both that a budget allows.

Every rate trains the run's opening: its first steps, at a constant rate after a warm-up. The best rate's run is then
continued, and the rate falls to the end (warm-up, stable, decay: Hägele et al. 2024, arXiv 2405.18392). An opening can
be continued to any number of steps, so nothing of it is lost when there is more or less time than planned.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from riyaz.families import ModelConfig

OPENING_SHARE = 1 / 4  # of the full training's steps
SEARCHED_SHARE = 1 / 2  # of them, below which no rate is searched: the openings would take most of the time
LEAST_OPENING = 4  # steps
PASS_TOKENS, LEAST_PASS_TOKENS = 1024, 256
LARGE = 150_000  # numbers of a token, hidden and inner, in all layers, above which a pass has half as many tokens


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """What the user chose in place of the methods' own values; None: not given."""

    rank: int | None = None  # of a LoRA
    alpha: int | None = None
    beta: float | None = None  # of an objective on better and worse answers
    length_normalised: bool = False
    epochs: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None

    @classmethod
    def of(cls, options: Any, *methods: str) -> Self:
        """The fields of these names of an object with more. Of learning rates by method, that of the first of `methods`
        that has one."""
        values = {option.name: getattr(options, option.name) for option in fields(cls)}
        rates = values["learning_rate"]
        if isinstance(rates, Mapping):
            values["learning_rate"] = next((rates[method] for method in methods if method in rates), None)
        return cls(**values)

    def explicit(self) -> dict[str, float]:
        """The options that were given, by name; a switch only where it is on."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value is not False}


NOTHING = ByHand()


@dataclass(frozen=True)
class Recipe:
    """The full training of a method, in epochs, and the learning rates to search."""

    epochs: int
    least_steps: int  # with few rows
    batch_size: int  # rows per step
    learning_rates: tuple[float, ...]  # ascending
    default_rate: float  # if there is no time for a search
    share: int = 1  # shares of the training time that is divided among the trained arms
    fixed: bool = False  # whether the user has said how long it trains
    refit: bool = False  # whether the arm is trained once more, with the validation rows too, if there is time

    def steps(self, rows: int) -> int:
        """The steps of the full training over this many training rows."""
        return max(self.least_steps, self.epochs * math.ceil(rows / self.batch_size))

    def by_hand(self, hand: ByHand) -> "Recipe":
        """The recipe with the user's own epochs or steps, batch size and learning rate, which is then the only one."""
        changed = self if hand.batch_size is None else replace(self, batch_size=hand.batch_size)
        if hand.steps is not None:
            changed = replace(changed, epochs=0, least_steps=hand.steps, fixed=True)
        if hand.epochs is not None:
            changed = replace(changed, epochs=hand.epochs, least_steps=1, fixed=True)
        if hand.learning_rate is not None:
            rate = hand.learning_rate
            changed = replace(changed, learning_rates=(rate,), default_rate=rate)
        return changed


def pass_tokens(config: ModelConfig) -> int:
    """The most tokens of a forward pass in training: half as many for each doubling of what a token leaves behind for
    the backward pass. A LoRA of 1.1 billion weights so peaks at 3.8 GB instead of 4.7, in 1.06 times the time."""
    numbers = config.n_layers * (config.hidden_size + config.intermediate_size)
    halvings = max(0, math.ceil(math.log2(numbers / LARGE)))
    return max(LEAST_PASS_TOKENS, PASS_TOKENS >> halvings)


def refit_steps(rows: int, valid: int, steps: int) -> int:
    """As many steps for each of rows + valid rows as `steps` are for each of `rows`."""
    return math.ceil(steps * (rows + valid) / rows)


def opening(steps: int, full: int) -> int:
    """The steps of the opening of a run of `steps` steps where the full training has `full`: a quarter of that, at most
    half of the run; 0 if that would be fewer than LEAST_OPENING."""
    first = min(int(full * OPENING_SHARE), steps // 2)
    return first if first >= LEAST_OPENING else 0


def trains_opening(rates: Sequence[float], steps: int, full: int) -> bool:
    """Whether openings are trained before a run: of several rates, or of a run that may yet get another length."""
    return len(rates) > 1 or steps < full


def search_rates(recipe: Recipe, steps: int, full: int) -> tuple[float, ...]:
    """The learning rates that are tried before a run of `steps` steps: all, or the default in a much shortened run."""
    searched = opening(steps, full) and steps >= full * SEARCHED_SHARE
    return recipe.learning_rates if searched else (recipe.default_rate,)
