"""Conversations and answers in OpenAI's form: calls of tools, parts of a message, what is no answer, errors."""

from typing import Any

import pytest

from riyaz.data import Message
from riyaz.teacher.openai_form import error_of, request_of, text_of


@pytest.mark.parametrize(("members", "text"), [
    ({"content": "a\nb "}, "a\nb "), ({"content": ""}, ""), ({"content": None}, ""),
    ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, "b"]}, "ab"),
    ({"content": "half \ud83d"}, "half ?"), ({"content": "x", "tool_calls": []}, "x"),
    ({"content": "x", "tool_calls": None}, "x"),
    ({"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
     '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
    ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
     '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
    ({"tool_calls": [{"function": {"name": "f", "arguments": ""}}, {"function": {"name": "g", "arguments": "{"}}]},
     '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
     '<tool_call>\n{"name": "g", "arguments": "{"}\n</tool_call>'),
])  # fmt: skip
def test_what_counts_as_a_text(members: dict[str, Any], text: str) -> None:
    assert text_of({"choices": [{"message": members, "finish_reason": "stop"}, "another choice"]}) == text


@pytest.mark.parametrize("document", [
    None, [], {}, {"choices": []}, {"choices": [{}]}, {"choices": "abc"}, {"choices": {"0": {}}},
    {"choices": [{"message": {"content": 3}}]}, {"choices": [{"message": {"content": None}}]},
    {"choices": [{"message": {}, "finish_reason": "stop"}]}, {"choices": [{"message": "x"}]},
    {"choices": [{"message": {"content": "", "tool_calls": [{"name": "f"}]}, "finish_reason": "stop"}]},
])  # fmt: skip
def test_what_is_no_answer(document: Any) -> None:
    assert text_of(document) is None and error_of(document) == ""


def test_the_places_of_an_error() -> None:
    for document in ({"error": {"message": "no"}}, {"error": "no"}, {"detail": "no"}, {"message": "no"}):
        assert error_of(document) == "no"
    assert error_of({"error": {"message": 3}}) == error_of({"error": None}) == ""


def test_tools_and_their_calls_travel_in_openais_form() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}
    conversation: list[Message] = [
        {"role": "system", "content": "", "tools": [tool]}, {"role": "user", "content": "q", "weight": 1},
        {"role": "assistant", "content": "", "tool_calls": [call, {**call, "id": "own"}]},
        {"role": "tool", "content": "s", "tool_call_id": "own"}, {"role": "tool", "content": "r"},
        {"role": "assistant", "content": "", "tool_calls": [{**call, "id": "1st"}, call]},
        {"role": "tool", "content": "t", "tool_call_id": "1st"}, {"role": "tool", "content": "u"},
    ]  # fmt: skip
    function = {"name": "f", "arguments": '{"a": "é"}'}
    wanted = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "call00000", "type": "function", "function": function},
            {"id": "own", "type": "function", "function": function}]},
        {"role": "tool", "content": "s", "tool_call_id": "own"},
        {"role": "tool", "content": "r", "tool_call_id": "call00000"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1st", "type": "function", "function": function},
            {"id": "call00003", "type": "function", "function": function}]},
        {"role": "tool", "content": "t", "tool_call_id": "1st"},
        {"role": "tool", "content": "u", "tool_call_id": "call00003"},
    ]  # fmt: skip
    assert request_of(conversation) == {"messages": wanted, "tools": [tool]}
    said = {**conversation[0], "content": "Be brief"}
    assert request_of([said, *conversation[1:]])["messages"] == [{"role": "system", "content": "Be brief"}, *wanted]
    assert request_of(conversation[1:2]) == {"messages": [{"role": "user", "content": "q"}]}
    empty: list[Message] = [{"role": "system", "content": ""}, {"role": "user", "content": "q"}]
    assert request_of(empty) == {"messages": empty}
