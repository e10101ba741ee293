"""How long a trained method should train, and over which learning rates it searches; and the part of it that fits.

Successive halving (Jamieson & Talwalkar 2016): every rate trains briefly, the better half twice as long, the best
one for the whole run. The search costs half of the final run, a third of both.
"""

import math
from dataclasses import dataclass

SEARCH_SHARE = 1 / 3


@dataclass(frozen=True)
class Recipe:
    """A trained method's full training, in epochs, and the learning rates worth trying."""

    epochs: int
    least_steps: int
    batch_size: int
    learning_rates: tuple[float, ...]  # ascending
    default_rate: float  # where the search has no room
    share: int = 1  # of the time that is divided over the trained arms

    def steps(self, rows: int) -> int:
        """Steps of the full recipe over this many training rows."""
        return max(self.least_steps, self.epochs * math.ceil(rows / self.batch_size))


@dataclass(frozen=True)
class Rung:
    """One round of the search: so many rates, each trained for so many steps."""

    rates: int
    steps: int


def rungs(recipe: Recipe, steps: int) -> tuple[Rung, ...]:
    """The search that goes with a final run of `steps` steps; empty when it would be too short to say anything."""
    rates, shortest = len(recipe.learning_rates), 4
    total = round(steps * SEARCH_SHARE / (1 - SEARCH_SHARE), 6)  # a whole number of steps must not come out below it
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
    """Steps the search takes in all."""
    return sum(rung.rates * rung.steps for rung in rungs(recipe, steps))


def search_rates(recipe: Recipe, steps: int) -> tuple[float, ...]:
    """The learning rates of the first rung: all, or those nearest to the default when fewer fit."""
    plan = rungs(recipe, steps)
    if not plan:
        return (recipe.default_rate,)
    nearest = sorted(recipe.learning_rates, key=lambda rate: abs(math.log(rate / recipe.default_rate)))
    return tuple(sorted(nearest[: plan[0].rates]))
