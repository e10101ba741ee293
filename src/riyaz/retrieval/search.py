"""Passages for a question: words and meaning, fused by rank.

Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009) needs no scale to be common to BM25 and a cosine: a
chunk's score is the sum over both rankings of 1 / (60 + rank).
"""

from collections.abc import Collection as Container
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from riyaz.errors import RiyazError
from riyaz.retrieval.chunks import passage
from riyaz.retrieval.collection import Collection
from riyaz.retrieval.embedder import Embedder
from riyaz.retrieval.lexical import BM25, words_and_beginnings

RANK = 60  # of the paper: how little the first places count for more than the next
DEPTH = 100  # places of each ranking that are fused


@dataclass(frozen=True)
class Hit:
    """A chunk that was found: characters start to end of the document, and its score among the hits of one query."""

    doc_id: str
    title: str
    heading: str
    start: int
    end: int
    text: str
    score: float


def citation(hit: Hit) -> dict[str, Any]:
    """What an answer says about a passage it was given."""
    return {"doc_id": hit.doc_id, "title": hit.title, "start": hit.start, "end": hit.end}


class Retriever:
    """Search in one collection: by words alone, or by words and vectors where both sides have them."""

    def __init__(self, collection: Collection, embedder: Embedder | None = None) -> None:
        """RiyazError when the vectors of the collection come from another embedder."""
        made = collection.embedder
        if embedder is not None and made is not None and made != (embedder.name, embedder.sha256):
            what = f"its vectors come from {made[0]} ({made[1][:12]}), not {embedder.name} ({embedder.sha256[:12]})"
            raise RiyazError(what, str(collection.path), "riyaz rag add … --rebuild")
        self._chunks = collection.chunks()
        self._vectors = collection.vectors() if embedder is not None else None
        self._embedder = embedder if self._vectors is not None else None
        self._lexical = BM25([passage(chunk) for chunk in self._chunks], words_and_beginnings)
        self._places: dict[str, list[int]] = {}
        for place, chunk in enumerate(self._chunks):
            self._places.setdefault(chunk.doc_id, []).append(place)
        self._ranked: dict[tuple[str, frozenset[str] | None, int], list[tuple[int, float]]] = {}

    def search(
        self, queries: Sequence[str], k: int, within: Sequence[Container[str] | None] | None = None
    ) -> list[list[Hit]]:
        """At most k hits for each query, best first; with `within[i]` every hit of query i comes from one of these
        documents, and there are k of them if the documents have as many chunks."""
        depth = max(k, DEPTH)
        inside = [None if names is None else frozenset(names) for names in within or [None] * len(queries)]
        keys = [(query, names, depth) for query, names in zip(queries, inside, strict=True)]
        missing = list(dict.fromkeys(key for key in keys if key not in self._ranked))
        vectors = self._embedder.embed([query for query, _, _ in missing]) if self._embedder and missing else None
        for row, key in enumerate(missing):
            self._ranked[key] = self._rank(key[0], key[1], depth, None if vectors is None else vectors[row])
        return [[self._hit(place, score) for place, score in self._ranked[key][:k]] for key in keys]

    def _rank(
        self, query: str, names: frozenset[str] | None, depth: int, vector: np.ndarray | None
    ) -> list[tuple[int, float]]:
        """(chunk, score), best first, equal scores in the order of the chunks."""
        size = len(self._chunks)
        places = np.arange(size)
        if names is not None:
            places = np.array(sorted(place for name in names for place in self._places.get(name, ())), np.int64)
        words = self._lexical.scores(query)[places]
        if vector is None or self._vectors is None:
            scores, known = words, words > 0
        else:
            fused, near = np.zeros(len(places)), self._vectors[places] @ vector
            for list_scores, counts in ((words, words > 0), (near, np.ones(len(places), bool))):
                best = [i for i in np.argsort(-list_scores, kind="stable")[:depth] if counts[i]]
                fused[best] += 1 / (RANK + 1 + np.arange(len(best)))
            scores, known = fused, fused > 0
        order = np.argsort(-scores, kind="stable")[:depth]
        return [(int(places[i]), float(scores[i])) for i in order if known[i] or names is not None]

    def _hit(self, place: int, score: float) -> Hit:
        return Hit(**asdict(self._chunks[place]), score=score)
