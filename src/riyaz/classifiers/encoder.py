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

from riyaz.artifact import ENCODER, ENCODER_WEIGHTS, TAMPERED, of_question
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

    @property
    def regression(self) -> LinearClassifier | None:
        """The logistic regression that takes part."""
        return self._linear

    @property
    def embedder(self) -> "Embedder":
        """The encoder."""
        return self._embedder

    @classmethod
    def read(
        cls, folder: Path, labels: Sequence[str], number: int | None = None, opened: "Embedder | None" = None,
        plain: "Embedder | None" = None,
    ) -> "EncoderClassifier":  # fmt: skip
        """The classifier of these labels, or of the question of this number, in an artifact's folder. It takes the
        encoder that is `opened`, and its regression the embedder `plain`. Raises RiyazError for damaged files."""
        from riyaz.engine.opening import open_embedder

        path = folder / of_question(ENCODER, number)
        document = from_json(EncoderDocument, read_json(path, TAMPERED), str(path), TAMPERED)
        if not (document.cosine > 0 and document.linear >= 0):
            raise RiyazError(f"the factors are {document.cosine} and {document.linear}", str(path), TAMPERED)
        embedder = opened or open_embedder(str(folder))
        weights = folder / of_question(ENCODER_WEIGHTS, number)
        tensors = read_tensors(weights, {PROTOTYPES: (len(labels), embedder.dim)})
        linear = LinearClassifier.read(folder, labels, number, plain) if document.linear else None
        return cls(document, tensors[PROTOTYPES], embedder, linear)


def log_p(p: np.ndarray) -> np.ndarray:
    """The logarithm of probabilities, those below LEAST as of LEAST."""
    return np.log(np.maximum(p, LEAST))


def encoder_files(
    document: EncoderDocument, prototypes: np.ndarray, folder: Path, number: int | None = None
) -> dict[str, Path | bytes]:
    """The files of an artifact beside the encoder's and the regression's, of one of several questions with its number;
    the larger one is written into `folder`."""
    described, weights = of_question(ENCODER, number), of_question(ENCODER_WEIGHTS, number)
    safetensors.write(folder / weights, {PROTOTYPES: prototypes})
    return {described: encoded(to_json(document) + "\n"), weights: folder / weights}
