"""POST /v1/chat/completions."""

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from riyaz.engine.request import Scored
from riyaz.predictor import Prediction, Prepared
from riyaz.serve import asking
from riyaz.serve.asking import Body, Turns
from riyaz.serve.calls import Offer
from riyaz.serve.fields import CHAT, ignored_header
from riyaz.serve.generation import Piece, Usage, chosen, generated
from riyaz.serve.grammar import Syntax, new_grammar, syntax_of
from riyaz.serve.http import EventStream, dumped, read_fields, unless_gone
from riyaz.serve.large import dumped_in_parts, json_response
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.state import State, state_of
from riyaz.text.tokenizer import Tokenizer

NO_LOGPROBS = "has no log-probabilities, since no language model answers"


@dataclass(frozen=True, eq=False)
class Chat:
    """A checked request, with what its answers have in common."""

    state: State
    served: Served
    turns: Turns
    body: Body
    offer: Offer = field(default_factory=Offer)
    syntax: Syntax | None = None
    usage: Usage = field(default_factory=Usage)
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def count(self) -> int:
        """Number of answers."""
        return int(self.body.get("n", 1))

    @property
    def top(self) -> int | None:
        """Number of likeliest tokens with each token; None where no log-probabilities are asked for."""
        return int(self.body.get("top_logprobs", 0)) if self.body.get("logprobs") else None

    @property
    def head(self) -> dict[str, Any]:
        """The members that a response and every chunk begin with."""
        return {"id": self.id, "created": self.created, "model": self.served.name, "system_fingerprint": "riyaz"}


async def chat_completions(request: Request) -> Response:
    """Answer a conversation, at once or as a stream of chunks."""
    body, ignored = await read_fields(request, CHAT)
    state = state_of(request)
    chat = await checked(state, body)
    headers = ignored_header([*ignored, *idle(chat)])
    if body.get("stream"):
        return EventStream(_chunks(chat), headers, state)
    return await unless_gone(request.receive, _whole(chat, headers))


def idle(chat: Chat) -> list[str]:
    """Names of what a request says and its answer does not heed."""
    held = chat.syntax is not None and chat.syntax.where == "tools"
    strict = ["tools.function.strict"] if chat.offer.strict and not held else []
    return [*asking.idle_members(chat.body["messages"]), *asking.idle_fields(chat.body, chat.served), *strict]


async def checked(state: State, body: Body) -> Chat:
    """The request of a body whose fields are each valid. Raises Problem."""
    served = state.shelf.find(body["model"])
    offer = asking.offer_of(body)
    turns = asking.turns_of(body["messages"], served, offer.tools)
    if "top_logprobs" in body and not body.get("logprobs"):
        raise Problem(400, "top_logprobs: needs logprobs", "top_logprobs")
    if body.get("stream_options") and not body.get("stream"):
        raise Problem(400, "stream_options: needs stream", "stream_options")
    if body.get("logprobs") and not served.predictor.has_model:
        raise Problem(400, f"logprobs: {served.name} {NO_LOGPROBS}", "logprobs", "unsupported_parameter")
    asking.limit_of(body, state.config.max_tokens)
    syntax = await state.prepare(lambda: syntax_of(body, offer, served))
    if not served.predictor.from_set:
        await state.prepare(lambda: new_grammar(syntax, served, body))  # if it cannot be followed, that is said now
        asking.added_of(body, served.open.lm)
    return Chat(state, served, turns, body, offer, syntax)


async def pieces(chat: Chat) -> AsyncIterator[Piece]:
    """The answers piece by piece, in whichever way the model answers. Raises Problem, RiyazError."""
    state, served, usage = chat.state, chat.served, chat.usage
    predictor = served.predictor
    with state.place(chat.count, served) as places:
        if not predictor.has_model:
            (prediction,) = await state.prepare(lambda: predictor.answers([chat.turns.messages]))
            for index in range(chat.count):
                yield _chosen_piece(index, prediction)
            return
        limit = asking.limit_of(chat.body, state.config.max_tokens)
        made = await state.prepare(lambda: asking.prepared(predictor, chat.turns, limit, state.config.max_tokens))
        usage.prompt = made.request.length
        state.metrics.prompt_tokens += usage.prompt
        if chooser := predictor.chooser(made):
            prediction = await chosen(state, chooser, made, usage)
            scored = await _chosen_tokens(chat, made, prediction.text)
            for index in range(chat.count):
                yield _chosen_piece(index, prediction, scored)
            return
        sampling = asking.sampling_of(chat.body, predictor)
        template = served.open.tokenizer.template
        grammar = await state.prepare(lambda: new_grammar(chat.syntax, served, chat.body))
        generations = [
            asking.generation_of(
                predictor, made, chat.body, index, sampling, chat.top, grammar, chat.offer.calls(template),
            )
            for index in range(chat.count)
        ]  # fmt: skip
        async for piece in generated(state, places, generations, usage):
            yield replace(piece, citations=made.citations) if piece.finish else piece


def _chosen_piece(index: int, prediction: Prediction, scored: tuple[Scored, ...] = ()) -> Piece:
    """The one piece of a chosen or copied answer."""
    return Piece(
        index, prediction.text, scored, finish="stop", citations=prediction.citations,
        confidence=prediction.confidence, runner_up=prediction.runner_up,
    )  # fmt: skip


