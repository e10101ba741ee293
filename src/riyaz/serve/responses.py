"""POST /v1/responses, for clients that send the whole conversation each time: converted to a chat, nothing is kept."""

import json
import re
import secrets
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from riyaz.serve.asking import Body, expect_shallow
from riyaz.serve.chat import Chat, checked, idle, own_members, pieces
from riyaz.serve.fields import RESPONSES, ignored_header
from riyaz.serve.generation import Piece, Usage
from riyaz.serve.http import EventStream, dumped, read_fields, unless_gone
from riyaz.serve.problems import Problem
from riyaz.serve.state import state_of

ROLES = ("system", "developer", "user", "assistant")
NAMES = {"messages": "input", "max_completion_tokens": "max_output_tokens", "response_format": "text.format"}
CHAT_FIELD = re.compile(rf"({'|'.join(NAMES)})\b(?:\.(\d+)(\.content)?)?")
ITEM = ("type", "role", "content", "id", "status")  # of an item of the input; the last two are of answers sent back
STATUS = {"stop": "completed", "length": "incomplete", None: "in_progress"}
NO_END = Piece(0, finish="stop")  # of an answer without a piece
PASSED = ("model", "temperature", "top_p", "stream")


async def responses(request: Request) -> Response:
    """Answer an input, at once or as a stream of events."""
    body, ignored = await read_fields(request, RESPONSES)
    state = state_of(request)
    try:
        chat = await checked(state, chat_body(body))
    except Problem as problem:
        raise renamed(problem, body) from None
    headers = ignored_header([*ignored, *_idle_items(body["input"]), *(_renamed(name, False) for name in idle(chat))])
    name = f"resp_{secrets.token_hex(12)}"
    if body.get("stream"):
        return EventStream(_events(chat, body, name), headers, state)
    return await unless_gone(request.receive, _whole(chat, body, name, headers))


def chat_body(body: Body) -> Body:
    """The chat request that says the same. Raises Problem for an item of the input that is no message."""
    inputs = body["input"]
    items = [{"role": "user", "content": inputs}] if isinstance(inputs, str) else inputs
    messages = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    for place, item in enumerate(items):
        where = f"input.{place}"
        if item.get("type", "message") != "message" or item.get("role") not in ROLES:
            raise Problem(400, f"{where}: only messages are read", where, "unsupported_parameter")
        if not isinstance(item.get("content"), str | list):
            raise Problem(400, f"{where}.content: is missing", f"{where}.content", "missing_required_parameter")
        parts = item["content"] if isinstance(item["content"], list) else []
        if not all(isinstance(part, dict) for part in parts):
            raise Problem(400, f"{where}.content: is not a list of objects", f"{where}.content")
        messages.append({"role": item["role"], "content": item["content"]})
    made = {name: body[name] for name in PASSED if name in body} | {"messages": messages}
    if "max_output_tokens" in body:
        made["max_completion_tokens"] = body["max_output_tokens"]
    if form := response_format(body):
        made["response_format"] = form
    return made


def renamed(problem: Problem, body: Body) -> Problem:
    """The problem of a chat, named by the fields of this route."""
    first = bool(body.get("instructions"))
    problem.message = _renamed(problem.message, first)
    problem.param = problem.param and _renamed(problem.param, first)
    return problem


def _renamed(text: str, first: bool) -> str:
    """A text that begins with the name of a chat's field, with ours; `first`: instructions are its first message."""
    match = CHAT_FIELD.match(text)
    if match is None:
        return text
    field, place, content = match.groups()
    rest = text[match.end() :]
    if field != "messages" or place is None:
        return NAMES[field] + text[len(field) :]
    return f"instructions{rest}" if first and place == "0" else f"input.{int(place) - first}{content or ''}{rest}"


def _idle_items(inputs: Any) -> list[str]:
    """Names of members of items that say nothing to the model."""
    items = inputs if isinstance(inputs, list) else []
    return [f"input.{name}" for item in items for name in item if name not in ITEM and item[name] is not None]


