"""Turn a list of messages into the turns up to a user turn, and the assistant's answers to learn.

Roles and weights are those of the OpenAI and ShareGPT formats. Where a row defines its tools, in OpenAI's form, turns
hold definitions and calls as the chat template reads them. Otherwise tools become text in the format of Hermes and
Qwen: a call in the assistant's turn, a result in a user turn, each between its tags.
"""

import json
import math
import re
from typing import Any

from riyaz.data import Message
from riyaz.data.tables import json_kind
from riyaz.text.calls import tagged, turn_text

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
RESULT_ROLES = ("tool", "function", "observation", "function_response")  # of a tool's result
CALL_ROLES = ("function_call", "tool_call")  # of a turn that is a tool call
ASKING = ("user", "tool")  # of the turns that the assistant answers
TEXT_PARTS = ("text", "input_text", "output_text")

Asked = tuple[tuple[Message, ...], str | None]  # the turns up to a question, and the answer


class RowProblem(Exception):
    """An error in one row; the reader of the file adds the line number."""


class Incomplete(RowProblem):
    """A row without a prompt or an answer, which may be left out."""


def is_messages(value: object) -> bool:
    """Whether a field is a list of messages rather than text."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)


def conversation(
    value: object, column: str, system: str | None, tools: list[object], answers_required: bool, called: bool = True
) -> Asked:
    """(turns up to a user turn, the last answer of weight 1 after it). The answer is None if all have weight 0, or if
    it is not required and the messages end with a user turn or the result of a tool.

    `system` and `tools` are values of the row's columns beside the messages. Tools become text unless they are
    `called`. Raises RowProblem.
    """
    return _last(*_read(value, column, system, tools, called), answers_required)


def answered_turns(
    value: object, column: str, system: str | None, tools: list[object], called: bool = True
) -> list[Asked]:
    """(turns up to a user turn or the result of a tool, the answer after it) of every answer of weight 1 that is not
    empty. Where there is none, what `conversation` says of the last."""
    turns, weights = _read(value, column, system, tools, called)
    pairs: list[Asked] = []
    for place in range(1, len(turns)):
        before, turn = turns[place - 1], turns[place]
        if turn["role"] == "assistant" and weights[place] and before["role"] in ASKING:
            answer = trimmed(turn_text(turn))
            if answer and (before["role"] == "tool" or before["content"].strip()):
                pairs.append((tuple(turns[:place]), answer))
    return pairs or [_last(turns, weights, answers_required=True)]


def _read(
    value: object, column: str, system: str | None, tools: list[object], called: bool
) -> tuple[list[Message], list[bool]]:
    """The turns of a list of messages with the row's system turn and tools, and whether each has weight 1."""
    if not is_messages(value):
        raise RowProblem(f"{column!r} is not a list of messages")
    named = _named_tools(tools) if called else []
    turns, weights = _called_turns(value) if named else _turns(value)  # type: ignore[arg-type]
    turns, weights = _with_system(turns, weights, system, "" if named else _definitions(tools))
    if named and turns[0]["role"] != "system":
        turns, weights = [{"role": "system", "content": ""}, *turns], [False, *weights]
    return ([{**turns[0], "tools": named}, *turns[1:]] if named else turns), weights


def _last(turns: list[Message], weights: list[bool], answers_required: bool) -> Asked:
    if not answers_required and turns[-1]["role"] in ASKING:
        return tuple(turns), None
    answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers:
        raise Incomplete("the conversation has no assistant turn")
    weighted = [index for index in answers if weights[index]]
    if not weighted and answers_required:
        return tuple(turns), None
    last = (weighted or answers)[-1]
    if last == 0 or turns[last - 1]["role"] not in ASKING:
        raise RowProblem("the last assistant turn does not follow a user turn")
    answer, before = trimmed(turn_text(turns[last])), turns[last - 1]
    if not answer or not (before["content"].strip() or before["role"] == "tool"):
        raise Incomplete(f"the last {'user' if answer else 'assistant'} turn is empty")
    return tuple(turns[:last]), answer


def as_text(value: object, column: str) -> str:
    """A field as text: "" for null, numbers and booleans as in JSON. Raises RowProblem."""
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        raise RowProblem(f"{column!r} is {json_kind(value)}, not text")
    if isinstance(value, float) and not math.isfinite(value):
        raise Incomplete(f"{column!r} is the number {json.dumps(value)}, not text")
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowProblem(f"{column!r} contains an unpaired surrogate, which is not a character") from None
    return text


def trimmed(text: str) -> str:
    """An answer without outer white space; in a text of several lines the first keeps its indentation."""
    inner = text.strip()
    return re.sub(r"\A(?:[^\S\n]*\n)+", "", text).rstrip() if "\n" in inner else inner


def _turns(value: list[dict[str, Any]]) -> tuple[list[Message], list[bool]]:
    """The turns, with consecutive tool results joined into one, and whether each has weight 1."""
    turns: list[Message] = []
    weights: list[bool] = []
    after_result = False
    for each in value:
        role, content = _turn(each)
        result = role == "result"
        if result and after_result:
            turns[-1] = {"role": "user", "content": turns[-1]["content"] + "\n" + content}
        else:
            turns.append({"role": "user" if result else role, "content": content})
            weights.append(_weight(each))
        after_result = result
    return turns, weights


