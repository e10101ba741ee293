"""Search for passages by words (BM25) and by meaning (vectors), fused by rank.

Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009) needs no common scale of BM25 and cosine: a chunk's score is
the sum over both rankings of weight / (60 + rank). Words weigh more, because with equal weights the first hit was worse
than with words alone (docs/log.md).
"""

from collections.abc import Collection as Container
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from riyaz.errors import RiyazError
from riyaz.retrieval.chunks import passage
from riyaz.retrieval.collection import Collection
from riyaz.retrieval.copies import Saying, grouped, saying
from riyaz.retrieval.database import REBUILD
from riyaz.retrieval.embedder import Embedder
from riyaz.retrieval.lexical import BM25, words_and_prefixes
from riyaz.retrieval.relevance import relevance

RANK = 60  # the paper's constant; the larger, the less the first places count more than the next
DENSE = 0.3  # weight of the ranking by vectors; that by words has 1
DEPTH = 100  # places of each ranking that are fused


@dataclass(frozen=True)
class Hit:
    """A retrieved chunk: characters `start` to `end` of its document, and its score for the query."""

    doc_id: str
    title: str
    heading: str
    start: int
    end: int
    text: str
    score: float
    page: int | None = None  # the page it begins on, in a document with pages, and the one it ends on
    last_page: int | None = None
    relevance: float | None = None  # from about 0 to 1
    relevant: bool | None = None  # whether anything fits the query; None in a collection that is not calibrated
    also: tuple[str, ...] = ()  # other documents that say the same


def citation(hit: Hit) -> dict[str, Any]:
    """The citation of a passage in an answer, as JSON values."""
    pages = {"page": hit.page, "last_page": hit.last_page} if hit.page else {}
    copies = {"also": list(hit.also)} if hit.also else {}
    doubt = {"relevant": False} if hit.relevant is False else {}
    return {"doc_id": hit.doc_id, "title": hit.title, "start": hit.start, "end": hit.end, **pages, **copies, **doubt}


def ranked_names(hits: Sequence[Hit], wanted: Sequence[str]) -> list[str]:
    """The document of each hit, by the name that `wanted` has for it where several documents say the same."""
    return [next((name for name in hit.also if name in wanted), hit.doc_id) for hit in hits]


MAX_CACHED = 10_000  # rankings, some 20 MB


