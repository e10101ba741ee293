"""Coverage of intervals, and wrong certificates, where the rows of a group are right and wrong together.

    python benchmarks/clusters.py --runs 2000

Every run draws groups of rows and three arms of known accuracy: 0.70, and two that are just more than the margin of
0.02 below it. A latent normal variable of every row and arm is the sum of parts for the group, for the arm in the
group, for the row, and for both: within a group scores correlate, and so do the differences of arms. One line for each
number of groups and rows a group (`~5`: unequal, 5 in the mean, a quarter of the groups much larger):

    mean     how many of the 95 % intervals of the best arm's accuracy hold it: over the rows, over the groups
    wrong    how many runs certify an arm that is more than the margin below the best: over the rows, over the groups
    lead     how many of the 95 % intervals of the difference of two arms hold it, over the groups

The last line is JSON.
"""

import argparse
import json
import time

import numpy as np
from scipy.stats import norm

from riyaz.comparison.ranking import FEWEST_GROUPS
from riyaz.metrics.groups import group_means, group_numbers
from riyaz.metrics.intervals import interval
from riyaz.metrics.paired import paired_test, shortfall

MARGIN = 0.02
ACCURACY = np.array([0.70, 0.6799, 0.6799])
GROUP, ARM_IN_GROUP, ROW, NOISE = 0.2, 0.15, 0.35, 0.3  # parts of the latent variance
RESAMPLES = 499


def draw(groups: int, size: int, equal: bool, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores (3, n) of arms and the group numbers (n,) of the rows."""
    extra = np.full(groups, size - 1) if equal else generator.poisson(generator.gamma(1.0, size - 1, groups))
    numbers = np.repeat(np.arange(groups), 1 + extra)
    arms, n = len(ACCURACY), len(numbers)
    latent = np.sqrt(GROUP) * generator.standard_normal(groups)[numbers]
    latent = latent + np.sqrt(ARM_IN_GROUP) * generator.standard_normal((arms, groups))[:, numbers]
    latent += np.sqrt(ROW) * generator.standard_normal(n) + np.sqrt(NOISE) * generator.standard_normal((arms, n))
    return (latent < norm.ppf(ACCURACY)[:, None]).astype(float), numbers


def is_wrong(scores: np.ndarray, groups: np.ndarray | None, seed: int) -> bool:
    """Whether one of the two worse arms has a bound within the margin, as `ranking.table_of` computes it."""
    if groups is not None and groups.max() + 1 < FEWEST_GROUPS:
        return False
    values = scores if groups is None else group_means(scores, groups)
    return bool((shortfall(values, seed=seed, resamples=RESAMPLES).upper[1:] <= MARGIN).any())


def measure(groups: int, size: int, equal: bool, runs: int, seed: int) -> dict[str, float]:
    """The shares of one line of the table."""
    counts = dict.fromkeys(("mean_rows", "mean_groups", "wrong_rows", "wrong_groups", "lead_groups"), 0)
    generator = np.random.default_rng([seed, groups, size, equal])
    for run in range(runs):
        scores, drawn = draw(groups, size, equal, generator)
        numbers = group_numbers([str(number) for number in drawn])
        for name, given in (("rows", None), ("groups", numbers)):
            low, high = interval(scores[0], given)
            counts[f"mean_{name}"] += low <= ACCURACY[0] <= high
            counts[f"wrong_{name}"] += is_wrong(scores, given, run)
        if numbers is not None:
            lead = paired_test(scores[0], scores[1], numbers, seed=run)
            counts["lead_groups"] += lead.low <= ACCURACY[0] - ACCURACY[1] <= lead.high
    return {name: count / runs for name, count in counts.items() if size > 1 or name != "lead_groups"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="runs of every line")
    parser.add_argument("--groups", default="5,10,20,40,100", help="numbers of groups")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| groups | rows each | mean, rows | mean, groups | wrong, rows | wrong, groups | lead, groups |")
    print("|---|---|---|---|---|---|---|")
    began, lines = time.monotonic(), []
    for groups in map(int, options.groups.split(",")):
        for size, equal in ((1, True), (5, True), (20, True), (5, False), (20, False)):
            shares = measure(groups, size, equal, options.runs, options.seed)
            lines.append({"groups": groups, "rows": size, "equal": equal, **shares})
            each, lead = f"{'' if equal else '~'}{size}", shares.get("lead_groups")
            cells = [f"{shares[name]:.3f}" for name in ("mean_rows", "mean_groups", "wrong_rows", "wrong_groups")]
            row = [str(groups), each, *cells, "–" if lead is None else f"{lead:.3f}"]
            print(f"| {' | '.join(row)} |", flush=True)
    print(json.dumps({"runs": options.runs, "seconds": round(time.monotonic() - began), "lines": lines}))


if __name__ == "__main__":
    main()
