"""The full training of a method and its search for a learning rate, and the part of them that a budget allows.

The search is successive halving (Jamieson & Talwalkar 2016): all learning rates train for a few steps, the better half
for twice as many, and so on; the best one trains the final run. The search takes half the steps of the final run, a
third of both.
"""

import math
from dataclasses import dataclass

SEARCH_SHARE = 1 / 3  # of the steps of search and final run together


@dataclass(frozen=True)
class Recipe:
    """The full training of a method, in epochs, and the learning rates to search."""

    epochs: int
    least_steps: int  # with few rows
    batch_size: int  # rows per step
    learning_rates: tuple[float, ...]  # ascending
    default_rate: float  # if there is no time for a search
    share: int = 1  # shares of the training time that is divided among the trained arms

    def steps(self, rows: int) -> int:
        """The steps of the full training over this many training rows."""
        return max(self.least_steps, self.epochs * math.ceil(rows / self.batch_size))


@dataclass(frozen=True)
class Rung:
    """One round of the search: the number of learning rates and the steps that each is trained."""

    rates: int
    steps: int


def rungs(recipe: Recipe, steps: int) -> tuple[Rung, ...]:
    """The rounds of the search before a final run of `steps` steps; none if even two rates would get fewer than 4 steps
    each."""
    rates, shortest = len(recipe.learning_rates), 4
    total = round(steps * SEARCH_SHARE / (1 - SEARCH_SHARE), 6)  # rounded, so that float error does not lose a step
    while rates > 1:
        sizes = [rates]
        while sizes[-1] > 2:
            sizes.append(math.ceil(sizes[-1] / 2))
        first = int(total / sum(size * 2**number for number, size in enumerate(sizes)))
        if first >= shortest:
            return tuple(Rung(size, first * 2**number) for number, size in enumerate(sizes))
        rates //= 2
    return ()


def search_steps(recipe: Recipe, steps: int) -> int:
    """The steps of all rounds of the search together."""
    return sum(rung.rates * rung.steps for rung in rungs(recipe, steps))


def search_rates(recipe: Recipe, steps: int) -> tuple[float, ...]:
    """The learning rates of the first round: all, or those nearest to the default if there is time for fewer."""
    plan = rungs(recipe, steps)
    if not plan:
        return (recipe.default_rate,)
    nearest = sorted(recipe.learning_rates, key=lambda rate: abs(math.log(rate / recipe.default_rate)))
    return tuple(sorted(nearest[: plan[0].rates]))
