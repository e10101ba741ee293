"""Training examples, ranked by the similarity of their prompts to a question: by words, by sentence vectors, or both.

examples_index.json          which of these, of how many examples a label's score is the mean, and the embedder
examples_index.safetensors   the vectors of the prompts (n, dim), float16
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from riyaz.artifact import EXAMPLES_INDEX, EXAMPLES_VECTORS, TAMPERED
from riyaz.data import Example, Message
from riyaz.errors import RiyazError
from riyaz.files import encoded
from riyaz.json_files import from_json, read_json, to_json
from riyaz.sources import safetensors

if TYPE_CHECKING:
    from riyaz.retrieval.embedder import Embedder

IndexKind = Literal["words", "vectors", "both"]


@dataclass(frozen=True)
class IndexDocument:
    """examples_index.json; `embedder` is the name of the model that made the vectors, `sha256` the hash of its weights,
    both "" for words. `per_label` examples, the nearest of a label, make its score."""

    kind: IndexKind = "words"
    per_label: int = 1
    embedder: str = ""
    sha256: str = ""


class ExampleIndex:
    """The prompts of examples. Similarities are BM25 scores (words), cosines of at least 0 (vectors), or the cosine
    plus the BM25 score as a share of the highest that the question allows (both)."""

    def __init__(
        self, examples: Sequence[Example], kind: IndexKind = "words", vectors: np.ndarray | None = None,
        embedder: "Embedder | None" = None,
    ) -> None:  # fmt: skip
        """`vectors` (n, dim) float32 are those of the prompts by `embedder`; not for words."""
        from riyaz.retrieval.lexical import BM25, words_and_prefixes

        self.kind, self._examples, self._vectors, self._embedder = kind, examples, vectors, embedder
        prompts = [example.prompt for example in examples]
        self._prompts = None if kind == "vectors" else BM25(prompts, None if kind == "words" else words_and_prefixes)

    def nearest(self, messages: Sequence[Message], k: int) -> list[Example]:
        """The k examples whose prompts are nearest to the last message, nearest first."""
        similarities = self.similarities([messages[-1]["content"]])[0]
        return [self._examples[i] for i in np.argsort(-similarities, kind="stable")[:k]]

    def similarities(self, texts: Sequence[str], vectors: np.ndarray | None = None) -> np.ndarray:
        """How near the prompt of each example is to each text, (m, n) float32. `vectors` (m, dim) are the texts' own,
        where they are known."""
        near = np.zeros((len(texts), len(self._examples)), np.float32)
        if self.kind != "words":
            assert self._embedder is not None and self._vectors is not None
            vectors = self._embedder.embed(texts) if vectors is None else vectors
            np.maximum(vectors @ self._vectors.T, 0.0, out=near)
        if self._prompts is not None:
            for row, text in zip(near, texts):
                highest = 1.0 if self.kind == "words" else self._prompts.highest(text)
                row += self._prompts.scores(text) / (highest or 1.0)
        return near


def label_means(similarities: np.ndarray, labels: np.ndarray, count: int, per_label: int) -> np.ndarray:
    """The score (count,) of each label: the mean similarity of the nearest `per_label` of its examples, whose
    similarities (n,) and labels (n,) are given; examples with NaN are left out. 0, the lowest, for a label without an
    example."""
    there = ~np.isnan(similarities)
    if not there.all():
        similarities, labels = similarities[there], labels[there]
    if per_label == 1:
        scores = np.zeros(count, similarities.dtype)
        np.maximum.at(scores, labels, similarities)
        return scores
    order = np.lexsort((-similarities, labels))
    sorted_labels = labels[order]
    sizes = np.bincount(labels, minlength=count)
    places = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[sorted_labels]  # within the label, nearest first
    kept = places < per_label
    sums = np.bincount(sorted_labels[kept], similarities[order][kept], count)
    return sums / np.maximum(np.minimum(sizes, per_label), 1)


def index_files(document: IndexDocument, vectors: np.ndarray | None, folder: Path) -> dict[str, Path | bytes]:
    """The files of an artifact's index; the vectors are written into `folder`."""
    files: dict[str, Path | bytes] = {EXAMPLES_INDEX: encoded(to_json(document) + "\n")}
    if vectors is not None:
        files[EXAMPLES_VECTORS] = folder / EXAMPLES_VECTORS
        safetensors.write(folder / EXAMPLES_VECTORS, {"vectors": vectors.astype(np.float16)})
    return files


def read_index(folder: Path, examples: Sequence[Example]) -> tuple[IndexDocument, ExampleIndex]:
    """The index of an artifact's examples; without the file one by words. Raises RiyazError for damaged files, and for
    an embedder that is missing or another one."""
    path = folder / EXAMPLES_INDEX
    if not path.exists():
        return IndexDocument(), ExampleIndex(examples)
    document = from_json(IndexDocument, read_json(path, TAMPERED), str(path), TAMPERED)
    if document.per_label < 1:
        raise RiyazError(f"per_label is {document.per_label}", str(path), TAMPERED)
    if document.kind == "words":
        return document, ExampleIndex(examples)
    from riyaz.engine.opening import open_same_embedder

    embedder = open_same_embedder(document.embedder, document.sha256, folder)
    vectors = _read_vectors(folder / EXAMPLES_VECTORS, (len(examples), embedder.dim))
    return document, ExampleIndex(examples, document.kind, vectors, embedder)


def _read_vectors(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Raises RiyazError for vectors of another shape or that are not finite."""
    file = safetensors.read(path)
    held = file.tensors.get("vectors")
    if held is None or (held.dtype, held.shape) != ("F16", shape):
        what = "holds no tensor vectors" if held is None else f"vectors is {held.dtype} {held.shape}, not F16 {shape}"
        raise RiyazError(what, str(path), TAMPERED)
    vectors = file.array("vectors").astype(np.float32)
    if not np.isfinite(vectors).all():
        raise RiyazError("vectors holds NaN or an infinity", str(path), TAMPERED)
    return vectors
