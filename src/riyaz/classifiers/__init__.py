"""Classifiers without a language model: a text becomes features, and these the probabilities of a task's labels.

`open_classifier` opens the weights part of an artifact; no module outside this package asks which kind it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np


class Classifier(Protocol):
    """Texts to probabilities; the labels are those of its artifact's task, in their order."""

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(n, L) float32, calibrated; each row sums to 1."""
        ...


def open_classifier(kind: str, folder: Path, labels: Sequence[str]) -> Classifier:
    """The classifier in an artifact's folder; `kind` is that of its weights part, `labels` are its task's. Raises
    RiyazError for damaged files and for an embedder that is missing or another one."""
    if kind == "encoder":
        from riyaz.classifiers.encoder import EncoderClassifier

        return EncoderClassifier.read(folder, labels)
    assert kind == "linear", kind
    from riyaz.classifiers.linear import LinearClassifier

    return LinearClassifier.read(folder, labels)
