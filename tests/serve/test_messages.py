"""Anthropic's messages: its own client gets answers, streams, counts, calls of tools and errors of its own classes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
from live_server import KEY, Running, assert_error, running

from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel, WeightsPart
from riyaz.classifiers.linear import Document, LinearClassifier
from riyaz.data.task import Task
from riyaz.serve import generation
from riyaz.serve.fields import CHAT
from riyaz.serve.message_fields import COUNT, MESSAGES
from riyaz.serve.messages import Blocks, object_of
from riyaz.serve.opening import Opener
from riyaz.serve.text import Text
from riyaz.sources import open_source

HELLO: list[Any] = [{"role": "user", "content": "where is my order"}]
TOOLS: list[Any] = [{"name": "hours", "description": "When it is open", "input_schema": {"type": "object"}}]
PLACE = """{% if tools %}{{ '<|im_start|>tools\\n<tool_call>' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}"""
CALLED = """{% for m in messages %}{% for c in m.tool_calls or [] %}{{ 'CALLED ' + c.function.name + ' ' +
(c.function.arguments | tojson) }}{% endfor %}{% endfor %}"""
CALL = '<tool_call>\n{"name": "hours", "arguments": {"day": "Sunday €"}}\n</tool_call>'
ASKED: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 6, "extra_body": {"temperature": 0}}


@pytest.fixture(autouse=True, scope="module")
def import_client() -> None:
    """It takes three seconds, which a process of tests that runs other files does without."""
    global anthropic
    import anthropic


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A plain model, and one whose template writes tools."""
    folder = tmp_path_factory.mktemp("messages")
    opener = Opener("fp32")
    opener.serve(str(tiny_llama.write_hf_folder(folder / "tiny", seed=6)))
    tooled = tiny_llama.write_hf_folder(folder / "tooled", seed=2)
    (tooled / "chat_template.jinja").write_text(PLACE + CALLED + tiny_llama.CHAT_TEMPLATE)
    opener.serve(str(tooled))
    with running(opener) as found:
        yield found


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[anthropic.Anthropic]:
    with client_of(served) as made:
        yield made


def client_of(served: Running, **options: Any) -> anthropic.Anthropic:
    strict = {"_strict_response_validation": True, "max_retries": 0, "api_key": KEY}
    return anthropic.Anthropic(base_url=served.url, **{**strict, **options})


def test_an_answer_is_the_chats(served: Running, client: anthropic.Anthropic) -> None:
    chat = served.openai.chat.completions.create(model="tiny", messages=HELLO, max_tokens=6, temperature=0)
    made = client.messages.create(**ASKED)
    assert text_of(made) == chat.choices[0].message.content and len(set(text_of(made))) > 5
    assert (made.type, made.role, made.model, made.stop_reason) == ("message", "assistant", "tiny", "max_tokens")
    assert made.id.startswith("msg_") and made.stop_sequence is None and chat.usage is not None
    assert all_input(made) == chat.usage.prompt_tokens and made.usage.output_tokens == 6
    system = [{"role": "system", "content": "Be brief."}, *HELLO]
    wanted = served.openai.chat.completions.create(model="tiny", messages=system, max_tokens=6, temperature=0)  # type: ignore[arg-type]
    blocks: list[Any] = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    for told in ("Be brief.", blocks):
        briefly = client.messages.create(**ASKED, system=told)
        assert text_of(briefly) == wanted.choices[0].message.content


def test_a_stream_tells_the_same_in_named_events(served: Running, client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ASKED)
    with client.messages.stream(**ASKED) as stream:
        kinds = [event.type for event in stream]
        made = stream.get_final_message()
    assert text_of(made) == text_of(whole) and made.stop_reason == "max_tokens" and all_input(made) == all_input(whole)
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 6, "temperature": 0, "stream": True}
    answer = served.post("/v1/messages", body)
    events = [tuple(each.split("\n")) for each in answer.text.removesuffix("\n\n").split("\n\n")]
    assert answer.headers["content-type"].startswith("text/event-stream") and all(len(each) == 2 for each in events)
    names = [name.removeprefix("event: ") for name, _ in events]
    documents = [json.loads(data.removeprefix("data: ")) for _, data in events]
    assert [document["type"] for document in documents] == names
    assert names[:3] == ["message_start", "content_block_start", "ping"] and "[DONE]" not in answer.text
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    used = documents[0]["message"]["usage"]
    assert used["input_tokens"] + used["cache_read_input_tokens"] == all_input(whole)
    assert documents[-2]["usage"]["output_tokens"] == 6