def _called_turns(value: list[dict[str, Any]]) -> tuple[list[Message], list[bool]]:
    """The turns of a row that defines its tools, with calls and results as chat templates read them, and whether each
    has weight 1. Calls in turns of their own that follow each other are one turn."""
    turns: list[Message] = []
    weights: list[bool] = []
    before, turn = "", Message()
    for each in value:
        role, content = each.get("role") or each.get("from"), each.get("content")
        content = each.get("value") if content is None else content
        if role in RESULT_ROLES:
            turn = {"role": "tool", "content": _json(content) if isinstance(content, dict) else _content(content)}
            if isinstance(each.get("tool_call_id"), str):
                turn["tool_call_id"] = each["tool_call_id"]
        elif role in CALL_ROLES:
            made = _parsed(content if isinstance(content, dict) else _content(content))
            turn = {"role": "assistant", "content": "", "tool_calls": [_called(made)]}
            if before in CALL_ROLES:
                turns[-1]["tool_calls"] += turn["tool_calls"]
                continue
        elif isinstance(role, str) and role in ROLES:
            turn = {"role": ROLES[role], "content": _content(content)}
            if calls := [_called(function, each) for each, function in _functions(each)]:
                turn["tool_calls"] = calls
        else:
            raise RowProblem(f"role {role!r} is not one of system, user, assistant, tool")
        turns.append(turn)
        weights.append(_weight(each))
        before = role
    return turns, weights


def _called(function: object, call: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call as chat templates read it: with its id, and arguments as an object."""
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowProblem("a tool call has no name")
    arguments = _without_nulls(_parsed(function.get("arguments") or {}))
    if not isinstance(arguments, dict):
        raise RowProblem(f"the arguments of the call of {function['name']!r} are no object of JSON")
    _json(arguments)  # raises RowProblem for what is no text
    own = {"id": call["id"]} if call and isinstance(call.get("id"), str) else {}
    return {**own, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _turn(turn: dict[str, Any]) -> tuple[str, str]:
    """Role (system, user, assistant or result) and text of a message."""
    role = turn.get("role") or turn.get("from")
    content = turn.get("content")
    content = turn.get("value") if content is None else content
    if role in RESULT_ROLES:
        return "result", _tagged("tool_response", content if isinstance(content, dict) else _content(content))
    if role in CALL_ROLES:
        return "assistant", _tagged("tool_call", content if isinstance(content, dict) else _content(content))
    if not isinstance(role, str) or role not in ROLES:
        raise RowProblem(f"role {role!r} is not one of system, user, assistant, tool")
    return ROLES[role], "\n".join(filter(None, [_content(content), *_calls(turn)]))


def _content(content: object) -> str:
    """The text of a message; its parts must be text."""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        other = [part.get("type") for part in content if part.get("type") not in TEXT_PARTS]
        if other:
            raise RowProblem(f"a part of a message is {other[0]!r}; only text is supported")
        return "".join(as_text(part.get("text"), "text") for part in content)
    return as_text(content, "content")


def _functions(turn: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """(call, its name and arguments) of each call in an assistant's message (`tool_calls` or the older
    `function_call`)."""
    calls = turn.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RowProblem("tool_calls is not a list of calls")
    functions = [(call, call.get("function") or call) for call in calls]
    return functions + ([({}, turn["function_call"])] if turn.get("function_call") else [])


def _calls(turn: dict[str, Any]) -> list[str]:
    """The tool calls of an assistant's message as text."""
    texts = []
    for _, call in _functions(turn):
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise RowProblem("a tool call has no name")
        texts.append(_tagged("tool_call", {"name": call["name"], "arguments": _parsed(call.get("arguments") or {})}))
    return texts


def _weight(turn: dict[str, Any]) -> bool:
    weight = turn.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise RowProblem(f"weight {weight!r} is neither 0 nor 1")
    return weight is None or weight == 1


def _with_system(
    turns: list[Message], weights: list[bool], system: str | None, tools: str
) -> tuple[list[Message], list[bool]]:
    """The turns after one system turn: their own or the row's `system` column, followed by the tools as text."""
    own = turns[0]["content"] if turns[0]["role"] == "system" else None
    if system and own and system.strip() != own.strip():
        raise RowProblem("the messages and the column 'system' hold different system turns")
    text = "\n\n".join(filter(None, [own or system, tools]))
    if not text:
        return turns, weights
    first: Message = {"role": "system", "content": text}
    return ([first, *turns[1:]], weights) if own is not None else ([first, *turns], [False, *weights])


def _listed(columns: list[object]) -> list[object]:
    """The tool definitions of a row; a column may hold them as JSON text."""
    definitions: list[object] = []
    for value in columns:
        value = _parsed(value)
        if isinstance(value, str) and value.strip():
            raise RowProblem("the tools are neither a list nor JSON")
        definitions += value if isinstance(value, list) else [value] if value and not isinstance(value, str) else []
    return definitions


def _named_tools(columns: list[object]) -> list[dict[str, Any]]:
    """The tool definitions in OpenAI's form, in which a client sends them; none unless each has a name."""
    tools: list[dict[str, Any]] = []
    for tool in map(_without_nulls, _listed(columns)):
        _json(tool)  # raises RowProblem for what is no text
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(tool, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return []
        tools.append(tool if "function" in tool else {"type": "function", "function": function})
    return tools


def _definitions(columns: list[object]) -> str:
    """The tool definitions as text, one per line, or "" for none."""
    definitions = _listed(columns)
    return _tagged("tools", "\n".join(_json(each) for each in definitions)) if definitions else ""


def _tagged(tag: str, value: object) -> str:
    return tagged(tag, value if isinstance(value, str) else _json(value))


def _parsed(value: object) -> object:
    """The value of a JSON text; any other value unchanged."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _json(value: object) -> str:
    """JSON on one line without nulls, which Parquet stores for every key that only other rows have."""
    return as_text(json.dumps(_without_nulls(value), ensure_ascii=False), "tools")


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
