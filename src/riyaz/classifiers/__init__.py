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


def open_classifiers(kind: str, folder: Path, choices: Sequence[Sequence[str]]) -> tuple[Classifier, ...]:
    """The classifiers of several questions in an artifact's folder, given the keys of each one's choices; they share
    what turns a text into a vector. Raises RiyazError as `open_classifier`."""
    from riyaz.classifiers.shared import SharedEmbedder

    classifiers: list[Classifier] = []
    if kind == "encoder":
        from riyaz.classifiers.encoder import EncoderClassifier
        from riyaz.engine.opening import open_embedder

        encoder, plain = SharedEmbedder(open_embedder(str(folder))), None
        for number, keys in enumerate(choices):
            one = EncoderClassifier.read(folder, keys, number, encoder, plain)
            if plain is None and one.regression is not None and one.regression.embedder is not None:
                plain = SharedEmbedder(one.regression.embedder)
                one = EncoderClassifier.read(folder, keys, number, encoder, plain)
            classifiers.append(one)
        return tuple(classifiers)
    from riyaz.classifiers.linear import LinearClassifier

    shared = None
    for number, keys in enumerate(choices):
        linear = LinearClassifier.read(folder, keys, number, shared)
        if shared is None and linear.embedder is not None:
            shared = SharedEmbedder(linear.embedder)
            linear = LinearClassifier.read(folder, keys, number, shared)
        classifiers.append(linear)
    return tuple(classifiers)