def test_a_stop_sequence_is_named_and_a_beginning_goes_on(client: anthropic.Anthropic) -> None:
    text = text_of(client.messages.create(**ASKED))
    stops = [text[6:9], "never said", text[4:7]]
    made = client.messages.create(**ASKED, stop_sequences=stops)
    assert (made.stop_reason, made.stop_sequence) == ("stop_sequence", text[4:7]) and text_of(made) == text[:4]
    streamed = streamed_by(client, **ASKED, stop_sequences=stops[:2])
    assert streamed.stop_sequence == text[6:9] and text_of(streamed) == text[:6]
    within = client.messages.create(**ASKED, stop_sequences=[text[5:7], text[4:6]])
    assert within.stop_sequence == text[4:6], "both are in one token; the one that comes first ends the answer"
    for nothing in (client.messages.create, lambda **asked: streamed_by(client, **asked)):
        assert text_of(nothing(**ASKED, stop_sequences=[text[:1]])) == "", "one block, without text"  # type: ignore[operator]
    begun: Any = [*HELLO, {"role": "assistant", "content": text[:7]}]
    on = client.messages.create(**{**ASKED, "messages": begun})
    assert text_of(on).startswith(text[7:12]), "it says only how it goes on"
    counted = client.messages.count_tokens(model="tiny", messages=begun).input_tokens
    assert counted == all_input(on) > client.messages.count_tokens(model="tiny", messages=HELLO).input_tokens


def streamed_by(client: anthropic.Anthropic, **asked: Any) -> anthropic.types.Message:
    with client.messages.stream(**asked) as stream:
        return stream.get_final_message()


def all_input(made: anthropic.types.Message) -> int:
    return made.usage.input_tokens + (made.usage.cache_read_input_tokens or 0)


def text_of(made: anthropic.types.Message) -> str:
    (block,) = made.content
    assert block.type == "text"
    return block.text


