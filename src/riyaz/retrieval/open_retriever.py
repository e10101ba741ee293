"""Search over a collection's file, and the same search kept to the documents that are known to be right."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from riyaz.retrieval.collection import Collection
from riyaz.retrieval.search import Hit, Retriever


def open_retriever(path: Path) -> Retriever:
    """The search of a collection, with the embedder its vectors were made by. RiyazError when that is not here."""
    collection = Collection.open(path)
    if collection.embedder is None:
        return Retriever(collection)
    from riyaz.engine.torch.embedder import open_embedder

    return Retriever(collection, open_embedder(collection.embedder[0]))


class Within(Retriever):
    """A search in which each question sees only its own documents; what is asked otherwise sees all."""

    def __init__(self, whole: Retriever, documents: Mapping[str, Sequence[str]]) -> None:
        self._whole, self._documents = whole, documents

    def forget(self) -> None:
        """As the whole search does."""
        self._whole.forget()

    def search(self, queries: Sequence[str], k: int, within: Sequence[object] | None = None) -> list[list[Hit]]:
        """The k best passages of each question's own documents."""
        return self._whole.search(queries, k, [self._documents.get(query) for query in queries])
