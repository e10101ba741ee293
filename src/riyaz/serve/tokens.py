"""/tokenize, /detokenize and /tokenizer_info: what a client needs to score texts without the model's tokenizer."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.data import Message
from riyaz.serve import asking
from riyaz.serve.fields import CHAT, DETOKENIZE, TOKENIZE
from riyaz.serve.http import read_body
from riyaz.serve.large import json_response
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.state import State, state_of
from riyaz.text.tokenizer import Tokenizer


async def tokenize(request: Request) -> Response:
    """The tokens of a text, in which no control token is recognised, or of a conversation."""
    body, headers = await read_body(request, TOKENIZE)
    state = state_of(request)
    served = state.shelf.find(body.get("model"))
    if ("prompt" in body) == ("messages" in body):
        raise Problem(400, "prompt: give either prompt or messages", "prompt")
    ids = await state.prepare(lambda: _ids(served, body))

    def response() -> Response:
        texts = map(served.open.tokenizer.token_text, ids)
        shown = {"token_strs": list(texts)} if body.get("return_token_strs") else {}
        document = {"count": len(ids), "max_model_len": served.predictor.context, "tokens": ids, **shown}
        return json_response(document, headers)

    return await state.write(response, len(ids))


def _ids(served: Served, body: dict[str, Any]) -> list[int]:
    tokenizer = served.open.tokenizer
    if "messages" in body:
        turns = asking.turns_of(body["messages"], served)
        if body.get("add_generation_prompt", True):
            begun = tokenizer.answer_ids([turns.begun])[0][:-1] if turns.begun else []
            return [*tokenizer.render([list(turns.messages)])[0], *begun]
        last: list[Message] = [{"role": "assistant", "content": turns.begun}] if turns.begun else []
        return tokenizer.render([[*turns.messages, *last]], add_generation_prompt=False)[0]
    asking.expect_short(body["prompt"], "prompt")
    beginning = tokenizer.beginning if body.get("add_special_tokens", True) else ()
    return [*beginning, *tokenizer.encode(body["prompt"])]


async def detokenize(request: Request) -> Response:
    """The text of tokens, control tokens by their names."""
    body, headers = await read_body(request, DETOKENIZE)
    state = state_of(request)
    tokenizer = state.shelf.find(body.get("model")).open.tokenizer
    made = await state.prepare(lambda: written(tokenizer, [int(token) for token in body["tokens"]]))
    return JSONResponse({"prompt": made}, headers=headers)


def written(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of tokens, control tokens by their names, ids without a token as `<id N>`."""
    plain = tokenizer.text_ids()
    parts = []
    for is_text, run in groupby(tokens, lambda token: token in plain):
        ids = list(run)
        parts.append(tokenizer.decode(ids) if is_text else "".join(map(tokenizer.token_text, ids)))
    return "".join(parts)


async def tokenizer_info(request: Request) -> Response:
    """The special tokens and the chat template."""
    served = state_of(request).shelf.find(request.query_params.get("model"))
    tokenizer = served.open.tokenizer
    ends = tokenizer.token_text(tokenizer.end_of_text)
    begins = None if tokenizer.bos_id is None else tokenizer.token_text(tokenizer.bos_id)
    names = {"bos_token": begins, "eos_token": ends, "pad_token": ends}
    return JSONResponse({**names, "chat_template": tokenizer.template, "vocab_size": tokenizer.vocab_size})


async def input_tokens(request: Request) -> Response:
    """Number of tokens of a conversation's prompt, with an artifact's examples and passages."""
    body, headers = await read_body(request, CHAT)
    state = state_of(request)
    served = state.shelf.find(body["model"])
    if not served.predictor.has_model:
        raise Problem(400, f"model: {served.name} has no language model and reads no prompt", "model")
    return JSONResponse({"input_tokens": await prompt_length(state, served, body)}, headers=headers)


async def prompt_length(state: State, served: Served, body: dict[str, Any]) -> int:
    """Number of tokens of the prompt that a language model reads for a chat request. Raises Problem."""
    model = served.predictor
    assert model.has_model, "there is a prompt"
    turns = asking.turns_of(body["messages"], served, asking.offer_of(body).tools)
    return (await state.prepare(lambda: asking.prepared(model, turns, 1, None))).request.length