def test_tokens_are_counted_as_they_are_used(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": "tooled", "messages": HELLO, "system": "Be brief.", "tools": TOOLS}
    counted = client.messages.count_tokens(**asked).input_tokens
    made = client.messages.create(**asked, max_tokens=1)
    assert made.usage.input_tokens == counted and made.usage.cache_read_input_tokens == 0
    again = client.messages.create(**asked, max_tokens=1).usage
    assert again.cache_read_input_tokens and again.input_tokens + again.cache_read_input_tokens == counted
    assert counted > client.messages.count_tokens(model="tooled", messages=HELLO).input_tokens


def test_turns_of_one_role_are_one_turn(served: Running, client: anthropic.Anthropic) -> None:
    turns: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "card"}]},
        {"role": "user", "content": "was declined"}, {"role": "assistant", "content": "Oh"},
        {"role": "assistant", "content": "."}, {"role": "user", "content": "where is it"},
    ]  # fmt: skip
    joined = [
        {"role": "user", "content": "the card\n\nwas declined"}, {"role": "assistant", "content": "Oh\n\n."}, turns[-1],
    ]  # fmt: skip
    wanted = served.post("/v1/chat/completions/input_tokens", {"model": "tiny", "messages": joined}).json()
    assert client.messages.count_tokens(model="tiny", messages=turns).input_tokens == wanted["input_tokens"]
    with_system = [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert client.messages.count_tokens(model="tiny", messages=with_system).input_tokens > 0  # type: ignore[arg-type]


class Said(Text):
    """The text of an answer that a tiny model cannot write: a piece of it for each token."""

    said = f"I look. {CALL}\n{CALL.replace('Sunday', 'Monday')}"

    def push(self, token: int) -> str:
        self._ids.append(token)
        return self.said[9 * len(self._ids) - 9 : 9 * len(self._ids)]

    def finish(self, cut: bool) -> str:
        return self.said[9 * len(self._ids) :]


@pytest.fixture
def speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riyaz.serve.asking.Text", Said)
    plain = generation._piece
    monkeypatch.setattr(
        generation,
        "_piece",
        lambda *given: replace(piece := plain(*given), finish="stop" if piece.finish else None),
    )


def test_calls_are_tool_use_blocks(client: anthropic.Anthropic, speaks: None) -> None:
    asked: dict[str, Any] = {"model": "tooled", "messages": HELLO, "tools": TOOLS, "max_tokens": 9}
    whole = client.messages.create(**asked)
    for made in (whole, streamed_by(client, **asked)):
        assert [block.type for block in made.content] == ["text", "tool_use", "tool_use"]
        assert made.content[0].text == "I look." and made.stop_reason == "tool_use"  # type: ignore[union-attr]
        assert [block.input for block in made.content[1:]] == [{"day": "Sunday €"}, {"day": "Monday €"}]  # type: ignore[union-attr]
        assert made.content[1].name == "hours" and made.content[1].id.startswith("toolu_")  # type: ignore[union-attr]
    one = client.messages.create(**asked, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert [block.type for block in one.content] == ["text", "tool_use"] and one.stop_reason == "tool_use"
    plain = client.messages.create(**asked, tool_choice={"type": "none"})
    assert text_of(plain) == Said.said and plain.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("text", "made"),
    [('{"a": 1}', {"a": 1}), ("[1]", {"arguments": [1]}), ("Sunday", {"arguments": "Sunday"}), ("", {"arguments": ""}),
     ('{"a": NaN}', {"arguments": '{"a": NaN}'}), ("1e999", {"arguments": "1e999"}),
     ("[" * 9000, {"arguments": "[" * 9000})],
)  # fmt: skip
def test_arguments_that_are_no_object_are_one_member_of_one(text: str, made: dict[str, Any]) -> None:
    assert object_of(text) == made
    blocks = Blocks()
    call = {"id": "call_1", "type": "function", "function": {"name": "hours", "arguments": text}}
    assert len(blocks.add(generation.Piece(0, calls=(call,), finish="tool_calls"))) == 4, "start, ping, delta, stop"
    assert blocks.content == [{"type": "tool_use", "id": "toolu_1", "name": "hours", "input": made}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "names"),
    [({"type": "any"}, {"hours", "place"}), ({"type": "tool", "name": "place"}, {"place"}),
     ({"type": "any", "disable_parallel_tool_use": True}, {"hours", "place"})],
)  # fmt: skip
def test_a_choice_of_tools_is_kept(client: anthropic.Anthropic, choice: Any, names: set[str], stream: bool) -> None:
    schema = {"type": "object", "required": ["sure"], "additionalProperties": False,
              "properties": {"sure": {"type": "boolean"}}}  # fmt: skip
    tools: Any = [{"name": name, "input_schema": schema, "strict": True} for name in ("hours", "place")]
    asked: dict[str, Any] = {"model": "tooled", "messages": HELLO, "tools": tools, "max_tokens": 300}
    asked["tool_choice"] = choice
    made = streamed_by(client, **asked) if stream else client.messages.create(**asked)
    calls = [block for block in made.content if block.type == "tool_use"]
    assert calls and len(calls) == len(made.content) and {call.name for call in calls} <= names
    assert all(isinstance(call.input["sure"], bool) and len(call.input) == 1 for call in calls)
    if choice != {"type": "any"}:
        assert len(calls) == 1 and made.stop_reason == "tool_use"


