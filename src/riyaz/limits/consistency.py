"""Self-consistency (Wang et al. 2023, arXiv 2203.11171): do several drawn answers agree, and are they then right?"""

from collections import Counter

import numpy as np

from riyaz.engine.request import Sampling
from riyaz.limits.abstain import area_under_risk
from riyaz.limits.figures import share_of
from riyaz.limits.inputs import Rows
from riyaz.limits.sampled import sampled, short_of
from riyaz.metrics.groups import group_numbers
from riyaz.metrics.scores import normalise_squad
from riyaz.predictor import ModelPredictor, Prediction
from riyaz.results import Part
from riyaz.scoring import score

DRAWN, TEMPERATURE, LEAST, MOST, RIGHT = 5, 0.7, 8, 40, 0.5
BLIND = "Answers that agree can all be wrong. Two wordings of one answer count as different ones."


def measure(answering: ModelPredictor, data: Rows, share: float) -> Part:
    """The share of drawn answers that agree with the commonest, and whether agreement tells right answers."""
    every = data.test[:MOST]
    rows = sampled(every, share, LEAST)
    conversations = [row.messages for row in rows]
    answers = [
        [each.text for each in answering.answers(conversations, sampling=Sampling(TEMPERATURE, seed=seed))]
        for seed in range(DRAWN)
    ]
    counted = [Counter(map(normalise_squad, texts)).most_common(1)[0] for texts in zip(*answers)]
    agreement = np.array([count / DRAWN for _, count in counted])
    common = [
        next(text for text in texts if normalise_squad(text) == most)
        for texts, (most, _) in zip(zip(*answers), counted)
    ]
    wrong = score(data.task, [Prediction(text) for text in common], rows).rows < RIGHT
    clusters = group_numbers([row.group for row in rows])
    figures = [
        share_of("drawn answers that agree with the commonest", agreement, clusters=clusters),
        area_under_risk("AURC with agreement as confidence", agreement, wrong, clusters),
    ]
    what = f"{len(rows):,} of your rows, {DRAWN} answers drawn to each at temperature {TEMPERATURE}."
    return Part("self-consistency", data.source, what, figures, BLIND, short_of(len(rows), len(every), "rows"))
