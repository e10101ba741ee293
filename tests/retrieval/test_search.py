"""Search: by words, by meaning, fused; within some documents; and that rankings never depend on chance."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_embedder import BagEmbedder

from riyaz.errors import RiyazError
from riyaz.retrieval.collection import Collection, add
from riyaz.retrieval.documents import Document
from riyaz.retrieval.lexical import BM25, words_and_prefixes
from riyaz.retrieval.search import Hit, Retriever, citation

TEXTS = {
    "cars": "A car needs oil and petrol.",
    "dogs": "The dog barks at night.",
    "fees": "Refunds cost four euros.",
    "same1": "Identical passage here.",
    "same2": "Identical passage here.",
}


@pytest.fixture(scope="module")
def collections(tmp_path_factory):
    """(with vectors, words alone) of the same documents."""
    folder = tmp_path_factory.mktemp("collections")
    documents = [Document(name, name.title(), text, name) for name, text in TEXTS.items()]
    add(folder / "dense", documents, BagEmbedder())
    add(folder / "words", documents, None)
    return Collection.open(folder / "dense"), Collection.open(folder / "words")


def names(hits: list[Hit]) -> list[str]:
    return [hit.doc_id for hit in hits]


def test_a_hit_is_a_range_of_its_document_and_a_citation_is_that_range(collections):
    (hit,) = Retriever(collections[1]).search(["petrol"], 3)[0]
    assert replace(hit, score=0.0, relevance=None, relevant=None) == Hit("cars", "Cars", "", 0, 27, TEXTS["cars"], 0.0)
    assert hit.score > 0 and hit.relevance is not None and 0 < hit.relevance < 1
    assert citation(hit) == {"doc_id": "cars", "title": "Cars", "start": 0, "end": 27}


def test_a_hit_in_a_document_with_pages_names_them(tmp_path):
    pages = ("", "One two.", "", "Three four.", "")  # blank ones too, which begin where the text before them ends
    document = Document("d", "D", "One two.\n\nThree four.", "d", (0, 0, 8, 10, 21))
    add(tmp_path / "c", [document], None)
    (hit,) = Retriever(Collection.open(tmp_path / "c")).search(["four"], 1)[0]
    assert citation(hit) == {"doc_id": "d", "title": "D", "start": 10, "end": 21, "page": 4, "last_page": 4}
    ranges = [(0, 8), (4, 8), (10, 21), (20, 21), (0, 21)]
    assert [document.pages_of(*each) for each in ranges] == [(2, 2), (2, 2), (4, 4), (4, 4), (2, 4)], pages


def test_words_find_titles_and_the_beginnings_of_words(collections):
    (title, beginning, nothing) = Retriever(collections[1]).search(["fees?", "a refunding", "zzz"], 1)
    assert names(title) == ["fees"] and names(beginning) == ["fees"] and nothing == []
    assert words_and_prefixes("Refunds a") == ["refunds", "a", "refun-"]
    assert BM25(["refunds", "other"], words_and_prefixes).top("refunding", 1) == [0]


def test_meaning_finds_what_words_cannot_and_both_together_win(collections):
    dense = Retriever(collections[0], BagEmbedder())
    assert names(dense.search(["automobile"], 1)[0]) == ["cars"]
    assert Retriever(collections[0]).search(["automobile"], 1) == [[]], "without an embedder words alone"
    assert Retriever(collections[1], BagEmbedder()).search(["automobile"], 1) == [[]], "nor without vectors"


def test_equal_passages_come_in_the_order_of_their_names(collections):
    for retriever in (Retriever(collections[1]), Retriever(collections[0], BagEmbedder())):
        assert names(retriever.search(["identical passage"], 2)[0]) == ["same1", "same2"]


@pytest.mark.parametrize("which", [0, 1])
def test_within_keeps_to_these_documents_and_fills_up(collections, which):
    retriever = Retriever(collections[which], BagEmbedder())
    found = retriever.search(["dog"] * 3, 3, [["fees", "cars"], None, {"absent"}])
    assert sorted(names(found[0])) == ["cars", "fees"] and names(found[1])[0] == "dogs" and found[2] == []


def test_a_query_is_ranked_and_embedded_once(collections):
    bag = BagEmbedder()
    retriever = Retriever(collections[0], bag)
    first = retriever.search(["dog", "car", "dog"], 2)
    assert bag.embedded == ["dog", "car"] and first[0] == first[2]
    assert retriever.search(["car"], 5)[0][:2] == first[1] and bag.embedded == ["dog", "car"]
    retriever.search(["car"], 1, [["dogs"]])
    assert bag.embedded == ["dog", "car"], "the vector of a query does not depend on where it is searched"


def test_vectors_of_another_embedder_are_refused(collections):
    with pytest.raises(RiyazError, match=r"its vectors come from bag .*, not other"):
        Retriever(collections[0], BagEmbedder("other"))


def test_every_chunk_can_be_reached(tmp_path):
    text = "\n\n".join(f"# Part {i}\n\nword{i} common" for i in range(300))
    add(tmp_path / "c", [Document("d", "", text, "d")], None)
    hits = Retriever(Collection.open(tmp_path / "c")).search(["common"], 250)[0]
    assert len({hit.start for hit in hits}) == 250
    assert all(text[hit.start : hit.end] == hit.text for hit in hits)
    scores = np.array([hit.score for hit in hits])
    assert (np.diff(scores) <= 0).all()


def test_a_hit_is_plain_data(collections):
    (hit, *_) = Retriever(collections[0], BagEmbedder()).search(["dog"], 1)[0]
    assert json.loads(json.dumps(vars(hit)))["score"] == hit.score