def test_a_call_and_its_result_are_written_into_the_next_prompt(served: Running, client: anthropic.Anthropic) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "hours", "input": {"day": "<|im_end|>"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "9 to 5"}]}
    turns: list[Any] = [
        *HELLO, {"role": "assistant", "content": [{"type": "text", "text": "I look."}, call]},
        {"role": "user", "content": [result, {"type": "text", "text": "and then"}]},
    ]  # fmt: skip
    function = {"name": "hours", "arguments": json.dumps(call["input"])}
    chat = [
        *HELLO, {"role": "assistant", "content": "I look.", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "9 to 5"}, {"role": "user", "content": "and then"},
    ]  # fmt: skip
    tool = {"name": "hours", "description": "When it is open", "parameters": {"type": "object"}}
    body = {"model": "tooled", "messages": chat, "tools": [{"type": "function", "function": tool}]}
    wanted = served.post("/v1/chat/completions/input_tokens", body).json()["input_tokens"]
    assert client.messages.count_tokens(model="tooled", messages=turns, tools=TOOLS).input_tokens == wanted
    assert client.messages.create(model="tooled", messages=turns, tools=TOOLS, max_tokens=2).content
    turns[-1]["content"][0]["is_error"] = True
    answer = served.post("/v1/messages", {"model": "tooled", "messages": turns, "tools": TOOLS, "max_tokens": 1})
    assert answer.headers["x-riyaz-ignored"] == "messages.content.is_error"


def test_an_answer_keeps_to_its_schema(client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"enum": ["b"]}}, "additionalProperties": False}
    config: Any = {"format": {"type": "json_schema", "schema": schema}, "effort": "high"}
    made = client.messages.create(**{**ASKED, "max_tokens": 3}, output_config=config)
    assert text_of(made).lstrip().startswith("{")
    config["format"]["schema"] = {"$ref": "#/nowhere"}
    with pytest.raises(anthropic.BadRequestError, match=r"output_config\.format: "):
        client.messages.create(**ASKED, output_config=config)


BLOCKS = [
    ({"type": "image", "source": {"type": "url", "url": "http://x"}}, "messages.0.content.0", "image"),
    ({"type": "document", "source": {}}, "messages.0.content.0", "document"),
    ({"type": "thinking", "thinking": "x"}, "messages.0.content.0", "thinking"),
    ({"type": "tool_use", "id": "a", "name": "b", "input": {}}, "messages.0.content.0", "tool_use"),
    ({"type": "tool_result", "tool_use_id": "a"}, "messages.0.content.0.tool_use_id", "no tool_use"),
    ({"type": "text"}, "messages.0.content.0.text", "missing"), ({}, "messages.0.content.0.type", "missing"),
    (3, "messages.0.content.0", "object"), ({"type": "text", "text": 3}, "messages.0.content.0.text", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("block", "param", "said"), BLOCKS)
def test_a_block_that_is_not_read_is_refused_by_name(served: Running, block: Any, param: str, said: str) -> None:
    turns = [{"role": "user", "content": [block]}]
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        answer = served.post(path, {"model": "tiny", "messages": turns, "max_tokens": 1})
        found = assert_error(answer, 400)
        assert answer.json()["type"] == "error" and found["type"] == "invalid_request_error"
        assert found["param"] == param and said in found["message"]


CALLING = {"type": "tool_use", "id": "a", "name": "hours", "input": {}}


def calling(**change: Any) -> list[Any]:
    return [*HELLO, {"role": "assistant", "content": [{**CALLING, **change}]}]


def deep(levels: int) -> Any:
    return {"a": deep(levels - 1)} if levels else {}


def result(content: Any) -> list[Any]:
    block = {"type": "tool_result", "tool_use_id": "a", "content": content}
    return [*calling(), {"role": "user", "content": [block]}]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": None}, "max_tokens"), ({"max_tokens": 0}, "max_tokens"), ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"), ({"temperature": 1.5}, "temperature"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"), ({"system": 3}, "system"),
        ({"system": [{"type": "image"}]}, "system.0"), ({"system": "x" * 1_100_000}, "system"),
        ({"system": "s", "messages": [*HELLO, {"role": "user", "content": "x" * 1_100_000}]}, "messages.0.content"),
        ({"messages": calling()}, "messages.1"), ({"messages": calling(input=3)}, "messages.1.content.0.input"),
        ({"messages": result(3)}, "messages.2.content.0.content"),
        ({"messages": calling(input=deep(900)), "model": "tooled"}, "messages.1.content.0.input"),
        ({"messages": result([{"type": "image"}])}, "messages.2.content.0.content.0"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"speed": "fast"}, "speed"), ({"container": "c"}, "container"), ({"stop_sequences": [""]}, "stop_sequences.0"),
        ({"stop_sequences": ["a"] * 17}, "stop_sequences"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"tools": TOOLS}, "tools"), ({"tools": [{"name": "a"}]}, "tools.0.input_schema"),
        ({"tools": TOOLS * 2, "model": "tooled"}, "tools.1.name"), ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": TOOLS, "model": "tooled", "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": TOOLS, "model": "tooled", "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
        ({"tools": [{"name": "a", "input_schema": deep(90)}], "model": "tooled"}, "tools.0"),
        ({"tools": [{"name": "a", "input_schema": {"type": "array"}}], "model": "tooled",
          "tool_choice": {"type": "any"}}, "tools.0.input_schema"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"), ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"top_k": -1}, "top_k"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_one_line(served: Running, change: dict, param: str) -> None:
    found = assert_error(
        served.post("/v1/messages", {"model": "tiny", "messages": HELLO, "max_tokens": 1, **change}), 400
    )
    assert found["param"] == param, found
    assert found["message"].startswith(f"{param}: ") and found["type"] == "invalid_request_error"


def test_deep_arguments_of_a_chats_call_are_refused_too(served: Running) -> None:
    call = {"type": "function", "function": {"name": "hours", "arguments": json.dumps(deep(900))}}
    turns = [*HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "9 to 5"}]
    found = assert_error(served.post("/v1/chat/completions", {"model": "tooled", "messages": turns}), 400)
    assert found["param"] == "messages.1.tool_calls.0.function.arguments"


