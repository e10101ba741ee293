"""Documents in the order of their nearness to a query, in the form of Jina's, Cohere's and llama.cpp's clients."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert
from live_server import Running, assert_error, running

from riyaz.engine.opening import open_embedder
from riyaz.serve.opening import Opener
from riyaz.serve.rerank import relevance

QUERY = "where is my refund"
DOCUMENTS = ["the card was declined", "my refund", "where is the bike", "my refund", "zzz"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_bert.write_folder(tmp_path_factory.mktemp("bert") / "bert"))


@pytest.fixture(scope="module")
def served(model_folder: Path, embedder: str) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, embedder=embedder) as found:
        yield found


def ranked(served: Running, path: str = "/v1/rerank", **body: Any) -> dict[str, Any]:
    answer = served.post(path, {"query": QUERY, "documents": DOCUMENTS, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_documents_come_in_the_order_of_their_cosine(served: Running, embedder: str) -> None:
    vectors = open_embedder(embedder).embed([QUERY, *DOCUMENTS])
    cosines = vectors[1:] @ vectors[0]
    for path in ("/v1/rerank", "/rerank"):
        found = ranked(served, path, model=embedder)
        order = [each["index"] for each in found["results"]]
        assert order == sorted(range(5), key=lambda n: (-round(float(cosines[n]), 6), n))
        assert order.index(1) == order.index(3) - 1, "equal documents: the first one first"
        scores = [each["relevance_score"] for each in found["results"]]
        assert np.abs((1 + cosines[order]) / 2 - scores).max() < 1e-6 and scores == sorted(scores, reverse=True)
        assert scores[order.index(1)] == scores[order.index(3)]
        assert [each["document"]["text"] for each in found["results"]] == [DOCUMENTS[n] for n in order]
        assert found["model"] == embedder and found["id"].startswith("rerank-") and found["object"] == "list"
    pieces = served.state.embedder()
    tokens = sum(len(pieces.ids(text)) for text in [QUERY, *DOCUMENTS])
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    plain = ranked(served, top_n=2, return_documents=False, documents=[{"text": text} for text in DOCUMENTS])
    assert plain["results"] == [
        {name: each[name] for name in ("index", "relevance_score")} for each in found["results"][:2]
    ]
    assert len(ranked(served, top_n=0)["results"]) == len(ranked(served, top_n=99)["results"]) == 5


def test_relevance_is_between_0_and_1_and_orders_as_the_cosine_does() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.concatenate([vectors, vectors[:1], -vectors[:1]])
    found = relevance(vectors, vectors[0])
    assert found.min() >= 0 and found.max() <= 1 and np.isfinite(found).all()
    assert (np.argsort(found[1:200]) == np.argsort(vectors[1:200].astype(np.float64) @ vectors[0])).all()
    assert found[200] == pytest.approx(1) and found[201] == pytest.approx(0, abs=1e-6)


def test_a_long_document_is_cut_only_where_the_client_says_so(served: Running) -> None:
    long = "my refund " + "card " * 600
    body = {"query": QUERY, "documents": ["zzz", long]}
    found = assert_error(served.post("/rerank", body), 400)
    assert found["param"] == "documents.1" and found["code"] == "context_length_exceeded"
    cut = ranked(served, documents=["zzz", long, "my refund"], max_tokens_per_doc=2)
    assert {each["index"]: each["relevance_score"] for each in cut["results"]}[1] == next(
        each["relevance_score"] for each in cut["results"] if each["index"] == 2
    )
    found = assert_error(served.post("/rerank", {**body, "query": long, "max_tokens_per_doc": 2}), 400)
    assert found["param"] == "query"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"query": ""}, "query"), ({"query": 3}, "query"), ({"query": None}, "query"), ({"documents": []}, "documents"),
        ({"documents": ["a"] * 1001}, "documents"), ({"documents": ["a", ""]}, "documents.1"),
        ({"documents": [{"title": "a"}]}, "documents.0.text"), ({"documents": [["a"]]}, "documents.0"),
        ({"documents": ["a", {"text": 3}]}, "documents.1.text"), ({"documents": "a"}, "documents"),
        ({"top_n": -1}, "top_n"), ({"top_n": 1.5}, "top_n"), ({"model": "tiny"}, "model"),
        ({"documents": ["x" * 1_100_000]}, "documents.0"), ({"query": "x" * 1_100_000}, "query"),
        ({"texts": ["a"]}, "texts"), ({"max_chunks_per_doc": 3}, "max_chunks_per_doc"),
        ({"truncate": True}, "truncate"),
        ({"rank_fields": ["title"]}, "rank_fields"), ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_one_line(served: Running, change: dict, param: str) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, **change}
    assert assert_error(served.post("/v1/rerank", body), 400)["param"] == param


def test_an_unknown_model_and_what_is_not_read_are_named(served: Running) -> None:
    assert_error(served.post("/rerank", {"query": "a", "documents": ["a"], "model": "other"}), 404)
    answer = served.post("/rerank", {"query": "a", "documents": [{"text": "a", "title": "b"}], "seed": 1})
    assert answer.headers["x-riyaz-ignored"] == "seed,documents.title"
    assert served.http.get("/rerank").status_code == 405


def test_an_embedder_that_is_not_there_is_one_line_with_the_command(model_folder: Path) -> None:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, embedder="minilm-absent") as served:
        found = assert_error(served.post("/v1/rerank", {"query": "a", "documents": ["a"]}), 400)
        wanted = assert_error(served.post("/v1/embeddings", {"model": "minilm-absent", "input": "a"}), 400)
        assert found["message"] == wanted["message"]
