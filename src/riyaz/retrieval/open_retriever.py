"""Open a retriever on a collection's file, and restrict a retriever to given documents per question."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from riyaz.retrieval.collection import Collection
from riyaz.retrieval.search import Hit, Retriever


def open_retriever(path: Path) -> Retriever:
    """A retriever on a collection, with the embedder that made its vectors. Raises RiyazError if that is missing."""
    collection = Collection.open(path)
    if collection.embedder is None:
        return Retriever(collection)
    from riyaz.engine.torch.embedder import open_embedder

    return Retriever(collection, open_embedder(collection.embedder[0]))


class RestrictedRetriever(Retriever):
    """A retriever that searches only the documents given for a question, and all documents for other questions."""

    def __init__(self, retriever: Retriever, documents: Mapping[str, Sequence[str]]) -> None:
        self._retriever, self._documents = retriever, documents

    def clear_cache(self) -> None:
        """Clear the caches of the wrapped retriever."""
        self._retriever.clear_cache()

    def search(self, queries: Sequence[str], k: int, within: Sequence[object] | None = None) -> list[list[Hit]]:
        """The k best hits in each question's documents; `within` is ignored."""
        return self._retriever.search(queries, k, [self._documents.get(query) for query in queries])