async def _chosen_tokens(chat: Chat, made: Prepared, text: str) -> tuple[Scored, ...]:
    """The tokens of a chosen answer; where log-probabilities are asked for, it is read once more."""
    tokenizer, lm = chat.served.open.tokenizer, chat.served.open.lm
    (ids,) = tokenizer.answer_ids([text])
    chat.usage.completion = chat.count * (len(ids) - 1)
    chat.state.metrics.generation_tokens += chat.usage.completion
    if chat.top is None:
        return ()
    top = chat.top
    return (await chat.state.engine.call(lambda: tuple(lm.scored(made.request, ids, top))))[:-1]


async def _whole(chat: Chat, headers: dict[str, str]) -> Response:
    """All answers in one response."""
    texts: list[list[str]] = [[] for _ in range(chat.count)]
    tokens: list[list[Scored]] = [[] for _ in range(chat.count)]
    calls: list[list[dict[str, Any]]] = [[] for _ in range(chat.count)]
    ends: dict[int, Piece] = {}
    async for piece in pieces(chat):
        texts[piece.index].append(piece.text)
        tokens[piece.index].extend(_shown(chat, piece))
        calls[piece.index].extend(piece.calls)
        if piece.finish:
            ends[piece.index] = piece

    def response() -> Response:
        choices = (
            _choice(chat, ends[index], "".join(texts[index]), calls[index], tokens[index])
            for index in range(chat.count)
        )
        document = {"object": "chat.completion", **chat.head, "choices": choices, "usage": usage_of(chat.usage)}
        return json_response({**document, "timings": chat.usage.timings()}, headers)

    return await chat.state.write(response, sum(map(len, tokens)) * (1 + (chat.top or 0)))


def _choice(chat: Chat, end: Piece, text: str, calls: list[dict], tokens: Sequence[Scored]) -> dict[str, Any]:
    """A whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, **own_members(end)}
    if calls:
        message |= {"content": text or None, "tool_calls": calls}
    return {"index": end.index, "finish_reason": end.finish, "logprobs": _logprobs(chat, tokens), "message": message}


async def _chunks(chat: Chat) -> AsyncGenerator[str, None]:
    """The chunks of a stream: the role, the text, the end of every answer, and the usage where it is asked for."""
    with_usage = bool((chat.body.get("stream_options") or {}).get("include_usage"))
    count: dict[int, int] = {}  # calls so far
    async for piece in pieces(chat):
        if piece.index not in count:
            count[piece.index] = 0
            yield _chunk(chat, with_usage, piece.index, {"role": "assistant", "content": None})
        shown = _shown(chat, piece)
        if piece.text or shown:
            yield _chunk(chat, with_usage, piece.index, {"content": piece.text}, _logprobs(chat, shown))
        if piece.calls:
            made = [{"index": count[piece.index] + place, **call} for place, call in enumerate(piece.calls)]
            count[piece.index] += len(made)
            yield _chunk(chat, with_usage, piece.index, {"tool_calls": made})
        if piece.finish:
            yield _chunk(chat, with_usage, piece.index, own_members(piece), finish=piece.finish)
    if with_usage:
        end = {"choices": [], "usage": usage_of(chat.usage), "timings": chat.usage.timings()}
        yield dumped({"object": "chat.completion.chunk", **chat.head, **end})


def _chunk(
    chat: Chat, usage: bool, index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None
) -> str:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    document = {"object": "chat.completion.chunk", **chat.head, "choices": [choice]}
    written = dumped if logprobs is None else dumped_in_parts  # most have none, and each token has a chunk
    return written({**document, "usage": None} if usage else document)


def own_members(end: Piece) -> dict[str, Any]:
    """Riyaz's own members of a message (MESSAGE_MEMBERS), where they are known."""
    known = {"citations": list(end.citations) or None, "confidence": end.confidence, "runner_up": end.runner_up}
    return {name: value for name, value in known.items() if value is not None}


def _shown(chat: Chat, piece: Piece) -> tuple[Scored, ...]:
    """The scored tokens without the one that ended the answer."""
    if chat.top is None or chat.served.predictor.from_set:
        return piece.tokens
    ended = piece.finish in ("stop", "tool_calls") and not chat.body.get("ignore_eos")
    ends = chat.served.open.tokenizer.eos_ids if ended else ()
    return tuple(token for token in piece.tokens if token.token not in ends)


def _logprobs(chat: Chat, tokens: Sequence[Scored]) -> dict[str, Any] | None:
    """The log-probabilities of tokens, for `dumped_in_parts`."""
    if chat.top is None:
        return None
    tokenizer = chat.served.open.tokenizer
    content = (
        {**_token(tokenizer, each.token, each.log_probability),
         "top_logprobs": [_token(tokenizer, token, value) for token, value in each.top]}
        for each in tokens
    )  # fmt: skip
    return {"content": content, "refusal": None}


def _token(tokenizer: Tokenizer, token: int, log_probability: float) -> dict[str, Any]:
    data = tokenizer.bytes_of(token) or tokenizer.token_text(token).encode()
    return {"token": tokenizer.token_text(token), "logprob": max(log_probability, -9999.0), "bytes": list(data)}


def usage_of(usage: Usage) -> dict[str, Any]:
    """Numbers of tokens as OpenAI names them."""
    return {
        "prompt_tokens": usage.prompt, "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    }  # fmt: skip
