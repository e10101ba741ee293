"""A linear classifier over three terms, and its artifact."""

from pathlib import Path

import numpy as np
from fit_context import TASK
from tiny_embedder import BagEmbedder

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, WeightsPart
from riyaz.classifiers.linear import Document, EmbedderName, LinearClassifier

LABELS = len(TASK.labels)  # billing, delivery, refund


def classifier(embedder: BagEmbedder | None = None) -> LinearClassifier:
    """Card means billing, order delivery, money refund; with an embedder the vectors add nothing."""
    terms = ["card", "order", "money"]
    tensors = {
        "bias": np.zeros(LABELS, np.float32), "words.idf": np.ones(3, np.float32),
        "words.weights": 4 * np.eye(3, LABELS, dtype=np.float32),
    }  # fmt: skip
    name = None
    if embedder is not None:
        tensors["vectors.weights"] = np.zeros((embedder.dim, LABELS), np.float32)
        name = EmbedderName(embedder.name, embedder.sha256)
    return LinearClassifier(Document(list(TASK.labels), 2.0, {"words": terms}, name), tensors, embedder)


def written(folder: Path, made: LinearClassifier) -> Path:
    """The classifier's artifact in a folder."""
    folder.mkdir(exist_ok=True)
    artifact = Artifact("linear", weights=WeightsPart("linear"), task=TASK)
    artifacts.write(folder / "artifact", artifact, made.files(folder))
    return folder / "artifact"
