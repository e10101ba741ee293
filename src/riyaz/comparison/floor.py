"""The score of always giving the most frequent answer: a floor beside the arms."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from riyaz.data import Example
from riyaz.metrics.groups import group_numbers
from riyaz.metrics.intervals import interval
from riyaz.metrics.scores import score_rows
from riyaz.results import Floor


def majority_floor(train: Sequence[Example], tested: Sequence[Example], metric: str) -> tuple[Floor, np.ndarray] | None:
    """The most frequent answer of the training rows with its score, and its scores (n,) on the tested rows by `where`,
    as `arm_row.row_scores` orders those of the arms. None without test rows or where no training answer occurs twice.
    """
    counts = Counter(example.answer.strip() for example in train)
    answer, count = min(counts.items(), key=lambda pair: (-pair[1], pair[0]), default=("", 0))
    if count < 2 or not tested:
        return None
    rows = sorted(tested, key=lambda example: example.where)
    scores = score_rows(metric, [answer] * len(rows), [row.answers for row in rows])
    return Floor(answer, float(scores.mean()), *interval(scores, group_numbers([row.group for row in rows]))), scores
