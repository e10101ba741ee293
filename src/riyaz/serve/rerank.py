"""POST /v1/rerank and /rerank: documents in the order of their nearness to a query, by the embedder that retrieval
uses too, in the form of Jina's, Cohere's and vLLM's clients and of llama.cpp's server."""

import secrets
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.engine.embedder import ModelEmbedder
from riyaz.serve import asking
from riyaz.serve.embeddings import expect_embedder, ids_of, vectors_of
from riyaz.serve.http import read_body, unless_gone
from riyaz.serve.message_fields import RERANK
from riyaz.serve.state import State, state_of

Row = tuple[int, ...]  # the tokens of a text


async def rerank(request: Request) -> Response:
    """The documents with their relevance, most relevant first."""
    body, headers = await read_body(request, RERANK)
    state = state_of(request)
    expect_embedder(state, body.get("model", state.config.embedder))
    documents = [each if isinstance(each, str) else each["text"] for each in body["documents"]]
    for where, text in [("query", body["query"]), *((f"documents.{n}", text) for n, text in enumerate(documents))]:
        asking.expect_short(text, where)
    return await unless_gone(request.receive, _answer(state, body, documents, headers))


async def _answer(state: State, body: dict[str, Any], documents: list[str], headers: dict[str, str]) -> Response:
    with state.place(1):
        embedder = await state.prepare(state.embedder)
        query, rows = await state.prepare(lambda: _rows(embedder, body, documents))
        different = list(dict.fromkeys([query, *rows]))  # equal texts are embedded once, so their scores are equal
        vectors = await state.engine.work(lambda: vectors_of(embedder, different))
    place = {row: n for n, row in enumerate(different)}
    scores = relevance(vectors, vectors[place[query]])
    ranked = sorted(range(len(rows)), key=lambda n: (-scores[place[rows[n]]], n))
    results = [
        {"index": n, "relevance_score": float(scores[place[rows[n]]])}
        | ({"document": {"text": documents[n]}} if body.get("return_documents", True) else {})
        for n in ranked[: body.get("top_n") or len(rows)]
    ]
    count = len(query) + sum(map(len, rows))
    document = {"id": f"rerank-{secrets.token_hex(12)}", "object": "list", "model": state.config.embedder}
    usage = {"prompt_tokens": count, "total_tokens": count}
    return JSONResponse({**document, "usage": usage, "results": results}, headers=headers)


def relevance(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The relevance (n,) float64 of texts with the unit vectors (n, dim) to a query with the unit vector (dim,): their
    cosine c as (1 + c) / 2, so 1 is the same direction, .5 a right angle."""
    cosines = vectors.astype(np.float64) @ query.astype(np.float64)
    return np.clip((1 + cosines) / 2, 0, 1)


def _rows(embedder: ModelEmbedder, body: dict[str, Any], documents: list[str]) -> tuple[Row, list[Row]]:
    """The tokens of the query and of each document. Raises Problem for one that is too long, unless the client says
    how many tokens of a document are read."""
    query, most = tuple(ids_of(embedder, body["query"], "query")), body.get("max_tokens_per_doc")
    return query, [tuple(ids_of(embedder, text, f"documents.{n}", most)) for n, text in enumerate(documents)]
