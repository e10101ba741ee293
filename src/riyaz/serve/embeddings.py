"""POST /v1/embeddings: texts to vectors, by the embedder that retrieval uses too."""

import base64
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.serve import asking
from riyaz.serve.fields import EMBEDDINGS
from riyaz.serve.http import read_body, unless_gone
from riyaz.serve.problems import Problem
from riyaz.serve.state import State, state_of


async def embeddings(request: Request) -> Response:
    """A vector of unit length for each text."""
    body, headers = await read_body(request, EMBEDDINGS)
    state = state_of(request)
    if body["model"] != state.config.embedder:
        state.shelf.find(body["model"])
        raise Problem(400, f"model: {body['model']} has no embeddings; ask {state.config.embedder}", "model")
    texts = _texts(body["input"])
    return await unless_gone(request.receive, _answer(state, body, texts, headers))


async def _answer(state: State, body: dict[str, Any], texts: list[str], headers: dict[str, str]) -> Response:
    with state.place(1):
        embedder = await state.prepare(state.embedder)
        if body.get("dimensions", embedder.dim) != embedder.dim:
            raise Problem(400, f"dimensions: the vectors have {embedder.dim}", "dimensions")
        counts = await state.prepare(lambda: [len(embedder.token_offsets(text)) for text in texts])
        for place, count in enumerate(counts):
            if count > embedder.window:
                where, sizes = f"input.{place}", {"prompt_tokens": count, "max_model_len": embedder.window}
                message = f"{where}: the text has {count} tokens, and {embedder.window} are read"
                raise Problem(400, message, where, "context_length_exceeded", extra=sizes)
        vectors = await state.engine.call(lambda: embedder.embed(texts))
    data = [
        {"object": "embedding", "index": place, "embedding": _written(row, body.get("encoding_format"))}
        for place, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    return JSONResponse({"object": "list", "data": data, "model": body["model"], "usage": usage}, headers=headers)


def _texts(given: Any) -> list[str]:
    """The texts of an input. Raises Problem for tokens: they are those of another tokenizer, and mean nothing here."""
    texts = [given] if isinstance(given, str) else given
    if not all(isinstance(text, str) for text in texts):
        raise Problem(400, "input: send texts; tokens of another tokenizer mean nothing here", "input")
    for place, text in enumerate(texts):
        asking.expect_short(text, f"input.{place}")
        if not text:
            raise Problem(400, f"input.{place}: the text is empty", f"input.{place}")
    return list(texts)


def _written(vector: np.ndarray, form: str | None) -> Any:
    """A vector as numbers, or as base64 of its little-endian float32."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if form == "base64" else vector.tolist()
