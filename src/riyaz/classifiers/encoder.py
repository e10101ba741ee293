"""A fine-tuned sentence encoder with one vector for each label.

model.safetensors, config.json, tokenizer files   the encoder, as `engine.opening.open_embedder` reads a folder
classifier.json                                    the temperature
classifier.safetensors                             prototypes (L, C): the vectors of the labels
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from riyaz.artifact import CLASSIFIER, CLASSIFIER_WEIGHTS, TAMPERED
from riyaz.classifiers.linear import read_tensors
from riyaz.errors import RiyazError
from riyaz.files import encoded
from riyaz.json_files import from_json, read_json, to_json
from riyaz.metrics.calibration import probabilities
from riyaz.sources import safetensors

if TYPE_CHECKING:
    from riyaz.retrieval.embedder import Embedder

PROTOTYPES = "prototypes"


@dataclass(frozen=True)
class EncoderDocument:
    """classifier.json; `temperature` divides the products of a text's vector and the labels'."""

    temperature: float


class EncoderClassifier:
    """The probabilities of L labels: the softmax of (vector · prototypes) / temperature."""

    def __init__(self, document: EncoderDocument, prototypes: np.ndarray, embedder: "Embedder") -> None:
        self.document, self.prototypes, self._embedder = document, prototypes, embedder

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(n, L) float32, calibrated; each row sums to 1."""
        return probabilities(self.vectors(texts) @ self.prototypes.T, self.document.temperature)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The texts' vectors (n, C) float32, of unit length."""
        return self._embedder.embed(texts)

    @classmethod
    def read(cls, folder: Path, labels: int) -> "EncoderClassifier":
        """The classifier of so many labels in an artifact's folder. Raises RiyazError for damaged files."""
        from riyaz.engine.opening import open_embedder

        path = folder / CLASSIFIER
        document = from_json(EncoderDocument, read_json(path, TAMPERED), str(path), TAMPERED)
        if not document.temperature > 0:
            raise RiyazError(f"the temperature is {document.temperature}", str(path), TAMPERED)
        embedder = open_embedder(str(folder))
        tensors = read_tensors(folder / CLASSIFIER_WEIGHTS, {PROTOTYPES: (labels, embedder.dim)})
        return cls(document, tensors[PROTOTYPES], embedder)


def encoder_files(document: EncoderDocument, prototypes: np.ndarray, folder: Path) -> dict[str, Path | bytes]:
    """The files of an artifact beside the encoder's; the larger one is written into `folder`."""
    safetensors.write(folder / CLASSIFIER_WEIGHTS, {PROTOTYPES: prototypes})
    return {CLASSIFIER: encoded(to_json(document) + "\n"), CLASSIFIER_WEIGHTS: folder / CLASSIFIER_WEIGHTS}
