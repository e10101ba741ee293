"""A fine-tuned sentence encoder with one vector for each label, alone or together with a logistic regression.

model.safetensors, config.json, tokenizer files   the encoder, as `engine.opening.open_embedder` reads a folder
encoder.json, encoder.safetensors                  two factors; prototypes (L, C): the vectors of the labels
classifier.json, classifier.safetensors            the regression (`classifiers.linear`), where it takes part
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from riyaz.artifact import ENCODER, ENCODER_WEIGHTS, TAMPERED
from riyaz.classifiers.linear import LinearClassifier, read_tensors
from riyaz.errors import RiyazError
from riyaz.files import encoded
from riyaz.json_files import from_json, read_json, to_json
from riyaz.metrics.calibration import LEAST, probabilities
from riyaz.sources import safetensors

if TYPE_CHECKING:
    from riyaz.retrieval.embedder import Embedder

PROTOTYPES = "prototypes"


@dataclass(frozen=True)
class EncoderDocument:
    """encoder.json: a label's score is `cosine` · (vector · prototype) + `linear` · log p of the regression."""

    cosine: float
    linear: float = 0.0  # without a regression


class EncoderClassifier:
    """The probabilities of L labels: the softmax of their scores."""

    def __init__(
        self, document: EncoderDocument, prototypes: np.ndarray, embedder: "Embedder",
        linear: LinearClassifier | None = None,
    ) -> None:  # fmt: skip
        """`linear` where the document gives it a factor."""
        self.document, self.prototypes, self._embedder, self._linear = document, prototypes, embedder, linear

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(n, L) float32, calibrated; each row sums to 1."""
        scores = self.document.cosine * (self.vectors(texts) @ self.prototypes.T)
        if self._linear is not None:
            scores += self.document.linear * log_p(self._linear.probabilities(texts))
        return probabilities(scores, 1.0)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The texts' vectors (n, C) float32, of unit length."""
        return self._embedder.embed(texts)

    @classmethod
    def read(cls, folder: Path, labels: Sequence[str]) -> "EncoderClassifier":
        """The classifier of these labels in an artifact's folder. Raises RiyazError for damaged files."""
        from riyaz.engine.opening import open_embedder

        path = folder / ENCODER
        document = from_json(EncoderDocument, read_json(path, TAMPERED), str(path), TAMPERED)
        if not (document.cosine > 0 and document.linear >= 0):
            raise RiyazError(f"the factors are {document.cosine} and {document.linear}", str(path), TAMPERED)
        embedder = open_embedder(str(folder))
        tensors = read_tensors(folder / ENCODER_WEIGHTS, {PROTOTYPES: (len(labels), embedder.dim)})
        linear = LinearClassifier.read(folder, labels) if document.linear else None
        return cls(document, tensors[PROTOTYPES], embedder, linear)


def log_p(p: np.ndarray) -> np.ndarray:
    """The logarithm of probabilities, those below LEAST as of LEAST."""
    return np.log(np.maximum(p, LEAST))


def encoder_files(document: EncoderDocument, prototypes: np.ndarray, folder: Path) -> dict[str, Path | bytes]:
    """The files of an artifact beside the encoder's and the regression's; the larger one is written into `folder`."""
    safetensors.write(folder / ENCODER_WEIGHTS, {PROTOTYPES: prototypes})
    return {ENCODER: encoded(to_json(document) + "\n"), ENCODER_WEIGHTS: folder / ENCODER_WEIGHTS}