class Retriever:
    """Search in one collection: by words, and by vectors too if collection and caller have an embedder."""

    def __init__(self, collection: Collection, embedder: Embedder | None = None) -> None:
        """Raises RiyazError if the vectors of the collection come from another embedder."""
        stored = collection.embedder
        if embedder is not None and stored is not None and stored != (embedder.name, embedder.sha256):
            what = f"its vectors come from {stored[0]} ({stored[1][:12]}), not {embedder.name} ({embedder.sha256[:12]})"
            raise RiyazError(what, str(collection.path), REBUILD)
        self._chunks = collection.chunks()
        self._vectors = collection.vectors() if embedder is not None else None
        if embedder is not None and self._vectors is not None and self._vectors.shape[1] != embedder.dim:
            what = f"broken: its vectors have {self._vectors.shape[1]} numbers, those of {embedder.name} {embedder.dim}"
            raise RiyazError(what, str(collection.path), REBUILD)
        self._embedder = embedder if self._vectors is not None else None
        self._lexical = BM25([passage(chunk) for chunk in self._chunks], words_and_prefixes)
        self._paged = {document.doc_id: document for document in collection.documents if document.pages}
        self._untitled = {document.doc_id for document in collection.documents if document.untitled}
        self._sayings: dict[int, Saying] = {}  # index of a chunk -> its words
        self._places: dict[str, list[int]] = {}
        for place, chunk in enumerate(self._chunks):
            self._places.setdefault(chunk.doc_id, []).append(place)
        self._query_vectors: dict[str, np.ndarray] = {}  # query -> its vector
        self._ranked: dict[tuple[str, frozenset[str] | None, int], list[tuple[int, float, float]]] = {}
        whole = self._vectors is not None or collection.vectors() is None
        self.threshold = collection.threshold if whole else None  # it was calibrated with the vectors

    def search(
        self,
        queries: Sequence[str],
        k: int,
        within: Sequence[Container[str] | None] | None = None,
        without: Sequence[Container[str]] | None = None,
    ) -> list[list[Hit]]:
        """At most k hits for each query, best first, and passages that say the same are one hit. With `within[i]` all
        hits of query i come from these documents, and there are k hits if the documents have that many different
        chunks; none comes from those of `without[i]`."""
        inside = [None if names is None else frozenset(names) for names in within or [None] * len(queries)]
        keys = [(query, names, max(k, DEPTH)) for query, names in zip(queries, inside, strict=True)]
        if len(self._ranked) > MAX_CACHED:
            self.clear_cache()
        if self._embedder is not None and (new := [q for q in dict.fromkeys(queries) if q not in self._query_vectors]):
            self._query_vectors |= zip(new, self._embedder.embed(new))
        for key in keys:
            if key not in self._ranked:
                self._ranked[key] = self._rank(*key)
        return [self._hits(self._ranked[key], k, left_out) for key, left_out in zip(keys, without or [()] * len(keys))]

    def clear_cache(self) -> None:
        """Clear the caches of query vectors and rankings, so that the next search takes its full time."""
        self._query_vectors.clear()
        self._ranked.clear()

    def _rank(self, query: str, names: frozenset[str] | None, depth: int) -> list[tuple[int, float, float]]:
        """(index of a chunk, score, relevance), best score first; equal scores in the order of the chunks."""
        places = np.arange(len(self._chunks))
        if names is not None:
            places = np.array(sorted(place for name in names for place in self._places.get(name, ())), np.int64)
        scores = self._lexical.scores(query)[places]
        near = None if self._vectors is None else self._vectors[places] @ self._query_vectors[query]
        fit = relevance(scores, self._lexical.highest(query), near)
        if near is not None:
            scores = _reciprocal(scores, depth, scores > 0) + DENSE * _reciprocal(near, depth)
        order = np.argsort(-scores, kind="stable")[:depth]
        return [(int(places[i]), float(scores[i]), float(fit[i])) for i in order if scores[i] > 0 or names is not None]

    def _hits(self, ranked: Sequence[tuple[int, float, float]], k: int, left_out: Container[str]) -> list[Hit]:
        ranked = [each for each in ranked if self._chunks[each[0]].doc_id not in left_out] if left_out else ranked
        best = max((fit for _, _, fit in ranked), default=0.0)
        relevant = None if self.threshold is None else best >= self.threshold
        copies = grouped((self._saying(place) for place, _, _ in ranked), k)
        return [
            self._hit(*ranked[first], relevant, [self._chunks[ranked[each][0]].doc_id for each in others])
            for first, others in copies.items()
        ]

    def _saying(self, place: int) -> Saying:
        if place not in self._sayings:
            chunk = self._chunks[place]
            self._sayings[place] = saying("" if chunk.doc_id in self._untitled else chunk.title, chunk.text)
        return self._sayings[place]

    def _hit(self, place: int, score: float, fit: float, relevant: bool | None, copies: Sequence[str]) -> Hit:
        chunk = self._chunks[place]
        document = self._paged.get(chunk.doc_id)
        page, last_page = document.pages_of(chunk.start, chunk.end) or (None, None) if document else (None, None)
        also = tuple(name for name in dict.fromkeys(copies) if name != chunk.doc_id)
        return Hit(
            **asdict(chunk), score=score, page=page, last_page=last_page, relevance=round(fit, 4), relevant=relevant,
            also=also,
        )  # fmt: skip


def _reciprocal(scores: np.ndarray, depth: int, counts: np.ndarray | None = None) -> np.ndarray:
    """1 / (RANK + rank) of the `depth` best scores, without those masked out by `counts`; 0 for the others."""
    best = np.argsort(-scores, kind="stable")[:depth]
    best = best if counts is None else best[counts[best]]
    values = np.zeros(len(scores))
    values[best] = 1 / (RANK + 1 + np.arange(len(best)))
    return values
