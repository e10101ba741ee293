"""A classifier that has a say in the scores of a model's head of labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from riyaz.classifiers import Classifier
from riyaz.classifiers.encoder import log_p


@dataclass(frozen=True, eq=False)
class Beside:
    """The classifier, and the factor of its log-probabilities beside those of the head."""

    classifier: Classifier
    factor: float

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """What is added to the head's log-probabilities of each text's labels, (n, L) float64."""
        scores: np.ndarray = self.factor * log_p(self.classifier.probabilities(texts)).astype(np.float64)
        return scores
