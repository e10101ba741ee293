"""Multinomial logistic regression over terms and sentence vectors, answered with numpy.

classifier.json          labels, terms in the order of their weights, the embedder by name and hash, the temperature
classifier.safetensors   bias (L,), of each block its weights (features, L), of terms their idf (terms,)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from riyaz.artifact import CLASSIFIER, CLASSIFIER_WEIGHTS, TAMPERED, of_question
from riyaz.classifiers.terms import TERMS, term_entries
from riyaz.errors import RiyazError, shown
from riyaz.files import encoded, make_folder
from riyaz.json_files import from_json, read_json, to_json
from riyaz.metrics.calibration import probabilities
from riyaz.sources import safetensors

if TYPE_CHECKING:
    from riyaz.retrieval.embedder import Embedder

VECTORS = "vectors"  # the block of the embedder; the other blocks are keys of TERMS


@dataclass(frozen=True)
class EmbedderName:
    """The embedder whose vectors the weights were fitted to: its name, and the hash of its weights."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Document:
    """classifier.json; `terms` has a key of TERMS for each block of terms. `temperature` divides the logits."""

    labels: list[str]
    temperature: float
    terms: dict[str, list[str]] = field(default_factory=dict)
    embedder: EmbedderName | None = None


class LinearClassifier:
    """The probabilities of L labels: the softmax of (features · weights + bias) / temperature."""

    def __init__(
        self, document: Document, tensors: Mapping[str, np.ndarray], embedder: "Embedder | None" = None
    ) -> None:
        """`tensors` as in classifier.safetensors; the embedder where the document names one."""
        self.document, self.tensors, self._embedder = document, tensors, embedder
        self._places = {kind: {term: i for i, term in enumerate(terms)} for kind, terms in document.terms.items()}

    @property
    def embedder(self) -> "Embedder | None":
        """The embedder whose vectors it reads."""
        return self._embedder

    @property
    def weights(self) -> int:
        """Number of the weights that were fitted."""
        return sum(tensor.size for name, tensor in self.tensors.items() if not name.endswith(".idf"))

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(n, L) float32, calibrated; each row sums to 1."""
        return probabilities(self.logits(texts), self.document.temperature)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(n, L) float32, before calibration."""
        logits = np.tile(self.tensors["bias"], (len(texts), 1))
        for kind, places in self._places.items():
            entries = term_entries(kind, texts, places, self.tensors[f"{kind}.idf"])
            logits += entries.times(self.tensors[f"{kind}.weights"])
        if self._embedder is not None:
            logits += self._embedder.embed(texts) @ self.tensors[f"{VECTORS}.weights"]
        return logits

    def files(self, folder: Path, number: int | None = None) -> dict[str, Path | bytes]:
        """The files of its artifact, of one of several questions with its number; the larger one is written into
        `folder`, which is created."""
        make_folder(folder)
        described, weights = of_question(CLASSIFIER, number), of_question(CLASSIFIER_WEIGHTS, number)
        safetensors.write(folder / weights, dict(self.tensors))
        return {described: encoded(to_json(self.document) + "\n"), weights: folder / weights}

    @classmethod
    def read(
        cls, folder: Path, labels: Sequence[str], number: int | None = None, opened: "Embedder | None" = None
    ) -> "LinearClassifier":
        """The classifier of these labels, or of the question of this number, in an artifact's folder. It takes the
        embedder that is `opened`, if that is its own. Raises RiyazError for damaged files, and for an embedder that is
        missing or another one."""
        path = folder / of_question(CLASSIFIER, number)
        document = from_json(Document, read_json(path, TAMPERED), str(path), TAMPERED)
        unknown = [f"unknown terms {shown(kind)}" for kind in document.terms if kind not in TERMS]
        if document.labels != list(labels):
            unknown.append("its labels are not those of the task")
        if not document.temperature > 0:
            unknown.append(f"the temperature is {document.temperature}")
        if unknown:
            raise RiyazError(unknown[0], str(path), TAMPERED)
        embedder: Embedder | None = None
        if document.embedder is not None:
            from riyaz.engine.opening import open_same_embedder

            same = opened is not None and opened.sha256 == document.embedder.sha256
            embedder = opened if same else open_same_embedder(document.embedder.name, document.embedder.sha256, folder)
        shapes: dict[str, tuple[int, ...]] = {"bias": (len(labels),)}
        for kind, terms in document.terms.items():
            shapes |= {f"{kind}.idf": (len(terms),), f"{kind}.weights": (len(terms), len(labels))}
        if embedder is not None:
            shapes[f"{VECTORS}.weights"] = (embedder.dim, len(labels))
        return cls(document, read_tensors(folder / of_question(CLASSIFIER_WEIGHTS, number), shapes), embedder)


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The tensors of a file. Raises RiyazError for one that is missing, unknown, of another shape or not finite."""
    file, tensors = safetensors.read(path), {}
    for name in file.tensors.keys() | shapes.keys():
        if name not in shapes or name not in file.tensors:
            raise RiyazError(f"the tensor {name} is {'unknown' if name in file.tensors else 'missing'}", str(path))
        info, shape = file.tensors[name], shapes[name]
        if info.dtype != "F32" or info.shape != shape:
            raise RiyazError(f"{name} is {info.dtype} {info.shape}, not F32 {shape}", str(path), TAMPERED)
        tensors[name] = file.array(name)
        if not np.isfinite(tensors[name]).all():
            raise RiyazError(f"{name} holds NaN or an infinity", str(path), TAMPERED)
    return tensors
