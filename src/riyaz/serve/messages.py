"""POST /v1/messages and /v1/messages/count_tokens, in the form of Anthropic's clients: converted to a chat."""

import json
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.serve.chat import Chat, checked, idle, own_members, pieces
from riyaz.serve.fields import ignored_header
from riyaz.serve.generation import Piece, Usage
from riyaz.serve.http import EventStream, dumped, read_fields, unless_gone
from riyaz.serve.message_fields import COUNT, MESSAGES
from riyaz.serve.message_turns import converted
from riyaz.serve.problems import Problem
from riyaz.serve.state import state_of
from riyaz.serve.tokens import prompt_length

NO_END = Piece(0, finish="stop")  # of an answer without a piece


class Blocks:
    """The content of one answer while it comes: text blocks and tool_use blocks, and the events that tell them."""

    def __init__(self) -> None:
        self.content: list[dict[str, Any]] = []
        self.called = False  # it has a tool_use block
        self._writing = False  # the last block is a text that may go on

    def add(self, piece: Piece) -> list[str]:
        """The events of a piece of the answer. An answer of nothing has one empty text block."""
        last = piece.finish is not None
        empty = last and not piece.calls and not self.content
        events = self._text(piece.text) if piece.text or empty else []
        for call in piece.calls:
            events += self._call(call["id"].replace("call_", "toolu_"), call["function"])
        return [*events, *(self._stop() if last else ())]

    def _text(self, text: str) -> list[str]:
        events = []
        if not self._writing:
            self._writing = True
            events = self._start({"type": "text", "text": ""})
        self.content[-1]["text"] += text
        return [*events, *([self._delta({"type": "text_delta", "text": text})] if text else [])]

    def _call(self, name: str, function: dict[str, str]) -> list[str]:
        """The events of a whole call."""
        events, arguments = self._stop(), object_of(function["arguments"])
        block = {"type": "tool_use", "id": name, "name": function["name"], "input": {}}
        events += self._start(block)
        self.content[-1] = block | {"input": arguments}
        self.called = True
        delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments, ensure_ascii=False)}
        place = len(self.content) - 1
        return [*events, self._delta(delta), event("content_block_stop", index=place)]

    def _start(self, block: dict[str, Any]) -> list[str]:
        self.content.append(dict(block))
        place = len(self.content) - 1
        return [event("content_block_start", index=place, content_block=block), *([] if place else [event("ping")])]

    def _delta(self, delta: dict[str, str]) -> str:
        return event("content_block_delta", index=len(self.content) - 1, delta=delta)

    def _stop(self) -> list[str]:
        """The end of the text block that is open, if one is."""
        was, self._writing = self._writing, False
        return [event("content_block_stop", index=len(self.content) - 1)] if was else []


async def messages(request: Request) -> Response:
    """Answer a conversation, at once or as a stream of events."""
    body, ignored = await read_fields(request, MESSAGES)
    state, turns = state_of(request), converted(body)
    try:
        chat = await checked(state, turns.body)
    except Problem as problem:
        raise turns.problem(problem) from None
    headers = ignored_header([*ignored, *turns.ignored, *map(turns.name, idle(chat))])
    if body.get("stream"):
        return EventStream(_events(chat), headers, state)
    return await unless_gone(request.receive, _whole(chat, headers))


async def count_tokens(request: Request) -> Response:
    """Number of tokens of a conversation's prompt; none where no language model reads it."""
    body, ignored = await read_fields(request, COUNT)
    state, turns = state_of(request), converted(body)
    served = state.shelf.find(body["model"])
    try:
        count = await prompt_length(state, served, turns.body) if served.predictor.has_model else 0
    except Problem as problem:
        raise turns.problem(problem) from None
    return JSONResponse({"input_tokens": count}, headers=ignored_header([*ignored, *turns.ignored]))


async def _whole(chat: Chat, headers: dict[str, str]) -> Response:
    blocks, end = Blocks(), NO_END
    async for piece in pieces(chat):
        blocks.add(piece)
        end = piece if piece.finish else end
    document = _message(chat, blocks.content) | _end(blocks, end) | own_members(end)
    return JSONResponse(document, headers=headers)


async def _events(chat: Chat) -> AsyncGenerator[str, None]:
    """The events of a stream: the message without content, its blocks as they come, its end."""
    blocks, end, begun = Blocks(), NO_END, False
    async for piece in pieces(chat):
        if not begun:
            begun = True
            yield event("message_start", message=_message(chat, []))
        for each in blocks.add(piece):
            yield each
        end = piece if piece.finish else end
    yield event("message_delta", delta=_end(blocks, end) | own_members(end), usage=usage_of(chat.usage))
    yield event("message_stop")


def object_of(arguments: str) -> dict[str, Any]:
    """The arguments of a call: what is no object as the one member `arguments` of one, what JSON cannot say as text."""
    try:
        value = json.loads(arguments)
        dumped(value)
    except (ValueError, RecursionError):
        value = arguments
    return value if isinstance(value, dict) else {"arguments": value}


def event(kind: str, **members: Any) -> str:
    """An event with its name, as Anthropic's clients read it."""
    return f"event: {kind}\ndata: {dumped({'type': kind, **members})}"


def _message(chat: Chat, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"msg_{chat.id.removeprefix('chatcmpl-')}", "type": "message", "role": "assistant",
        "model": chat.served.name, "content": content, "stop_reason": None, "stop_sequence": None,
        "usage": usage_of(chat.usage),
    }  # fmt: skip


def _end(blocks: Blocks, end: Piece) -> dict[str, str | None]:
    """Why the answer ended."""
    if end.finish == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if end.stopped_by is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stopped_by}
    return {"stop_reason": "tool_use" if blocks.called else "end_turn", "stop_sequence": None}


def usage_of(usage: Usage) -> dict[str, int]:
    """Numbers of tokens as Anthropic names them: those of the prompt that an earlier one began with are told apart."""
    return {
        "input_tokens": usage.prompt - usage.cached, "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": 0, "output_tokens": usage.completion,
    }  # fmt: skip
