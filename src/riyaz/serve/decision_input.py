"""From the input of a request with typed questions to a conversation, in the same words each time.

A text is the user's one turn. Of items, messages are turns; a call of a tool is a turn of the assistant and its output
one of the user:

    assistant   Call of get_order: {"id": 4471}
    user        Output of get_order: sent on Monday

Parts of a text stand on lines of their own, JSON parts as compact JSON with its members in their order. Turns of one
role that follow each other are joined by an empty line. A question is asked in the user's turn: where the last turn is
another's, the whole conversation becomes one turn of the user, `assistant: …`.
"""

import json
from collections.abc import Sequence
from typing import Any

from riyaz.data import Message
from riyaz.serve.asking import Body, expect_short
from riyaz.serve.decision_fields import CALLS, OUTPUTS
from riyaz.serve.problems import Problem

BETWEEN = "\n\n"
DEEPEST, MOST_VALUES, MOST_BYTES = 32, 10_000, 256 * 2**10  # of a JSON part, as OpenAI's client documents them
TEXTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}  # the member that holds a part's text


def conversation_of(value: str | Sequence[Body], where: str = "input") -> list[Message]:
    """The conversation of an input, which ends with the user's turn. Raises Problem 400 naming the item."""
    if isinstance(value, str):
        expect_short(value, where)
        return [{"role": "user", "content": value}]
    calls: dict[str, Body] = {}
    turns: list[Message] = []
    for place, item in enumerate(value):
        role, content = _turn(item, calls, f"{where}.{place}")
        if turns and turns[-1]["role"] == role:
            turns[-1] = {"role": role, "content": turns[-1]["content"] + BETWEEN + content}
        else:
            turns.append({"role": role, "content": content})
    if turns[-1]["role"] != "user":
        written = BETWEEN.join(f"{turn['role']}: {turn['content']}" for turn in turns)
        turns = [{"role": "user", "content": written}]
    expect_short(turns[-1]["content"], where)
    return turns


def text_of(content: str | Sequence[Body], where: str) -> str:
    """The text of a content, its parts on lines of their own. Raises Problem 400 naming a part that is no text."""
    if isinstance(content, str):
        return content
    return "\n".join(_part(part, f"{where}.{place}") for place, part in enumerate(content))


def json_text(data: Any, where: str) -> str:
    """A JSON value as text, its members in their order. Raises Problem 400 for one too deep or too large."""
    level, values = [data], 0
    for depth in range(DEEPEST + 2):
        if not level or depth > DEEPEST or values > MOST_VALUES:
            break
        values += len(level)
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [value for group in inner for value in group]
    if level or values > MOST_VALUES:
        what = f"{where}: the JSON has more than {DEEPEST} levels or {MOST_VALUES:,} values"
        raise Problem(400, what, where)
    try:
        written = json.dumps(data, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
    except ValueError:
        raise Problem(400, f"{where}: holds a number that is not finite", where) from None
    if len(written.encode()) > MOST_BYTES:
        raise Problem(400, f"{where}: the JSON has more than {MOST_BYTES:,} bytes", where)
    return written


def _turn(item: Body, calls: dict[str, Body], where: str) -> tuple[str, str]:
    """(role, text) of an item; `calls` holds the calls before it, and gets its own."""
    kind = item.get("type") or "message"
    if kind in CALLS:
        name, call_id, arguments = (_told(item, member, where) for member in ("name", "call_id", CALLS[kind]))
        if call_id in calls:
            raise Problem(400, f"{where}.call_id: another call has it", f"{where}.call_id")
        name = f"{item['namespace']}.{name}" if item.get("namespace") else name
        calls[call_id] = {"type": kind, "name": name}
        return "assistant", f"Call of {name}: {arguments}"
    if kind in OUTPUTS:
        call = calls.get(_told(item, "call_id", where), {})
        if call.get("type") != OUTPUTS[kind]:
            message = f"{where}.call_id: no {OUTPUTS[kind]} before it has this id"
            raise Problem(400, message, f"{where}.call_id")
        return "user", f"Output of {call['name']}: {text_of(_told(item, 'output', where), f'{where}.output')}"
    role, content = _told(item, "role", where), _told(item, "content", where)
    return "system" if role == "developer" else role, text_of(content, f"{where}.content")


def _told(item: Body, member: str, where: str) -> Any:
    """The value of a member. Raises Problem 400 where it is missing."""
    if item.get(member) is None:
        raise Problem(400, f"{where}.{member}: is missing", f"{where}.{member}", "missing_required_parameter")
    return item[member]


def _part(part: Body, where: str) -> str:
    kind = part["type"]
    if kind in TEXTS:
        text: str = _told(part, TEXTS[kind], where)
        expect_short(text, where)
        return text
    if kind == "input_json":
        return json_text(_told(part, "data", where), f"{where}.data")
    raise Problem(400, f"{where}: {kind}: no image is read, only text and JSON", where, "unsupported_parameter")