def response_format(body: Body) -> Body | None:
    """The format of the text as a chat names it; None for plain text. Raises Problem for one that is not known."""
    text = body.get("text") or {}
    expect_shallow(text, "text")
    try:
        json.dumps(text, allow_nan=False)
    except ValueError:
        raise Problem(400, "text: holds a number that is not finite", "text") from None
    if text.get("verbosity") not in (None, "medium"):
        raise Problem(400, "text.verbosity: is not supported", "text.verbosity", "unsupported_parameter")
    form = text.get("format") or {"type": "text"}
    if form.get("type") == "text":
        return None
    if form.get("type") == "json_object":
        return {"type": "json_object"}
    if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise Problem(400, "text.format: is neither text, json_object nor json_schema with a schema", "text.format")
    return {"type": "json_schema", "json_schema": {"name": str(form.get("name", "")), "schema": form["schema"]}}


async def _whole(chat: Chat, body: Body, name: str, headers: dict[str, str]) -> Response:
    texts: list[str] = []
    end = NO_END
    async for piece in pieces(chat):
        texts.append(piece.text)
        end = piece if piece.finish else end
    finish = end.finish
    item = _message(name, "".join(texts), STATUS[finish], own_members(end))
    return JSONResponse(_response(chat, body, name, [item], finish), headers=headers)


async def _events(chat: Chat, body: Body, name: str) -> AsyncGenerator[str, None]:
    """The events of a stream: created, the text as it comes, and the whole response at the end."""
    number = 0

    def event(kind: str, **members: Any) -> str:
        nonlocal number
        number += 1
        return f"event: {kind}\ndata: {dumped({'type': kind, 'sequence_number': number - 1, **members})}"

    place: dict[str, Any] = {"item_id": f"msg_{name}", "output_index": 0, "content_index": 0}
    texts, begun = [], False
    end = NO_END
    async for piece in pieces(chat):
        if not begun:
            begun = True
            empty = _response(chat, body, name, [], None)
            yield event("response.created", response=empty)
            yield event("response.in_progress", response=empty)
            started = {**_message(name, "", "in_progress", {}), "content": []}
            yield event("response.output_item.added", output_index=0, item=started)
            yield event("response.content_part.added", **place, part=_part(""))
        if piece.text:
            texts.append(piece.text)
            yield event("response.output_text.delta", **place, delta=piece.text, logprobs=[])
        end = piece if piece.finish else end
    text, finish = "".join(texts), end.finish
    item = _message(name, text, STATUS[finish], own_members(end))
    yield event("response.output_text.done", **place, text=text, logprobs=[])
    yield event("response.content_part.done", **place, part=_part(text))
    yield event("response.output_item.done", output_index=0, item=item)
    whole = _response(chat, body, name, [item], finish)
    yield event("response.completed" if finish == "stop" else "response.incomplete", response=whole)


def _message(name: str, text: str, status: str, members: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "message",
        "id": f"msg_{name}",
        "status": status,
        "role": "assistant",
        "content": [_part(text)],
        **members,
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(chat: Chat, body: Body, name: str, output: list[Any], finish: str | None) -> dict[str, Any]:
    """The response object; `finish` is None while it is made."""
    return {
        "id": name, "object": "response", "created_at": chat.created, "status": STATUS[finish],
        "model": chat.served.name, "output": output, "error": None,
        "instructions": body.get("instructions"), "metadata": {},
        "incomplete_details": {"reason": "max_output_tokens"} if finish == "length" else None,
        "max_output_tokens": body.get("max_output_tokens"), "parallel_tool_calls": False, "tool_choice": "none",
        "tools": [], "temperature": body.get("temperature"), "top_p": body.get("top_p"), "store": False,
        "previous_response_id": None, "truncation": "disabled",
        "text": body.get("text") or {"format": {"type": "text"}},
        "usage": None if finish is None else _usage(chat.usage),
    }  # fmt: skip


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt, "output_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
