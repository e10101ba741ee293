"""POST /v1/embeddings: texts to vectors, by the embedder that retrieval uses too."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from riyaz.engine.embedder import ModelEmbedder
from riyaz.engine.parts import Steps
from riyaz.serve import asking
from riyaz.serve.fields import EMBEDDINGS
from riyaz.serve.http import read_body, unless_gone
from riyaz.serve.large import json_response
from riyaz.serve.problems import Problem
from riyaz.serve.state import State, state_of

PART = 512  # tokens embedded between two steps of running answers


async def embeddings(request: Request) -> Response:
    """A vector of unit length for each text."""
    body, headers = await read_body(request, EMBEDDINGS)
    state = state_of(request)
    expect_embedder(state, body["model"])
    inputs = _inputs(body["input"])
    return await unless_gone(request.receive, _answer(state, body, inputs, headers))


def expect_embedder(state: State, name: str) -> None:
    """Raises Problem where another model than the embedder is asked for: 404 for one that is not served."""
    if name != state.config.embedder:
        state.shelf.find(name)
        raise Problem(400, f"model: {name} has no embeddings; ask {state.config.embedder}", "model")


async def _answer(state: State, body: dict[str, Any], inputs: list[Any], headers: dict[str, str]) -> Response:
    with state.place(1):
        embedder = await state.prepare(state.embedder)
        if body.get("dimensions", embedder.dim) != embedder.dim:
            raise Problem(400, f"dimensions: the vectors have {embedder.dim}", "dimensions")
        rows = await state.prepare(lambda: [ids_of(embedder, each, f"input.{n}") for n, each in enumerate(inputs)])
        vectors = await state.engine.work(lambda: vectors_of(embedder, rows))

    def response() -> Response:
        made = [
            {"object": "embedding", "index": place, "embedding": _written(row, body.get("encoding_format"))}
            for place, row in enumerate(vectors)
        ]
        count = sum(map(len, rows))
        usage = {"prompt_tokens": count, "total_tokens": count}
        return json_response({"object": "list", "data": made, "model": body["model"], "usage": usage}, headers)

    return await state.write(response, vectors.size)


def _inputs(value: Any) -> list[Any]:
    """The texts or lists of tokens of an input. Raises Problem for a text that is empty or too long."""
    one = isinstance(value, str) or not isinstance(value[0], str | list)
    inputs = [value] if one else list(value)
    for place, each in enumerate(inputs):
        if isinstance(each, str):
            asking.expect_short(each, f"input.{place}")
            if not each:
                raise Problem(400, f"input.{place}: the text is empty", f"input.{place}")
    return inputs


def ids_of(embedder: ModelEmbedder, value: str | list[int], where: str, most: int | None = None) -> list[int]:
    """The tokens of an input, without those around a text: the first `most` of them, else all. Raises Problem for one
    that is too long, or that has tokens of another tokenizer."""
    ids = (embedder.ids(value) if isinstance(value, str) else embedder.inner(list(map(int, value))))[:most]
    if ids and max(ids) >= embedder.vocab_size:
        what = f"{where}: {max(ids)} is no token of {embedder.name}, which has {embedder.vocab_size:,}; send texts"
        raise Problem(400, what, where)
    if len(ids) > embedder.window:
        sizes = {"prompt_tokens": len(ids), "max_model_len": embedder.window}
        message = f"{where}: the text has {len(ids)} tokens, and {embedder.window} are read"
        raise Problem(400, message, where, "context_length_exceeded", extra=sizes)
    return ids


def vectors_of(embedder: ModelEmbedder, rows: Sequence[Sequence[int]]) -> Steps[np.ndarray]:
    """Vectors (n, dim) of texts of these tokens, in parts of about PART tokens."""
    vectors: list[np.ndarray] = []
    part: list[Sequence[int]] = []
    for place, ids in enumerate(rows):
        part.append(ids)
        if sum(map(len, part)) >= PART or place == len(rows) - 1:
            vectors.append(embedder.embed_ids(part))
            part = []
            yield
    return np.concatenate(vectors)


def _written(vector: np.ndarray, form: str | None) -> Any:
    """A vector as numbers, or as base64 of its little-endian float32."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else vector.tolist()
