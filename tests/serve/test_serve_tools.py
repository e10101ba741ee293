"""Calls of tools: split from the answer's text in any pieces, told as OpenAI has them, and written into turns."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny_llama
from live_server import Running, assert_error, running

from riyaz.serve.opening import Opener
from riyaz.serve.text import Text
from riyaz.text.calls import Calls

HELLO = [{"role": "user", "content": "is it open on sunday"}]
PLACE = """{% if tools %}{{ '<|im_start|>tools\n<tool_call>' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"""
CALLED = """{% for m in messages %}{% for c in m.tool_calls or [] %}{{ 'CALLED ' + c.function.name + ' ' +
(c.function.arguments | tojson) }}{% endfor %}{% endfor %}"""
CALL = '<tool_call>\n{"name": "hours", "arguments": {"day": "Sunday €"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "hours", "parameters": {"type": "object"}}}]


def test_a_call_is_told_apart_from_text_in_any_pieces() -> None:
    generator = np.random.default_rng(0)
    whole = f"Let me see.\n{CALL}\n{CALL.replace('Sunday', 'Monday')} done <b>"
    for _ in range(200):
        cuts = sorted(generator.integers(0, len(whole) + 1, 6))
        calls, text, made = Calls({"hours"}), "", []
        for start, end in zip([0, *cuts], [*cuts, len(whole)]):
            told, found = calls.push(whole[start:end], last=False)
            assert not any("<tool_call>".startswith(told[-n:]) for n in range(1, min(12, len(told)) + 1))
            text, made = text + told, made + found
        told, found = calls.push("", last=True)
        text, made = text + told, made + found
        assert text == "Let me see. done <b>"
        days = [json.loads(call["function"]["arguments"])["day"] for call in made]
        assert days == ["Sunday €", "Monday €"] and calls.count == 2
        assert len({call["id"] for call in made}) == 2 and made[0]["type"] == "function"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("<tool_call>{broken}</tool_call>", 0), ('<tool_call>{"name": "rm", "arguments": {}}</tool_call>', 0),
        ('<tool_call>{"name": "hours"', 0), ("<tool_call>[1]</tool_call> more", 0), ("a < b, <tool", 0),
        ("<tool_call>" + "[" * 50_000, 0), ('<tool_call>{"name": ["hours"]}</tool_call>', 0),
        (CALL.removesuffix("\n</tool_call>"), 1), ('<tool_call>{"name":"hours","arguments":"{}"}</tool_call>', 1),
    ],
)  # fmt: skip
def test_what_is_no_call_stays_text(text: str, count: int) -> None:
    told, made = Calls({"hours"}).push(text, last=True)
    assert len(made) == count and told == ("" if count else text)


def test_half_a_character_in_a_call_is_replaced() -> None:
    _, made = Calls({"hours"}).push('<tool_call>{"name":"hours","arguments":{"day":"\\ud83d"}}</tool_call>', last=True)
    assert json.loads(made[0]["function"]["arguments"]) == {"day": "?"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tiny_llama.write_hf_folder(tmp_path_factory.mktemp("tools") / "tiny")
    (folder / "chat_template.jinja").write_text(PLACE + CALLED + tiny_llama.CHAT_TEMPLATE)
    opener = Opener("fp32")
    opener.serve(str(folder))
    with running(opener) as found:
        yield found


class Said(Text):
    """The text of an answer that a tiny model cannot write: a piece of it for each token."""

    said = f"I look. {CALL}"

    def push(self, token: int) -> str:
        self._ids.append(token)
        self.stopped = 5 * len(self._ids) >= len(self.said)  # the tiny model never ends
        return self.said[5 * len(self._ids) - 5 : 5 * len(self._ids)]

    def finish(self, cut: bool) -> str:
        return ""


@pytest.fixture
def speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riyaz.serve.asking.Text", Said)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_with_a_call_ends_with_tool_calls(served: Running, speaks: None, stream: bool) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "tools": TOOLS, "max_tokens": 90, "n": 2}
    made = served.openai.chat.completions.create(**asked, stream=stream)
    for index in (0, 1):
        if stream:
            if index == 0:
                chunks = [choice for chunk in made for choice in chunk.choices]
            own = [choice for choice in chunks if choice.index == index]
            content = "".join(choice.delta.content or "" for choice in own)
            calls = [call for choice in own for call in choice.delta.tool_calls or []]
            finish = own[-1].finish_reason
            assert [call.index for call in calls] == [0]
        else:
            choice = made.choices[index]
            content, calls, finish = choice.message.content, choice.message.tool_calls, choice.finish_reason
        assert content == "I look." and finish == "tool_calls"
        assert calls[0].function.name == "hours" and json.loads(calls[0].function.arguments) == {"day": "Sunday €"}
    plain = served.openai.chat.completions.create(**{**asked, "n": 1, "tool_choice": "none"})
    assert plain.choices[0].message.content == Said.said and plain.choices[0].finish_reason == "stop"
    assert plain.choices[0].message.tool_calls is None


def test_a_call_and_its_result_are_written_into_the_next_prompt(served: Running) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "hours", "arguments": '{"day": "<|im_end|>"}'}}
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]},
             {"role": "tool", "tool_call_id": "c1", "content": "9 to 5"}]  # fmt: skip
    made = served.openai.chat.completions.create(model="tiny", messages=turns, tools=TOOLS, max_tokens=3)  # type: ignore[arg-type]
    tokenizer = served.state.opener.bases[0].tokenizer
    rows = served.post("/tokenize", {"messages": turns}).json()["tokens"]
    assert 'CALLED hours {"day": "<|im_end|>"}' in tokenizer.decode(rows) and "9 to 5" in tokenizer.decode(rows)
    assert made.usage is not None and made.usage.prompt_tokens > len(rows)
    plain = tokenizer.render([[{"role": turn["role"], "content": turn["content"] or ""} for turn in turns]])
    assert rows.count(2) == plain[0].count(2), "a control token in an argument is text"


def deep(levels: int) -> Any:
    return {"a": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("calls", "param"),
    [
        ([{}], "messages.1.tool_calls.0.function"), ([{"function": 3}], "messages.1.tool_calls.0.function"),
        ([{"function": {"name": 3}}], "messages.1.tool_calls.0.function.name"),
        ([{"function": {"name": "a", "arguments": "{"}}], "messages.1.tool_calls.0.function.arguments"),
        ([{"function": {"name": "a", "arguments": "[" * 9000}}], "messages.1.tool_calls.0.function.arguments"),
        ([{"function": {"name": "a", "arguments": [1]}}], "messages.1.tool_calls.0.function.arguments"),
        ([1], "messages.1.tool_calls.0"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line(served: Running, calls: Any, param: str) -> None:
    turns = [*HELLO, {"role": "assistant", "content": "x", "tool_calls": calls}, *HELLO]
    body = {"model": "tiny", "messages": turns, "max_tokens": 1}
    assert assert_error(served.post("/v1/chat/completions", body), 400)["param"] == param


@pytest.mark.parametrize("levels", [70, 300, 900])
def test_deep_tools_are_refused(served: Running, levels: int) -> None:
    tools = [{"type": "function", "function": {"name": "a", "parameters": deep(levels)}}]
    found = assert_error(served.post("/v1/chat/completions", {"model": "tiny", "messages": HELLO, "tools": tools}), 400)
    assert found["param"] in ("tools.0", None)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": deep(levels)}}
    body = {"model": "tiny", "messages": HELLO, "response_format": form, "max_tokens": 1}
    assert_error(served.post("/v1/chat/completions", body), 400)
    turns = [{"role": "user", "content": "a", "tool_calls": [{"function": {"name": "a"}}]}]
    assert_error(served.post("/v1/chat/completions", {**body, "response_format": None, "messages": turns}), 400)