def test_values_that_ask_for_nothing_are_taken(client: anthropic.Anthropic) -> None:
    made = client.messages.create(
        **ASKED, thinking={"type": "disabled"}, service_tier="auto", metadata={"user_id": "u"},
        cache_control={"type": "ephemeral"}, tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
    )  # fmt: skip
    assert made.content
    beta = client.beta.messages.create(model="tiny", messages=HELLO, max_tokens=2, betas=["x-2026-01-01"])
    assert beta.usage.output_tokens == 2


def test_every_field_of_the_client_is_in_the_table() -> None:
    from anthropic.types.message_count_tokens_params import MessageCountTokensParams
    from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

    kinds = (MessageCreateParamsNonStreaming, MessageCreateParamsStreaming)
    assert MESSAGES.keys() >= {name for kind in kinds for name in kind.__annotations__}
    assert COUNT.keys() >= MessageCountTokensParams.__annotations__.keys() and COUNT.keys() == MESSAGES.keys()
    assert MESSAGES["model"] is CHAT["model"]


def test_errors_are_the_clients_classes(served: Running, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(**{**ASKED, "model": "other"})
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError, match="the prompt") as long:
        client.messages.create(**{**ASKED, "max_tokens": 1_020})
    assert long.value.body["error"]["code"] == "context_length_exceeded"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError, match="thinking: "):
        client.messages.create(**ASKED, thinking={"type": "adaptive"})
    with pytest.raises(anthropic.BadRequestError), client.messages.stream(**{**ASKED, "max_tokens": 1_020}) as stream:
        stream.get_final_message()
    answer = served.http.get("/v1/messages")
    assert answer.status_code == 405 and answer.json()["type"] == "error"
    assert served.http.get("/v1/messages/nothing").json()["error"]["type"] == "not_found_error"
    plain = served.http.post("/v1/messages", content="{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415 and plain.json()["error"]["type"] == "invalid_request_error"


def test_what_goes_wrong_within_a_stream_is_an_error_event(
    client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = generation._piece
    calls: list[Any] = []

    def broken(*given: Any) -> Any:
        calls.append(given)
        if len(calls) > 2:
            raise RuntimeError("broken")
        return plain(*given)

    monkeypatch.setattr(generation, "_piece", broken)
    with pytest.raises(anthropic.APIStatusError) as failed, client.messages.stream(**ASKED) as stream:
        stream.get_final_message()
    assert failed.value.body["error"]["type"] == "api_error"  # type: ignore[index]


def test_artifacts_that_choose_answer_too(model_folder: Path, tmp_path: Path) -> None:
    task = Task("closed", ("billing", "refund"), "accuracy", "Classify the text. Answer with one label.", "")
    base = BaseModel("tiny", str(model_folder), open_source(model_folder).sha256(), 1)
    artifacts.write(tmp_path / "labels", Artifact("zero_shot", base=base, task=task), {})
    tensors = {"bias": np.float32([0, 1]), "words.idf": np.ones(1, np.float32), "words.weights": np.float32([[0, 9]])}
    classifier = LinearClassifier(Document(list(task.labels), 1.0, {"words": ["order"]}), tensors)
    (tmp_path / "files").mkdir()
    made = Artifact("linear", weights=WeightsPart("linear"), task=task)
    artifacts.write(tmp_path / "words", made, classifier.files(tmp_path / "files"))
    opener = Opener("fp32")
    for target in (model_folder, tmp_path / "labels", tmp_path / "words"):
        opener.serve(str(target))
    with running(opener) as served, client_of(served) as client:
        chosen = client.messages.create(model="labels", messages=HELLO, max_tokens=20)
        assert text_of(chosen) in task.labels and chosen.stop_reason == "end_turn"
        assert client.messages.count_tokens(model="labels", messages=HELLO).input_tokens == all_input(chosen) > 10
        with client.messages.stream(model="labels", messages=HELLO, max_tokens=20) as stream:
            kinds = [event.type for event in stream]
            assert text_of(stream.get_final_message()) == text_of(chosen) and kinds[-1] == "message_stop"
        sure = client.messages.create(model="words", messages=HELLO, max_tokens=20)
        assert text_of(sure) == "refund" and sure.model_extra["runner_up"] == "billing"  # type: ignore[index]
        assert sure.model_extra["confidence"] > 0.99 and all_input(sure) == 0  # type: ignore[index]
        told = list(client.messages.create(model="words", messages=HELLO, max_tokens=20, stream=True))
        assert told[-2].delta.model_extra["confidence"] == sure.model_extra["confidence"]  # type: ignore[index,union-attr]
        assert client.messages.count_tokens(model="words", messages=HELLO).input_tokens == 0
        body = {"model": "labels", "messages": HELLO, "max_tokens": 2, "stop_sequences": ["x"]}
        assert served.post("/v1/messages", body).headers["x-riyaz-ignored"] == "stop_sequences,max_tokens"
        begun = [*HELLO, {"role": "assistant", "content": "b"}]
        assert_error(served.post("/v1/messages", {**body, "messages": begun}), 400)


def test_both_headers_carry_the_key(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(f"{KEY}\n")
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, api_key_file=tmp_path / "keys.txt") as locked:
        assert client_of(locked).messages.create(**ASKED).content
        with pytest.raises(anthropic.AuthenticationError) as refused:
            client_of(locked, api_key="wrong-key-0123456789").messages.create(**ASKED)
        assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
        headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 1}
        assert locked.post("/v1/messages", body, headers=headers).status_code == 200
        assert locked.post("/v1/messages", body, headers={**headers, "x-api-key": KEY[1:]}).status_code == 401


def test_the_asynchronous_client(served: Running, client: anthropic.Anthropic) -> None:
    async def asked() -> tuple[Any, Any]:
        strict = {"_strict_response_validation": True, "max_retries": 0, "api_key": KEY}
        async with anthropic.AsyncAnthropic(base_url=served.url, **strict) as made:  # type: ignore[arg-type]
            whole = await made.messages.create(**ASKED)
            async with made.messages.stream(**ASKED) as stream:
                return whole, await stream.get_final_message()

    whole, streamed = asyncio.run(asked())
    assert text_of(whole) == text_of(streamed) == text_of(client.messages.create(**ASKED))
