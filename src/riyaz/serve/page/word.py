"""POST /page/next: what comes after a text, with the numbers of the model that says so."""

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz import engine
from riyaz.engine.parts import Steps
from riyaz.families import describe
from riyaz.predictor import PromptedModel, TooLong
from riyaz.serve import asking
from riyaz.serve.fields import MODEL, Field, text, whole
from riyaz.serve.http import read_body, unless_gone
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.state import State, state_of

MAX_TOP, USUAL = 1000, 10
TEMPERATURES = [place / 20 for place in range(2, 41)]  # 0.1 to 2
NEXT = {"model": MODEL, "text": Field(text(None, 1), required=True), "top": Field(whole(1, MAX_TOP))}


async def next_word(request: Request) -> Response:
    """The likeliest tokens after a text that is taken as it is, without chat template or examples."""
    body, headers = await read_body(request, NEXT)
    return await unless_gone(request.receive, _answer(state_of(request), body, headers))


async def _answer(state: State, body: dict[str, Any], headers: dict[str, str]) -> Response:
    served = state.shelf.find(body["model"])
    model, top = served.predictor, int(body.get("top", USUAL))
    if not model.has_model:
        raise Problem(400, f"{served.name} has no language model, so no next tokens", "model")
    with state.place(1, served):
        ids = await state.prepare(lambda: _ids(model, body["text"]))
        state.metrics.prompt_tokens += len(ids)
        values = await state.engine.work(lambda: _distribution(model, ids))
    name = served.open.tokenizer.token_text
    likeliest = np.argsort(-values, kind="stable")[:top].tolist()
    document = {
        "tokens": [{"id": token, "text": name(token)} for token in ids],
        "candidates": [{"id": token, "text": name(token), "logprob": float(values[token])} for token in likeliest],
        "entropy": float(-np.sum(np.exp(values) * values)), "sums": sums_of(values), **numbers_of(served),
    }  # fmt: skip
    return JSONResponse(document, headers=headers)


def _ids(model: PromptedModel, text: str) -> tuple[int, ...]:
    """The tokens of a text. Raises Problem for one without tokens, TooLong."""
    asking.expect_short(text, "text")
    beginning = model.tokenizer.beginning
    ids = (*beginning, *model.tokenizer.encode(text))
    if len(ids) == len(beginning):
        raise Problem(400, "text: is empty", "text")
    if len(ids) >= model.context:
        raise TooLong(len(ids), 1, model.context, "text")
    return ids


def _distribution(model: PromptedModel, ids: tuple[int, ...]) -> Steps[np.ndarray]:
    """Log-probabilities (vocabulary,) of the token after these."""
    (values,) = model.lm.distributions([engine.Request(0, ids, adapter=model.adapter)], [(0,)])
    yield
    return np.maximum(values[0].astype(np.float64), -1e4)  # a token that cannot come has a finite one in JSON


def sums_of(values: np.ndarray) -> list[dict[str, float]]:
    """For every temperature T of a slider log Σ exp(v / T): less this, v / T is a token's log-probability at T."""
    sums = []
    for temperature in TEMPERATURES:
        scaled = (values - values.max()) / temperature
        sums.append(float(np.log(np.exp(scaled).sum()) + values.max() / temperature))
    return [{"temperature": temperature, "sum": each} for temperature, each in zip(TEMPERATURES, sums)]


def numbers_of(served: Served) -> dict[str, Any]:
    """The sizes by which a text becomes a next word: vectors of so many numbers, through so many layers, to a number
    for every token."""
    config = describe(served.open.source).config
    return {
        "width": config.hidden_size, "layers": config.n_layers, "heads": config.n_heads,
        "vocabulary": served.open.lm.runner.vocab_size, "parameters": served.open.parameters,
    }  # fmt: skip
