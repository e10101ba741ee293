"""From a request in Anthropic's form to the chat request that says the same, and from a chat's problem to Anthropic's
names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from riyaz.serve.asking import Body, expect_shallow
from riyaz.serve.problems import Problem

Turn = tuple[str, Body]  # where it comes from, such as "messages.2"; the message of a chat
PASSED = ("model", "max_tokens", "temperature", "top_p", "top_k", "stream")
BETWEEN = "\n\n"  # two turns of one role
PLACE = re.compile(r"messages\.(\d+)(\.content)?[\w.]*")
RENAMED = {"stop": "stop_sequences", "response_format": "output_config.format"}
TOOL = re.compile(r"(tools(?:\.\d+)?)\.function(?:\.(?:parameters(.*)|(\w.*)))?$")


@dataclass(frozen=True)
class Converted:
    """The chat request, where each of its messages comes from, and names of what is left out of it."""

    body: Body
    places: tuple[str, ...]
    ignored: tuple[str, ...]

    def problem(self, problem: Problem) -> Problem:
        """The problem of the chat request, by the names of this one's fields."""
        field, colon, rest = problem.message.partition(":")
        problem.message = f"{self.name(field)}{colon}{rest}"
        problem.param = problem.param and self.name(problem.param)
        return problem

    def name(self, field: str) -> str:
        """A field of the chat request, by its name in this one."""
        if (match := PLACE.match(field)) and int(match[1]) < len(self.places):
            return f"{self.places[int(match[1])]}{match[2] or ''}".replace("system.content", "system")
        if match := TOOL.match(field):
            inner = match[3] or ("" if match[2] is None else f"input_schema{match[2]}")
            return f"{match[1]}.{inner}".rstrip(".")
        head, dot, rest = field.partition(".")
        return f"{RENAMED.get(head, head)}{dot}{rest}"


def converted(body: Body) -> Converted:
    """The chat request that says the same. Raises Problem for a block that cannot be read."""
    calls: set[str] = set()
    turns: list[Turn] = []
    if body.get("system"):
        turns.append(("system", {"role": "system", "content": _text_of(body["system"], "system")}))
    for place, message in enumerate(body["messages"]):
        for turn in _turns(message, f"messages.{place}", calls):
            _join(turns, turn)
    made = {name: body[name] for name in PASSED if name in body} | {"messages": [message for _, message in turns]}
    if body.get("stop_sequences"):
        made["stop"] = body["stop_sequences"]
    if schema := ((body.get("output_config") or {}).get("format") or {}).get("schema"):
        made["response_format"] = {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}
    if body.get("tools"):
        made["tools"] = [_tool(tool, f"tools.{place}") for place, tool in enumerate(body["tools"])]
    made |= _choice(body)
    return Converted(made, tuple(where for where, _ in turns), _left_out(body))


def _join(turns: list[Turn], turn: Turn) -> None:
    """Add a turn; one of the same role as the turn before it goes on with that one."""
    where, message = turn
    before = turns[-1][1] if turns else {}
    same = before.get("role") == message["role"] and message["role"] != "tool"
    if not same or "tool_calls" in before:
        turns.append((where, message))
        return
    texts = [text for text in (before["content"], message["content"]) if text]
    turns[-1] = (turns[-1][0], before | message | {"content": BETWEEN.join(texts)})


def _turns(message: Body, where: str, calls: set[str]) -> Iterator[Turn]:
    """The turns of a message: the results of tools in turns of their own. `calls`: ids of the calls so far."""
    role, content = message["role"], message["content"]
    if isinstance(content, str):
        yield where, {"role": role, "content": content}
        return
    text, made = "", []
    for place, block in enumerate(content):
        inner = f"{where}.content.{place}"
        if role == "assistant" and block["type"] == "tool_use":
            made.append(_call(block, inner))
            calls.add(block["id"])
        elif role == "user" and block["type"] == "tool_result":
            if text:
                yield where, {"role": role, "content": text}
            text = ""
            yield where, _result(block, inner, calls)
        else:
            text += _text(block, inner)
    if made:
        yield where, {"role": role, "content": text, "tool_calls": made}
    elif text or content[-1]["type"] == "text":
        yield where, {"role": role, "content": text}


def _text_of(content: Any, where: str) -> str:
    """The text of a text or of text blocks. Raises Problem for a block of another type."""
    if isinstance(content, str):
        return content
    return "".join(_text(block, f"{where}.{place}") for place, block in enumerate(content))


def _text(block: Body, where: str) -> str:
    kind = block.get("type")
    if kind != "text":
        what = f"{where}: a block of type {str(kind)[:40]!a} is not read here"
        raise Problem(400, what, where, "unsupported_parameter")
    text = block.get("text")
    if not isinstance(text, str):
        raise Problem(400, f"{where}.text: is missing", f"{where}.text", "missing_required_parameter")
    return text


def _call(block: Body, where: str) -> Body:
    """A tool_use block as a chat's call."""
    for name, kind in (("id", str), ("name", str), ("input", dict)):
        if not isinstance(block.get(name), kind):
            what = "an object" if kind is dict else "text"
            raise Problem(400, f"{where}.{name}: is missing or not {what}", f"{where}.{name}")
    expect_shallow(block["input"], f"{where}.input")
    return {
        "id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": block["input"]},
    }  # fmt: skip


def _result(block: Body, where: str, calls: set[str]) -> Body:
    """A tool_result block as a chat's message."""
    if block.get("tool_use_id") not in calls:
        raise Problem(400, f"{where}.tool_use_id: no tool_use before it has this id", f"{where}.tool_use_id")
    content = "" if block.get("content") is None else block["content"]
    listed = isinstance(content, list) and all(isinstance(part, dict) for part in content)
    if not isinstance(content, str) and not listed:
        raise Problem(400, f"{where}.content: is neither text nor a list of blocks", f"{where}.content")
    return {"role": "tool", "content": _text_of(content, f"{where}.content"), "tool_call_id": block["tool_use_id"]}


def _tool(tool: Body, where: str) -> Body:
    """A tool as a chat has it."""
    if tool.get("input_schema") is None:
        param = f"{where}.input_schema"
        raise Problem(400, f"{param}: is missing", param, "missing_required_parameter")
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _choice(body: Body) -> Body:
    """Which tools the model must call, as a chat has it. Raises Problem for a choice that cannot be followed."""
    choice = body.get("tool_choice") or {"type": "auto"}
    kind: str = choice["type"]
    made: Body = {}
    if kind == "tool":
        if "name" not in choice:
            raise Problem(400, "tool_choice.name: is missing", "tool_choice.name", "missing_required_parameter")
        made["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif body.get("tools") or kind == "any":
        made["tool_choice"] = {"any": "required"}.get(kind, kind)
    if choice.get("disable_parallel_tool_use"):
        made["parallel_tool_calls"] = False
    return made


def _left_out(body: Body) -> tuple[str, ...]:
    """Names of what says nothing to the model."""
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    failed = any(block.get("is_error") for content in contents for block in content)
    return ("messages.content.is_error",) if failed else ()
