"""Open a retriever on a collection's file, and restrict a retriever to some of the documents per question."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from riyaz.data import Example
from riyaz.retrieval.collection import Collection
from riyaz.retrieval.search import Hit, Retriever


def open_retriever(path: Path) -> Retriever:
    """A retriever on a collection, with the embedder that made its vectors. Raises RiyazError if that is missing."""
    collection = Collection.open(path)
    if collection.embedder is None:
        return Retriever(collection)
    from riyaz.engine.opening import open_embedder

    return Retriever(collection, open_embedder(collection.embedder[0]))


class RestrictedRetriever(Retriever):
    """A retriever that searches only the documents given for a question, and all documents for other questions."""

    def __init__(self, retriever: Retriever, documents: Mapping[str, Sequence[str]]) -> None:
        self._retriever, self._documents = retriever, documents

    def clear_cache(self) -> None:
        """Clear the caches of the wrapped retriever."""
        self._retriever.clear_cache()

    def search(self, queries: Sequence[str], k: int, *_: object, **__: object) -> list[list[Hit]]:
        """The k best hits in each question's documents; `within` and `without` are ignored."""
        return self._retriever.search(queries, k, [self._documents.get(query) for query in queries])


def without_own(retriever: Retriever, rows: Iterable[Example]) -> Retriever:
    """The retriever, which for the questions of these rows leaves out the documents that are the rows themselves."""
    own: dict[str, set[str]] = {}
    for row in rows:
        if row.own_doc_ids:
            own.setdefault(row.prompt, set()).update(row.own_doc_ids)
    return _OtherDocuments(retriever, own) if own else retriever


class _OtherDocuments(Retriever):
    """A retriever that finds none of the documents given for a question."""

    def __init__(self, retriever: Retriever, left_out: Mapping[str, set[str]]) -> None:
        self._retriever, self._left_out = retriever, left_out

    def clear_cache(self) -> None:
        """Clear the caches of the wrapped retriever."""
        self._retriever.clear_cache()

    def search(self, queries: Sequence[str], k: int, *_: object, **__: object) -> list[list[Hit]]:
        """At most k hits for each query, best first, from its other documents; `within` and `without` are ignored."""
        return self._retriever.search(queries, k, without=[self._left_out.get(query, ()) for query in queries])
