"""The form of OpenAI's chat completions: a conversation as a request holds it, the text and the error of an answer."""

from collections.abc import Sequence
from typing import Any

from riyaz.data import Message
from riyaz.json_files import json_or, to_json
from riyaz.text.calls import turn_text
from riyaz.text.sentences import whole_sentences


def request_of(conversation: Sequence[Message]) -> dict[str, Any]:
    """The `messages` of a request, and its `tools` where the conversation's first turn defines them."""
    messages = _messages(conversation)
    tools = conversation[0].get("tools")
    if tools and messages[0] == {"role": "system", "content": ""}:  # it only held the definitions
        messages = messages[1:]
    return {"messages": messages, **({"tools": list(tools)} if tools else {})}


def _messages(conversation: Sequence[Message]) -> list[Message]:
    """The turns with what OpenAI's form knows. There arguments of calls are JSON as text, and every call has an id, by
    which its result names it; a row may hold objects, no ids, and results in the order of the calls."""
    messages: list[Message] = []
    waiting: list[str] = []  # ids of calls whose result has not come
    count = 0
    for turn in conversation:
        message = {"role": turn["role"], "content": turn["content"]}
        if turn.get("tool_calls"):
            calls = [_call(call, f"call{number:05}") for number, call in enumerate(turn["tool_calls"], count)]
            message["tool_calls"] = calls
            count, waiting = count + len(calls), [call["id"] for call in calls]
        if turn["role"] == "tool":
            name = turn.get("tool_call_id") or (waiting[0] if waiting else f"call{count:05}")
            waiting = [other for other in waiting if other != name]
            message["tool_call_id"] = name
        messages.append(message)
    return messages


def _call(call: dict[str, Any], number: str) -> dict[str, Any]:
    arguments = call["function"].get("arguments", {})
    arguments = arguments if isinstance(arguments, str) else to_json(arguments)
    function = {"name": call["function"]["name"], "arguments": arguments}
    return {"id": call.get("id") or number, "type": "function", "function": function}


def text_of(document: Any) -> str | None:
    """The text of an answer's first choice, with calls of tools as rows hold them; None where it holds no answer. Parts
    of a message that are no text, such as thoughts, are left out, and of an answer that its limit has cut off all
    behind its last whole sentence."""
    match document:
        case {"choices": [{"message": dict(message)} as choice, *_]}:
            content, calls = message.get("content"), _calls(message.get("tool_calls"))
        case _:
            return None
    if isinstance(content, list):
        content = "".join(text for part in content if (text := _part(part)))
    elif content is None and (calls or ("content" in message and choice.get("finish_reason"))):
        content = ""
    if not isinstance(content, str) or calls is None:
        return None
    cut = choice.get("finish_reason") == "length"
    text = turn_text({"content": whole_sentences(content + " ") if cut else content, "tool_calls": calls})
    return text.encode(errors="replace").decode()  # half of a pair of surrogates is no character


def _part(part: Any) -> str:
    match part:
        case str(text) | {"type": "text" | "output_text", "text": str(text)}:
            return text
    return ""


def _calls(value: Any) -> list[dict[str, Any]] | None:
    """The calls of a message, with arguments as objects; None where one is no call."""
    calls = []
    for call in value if isinstance(value, list) else []:
        match call:
            case {"function": {"name": str(name), "arguments": str(arguments)}}:
                calls.append({"function": {"name": name, "arguments": json_or(arguments or "{}", arguments)}})
            case {"function": {"name": str(name), "arguments": dict(arguments)}}:
                calls.append({"function": {"name": name, "arguments": arguments}})
            case _:
                return None
    return calls


def error_of(document: Any) -> str:
    """What a server says of an error, "" where it says nothing."""
    match document:
        case {"error": {"message": str(message)}} | {"error": str(message)} | {"detail": str(message)}:
            return message
        case {"message": str(message)}:
            return message
    return ""
