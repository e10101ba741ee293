"""Arms with their scores on the same test rows, and their order: sure ones from the cheapest, the others from the best.

An arm is sure if the max-T upper bound of its shortfall (`metrics.paired.shortfall`) is within the margin. The bound
does not assume that the best arm is known; arms with equal scores on every row count once. Of rows in groups the bounds
are over the groups, and with fewer than FEWEST_GROUPS no arm is sure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from riyaz.metrics.groups import group_means
from riyaz.metrics.paired import Shortfall, shortfall
from riyaz.results import ArmResult

Scores = Mapping[str, np.ndarray]

# Nats per token of general text. LoRA of a 135 M model forgets 0.1 to 0.4 at learning rates that suit it, and more than
# 1 at those too high; 0.5 nats make every word of general text 1.6 times less likely.
FORGETS = 0.5
FEWEST_GROUPS = 10  # with fewer, how much groups differ is not known well enough


@dataclass(frozen=True)
class Table:
    """Arms with their row scores, mean scores and upper bounds on the shortfall to the best arm."""

    arms: list[ArmResult]
    rows: np.ndarray  # (M, n)
    means: list[float]
    upper: list[float]  # bound of each arm
    distinct: np.ndarray  # the distinct rows of `rows`; where these have groups, (M, G) of `group_means`
    bounds: Shortfall  # of these
    groups: np.ndarray | None = None  # (n,) the number of each row's group

    @property
    def count(self) -> str:
        """What the scores are from: `300 test rows`, `300 test rows in 60 groups`."""
        rows = f"{self.rows.shape[1]} test rows"
        return rows if self.groups is None else f"{rows} in {self.groups.max() + 1} groups"

    @property
    def few_groups(self) -> bool:
        """Whether there are too few groups for any bound."""
        return self.groups is not None and self.groups.max() + 1 < FEWEST_GROUPS

    missing: tuple[str, ...] = ()  # arms that did not run and may be better

    @property
    def kind(self) -> str:
        """What the arms are called: methods, if they are not on several bases."""
        return "arm" if any(arm.base for arm in self.arms) else "method"

    def name(self, i: int) -> str:
        """The name of arm i."""
        return self.arms[i].name

    def sure(self, margin: float) -> list[int]:
        """Indices of the arms within `margin` of the best, those that forget last, from the cheapest."""
        sure = [i for i, bound in enumerate(self.upper) if bound <= margin and not self.few_groups]
        return sorted(sure, key=lambda i: (forgets(self.arms[i]), cost(self.arms[i]), -self.means[i]))

    def unready(self, margin: float) -> list[int]:
        """Indices of the arms, but for the first sure one, that were cut too early to be judged: they may win."""
        best = max(self.means)
        return [i for i, arm in enumerate(self.arms) if arm.may_beat(best) and i not in self.sure(margin)[:1]]

    def ranked(self, margin: float) -> tuple[list[int], int]:
        """Indices of the arms, sure ones first, then the others from the best; and the count of sure ones, which is 0
        while an arm is unready or missing."""
        sure = [] if self.missing or self.unready(margin) else self.sure(margin)
        rest = [i for i in range(len(self.arms)) if i not in sure]
        rest.sort(key=lambda i: (-round(self.means[i], 12), forgets(self.arms[i]), cost(self.arms[i])))
        return sure + rest, len(sure)


def table_of(arms: list[ArmResult], scores: Scores, seed: int, groups: np.ndarray | None = None) -> Table:
    """The arms with their scores {arm: (n,)} and bounds; `groups` (n,) are those of the rows."""
    rows = np.array([scores[arm.name] for arm in arms], float)
    distinct, place = np.unique(rows, axis=0, return_inverse=True)
    distinct = distinct if groups is None else group_means(distinct, groups)
    bounds = replace(shortfall(distinct, seed=seed), n=rows.shape[1])
    upper = bounds.upper[place.reshape(-1)].tolist()
    return Table(arms, rows, rows.mean(axis=1).tolist(), upper, distinct, bounds, groups)


def forgets(arm: ArmResult) -> bool:
    """Whether the arm forgot more than FORGETS."""
    return (arm.forgetting_nats or 0.0) > FORGETS


def cost(arm: ArmResult) -> tuple[float, float]:
    """(ms per answer, MB) as a sorting key; infinite where not measured."""
    memory = arm.serving_mb
    return inf if arm.ms_per_answer is None else arm.ms_per_answer, inf if memory is None else memory
