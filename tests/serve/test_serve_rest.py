"""Embeddings, responses, answers in JSON, and the OpenAPI document."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import tiny_bert
from live_server import Running, assert_error, running

from riyaz.engine.opening import open_embedder
from riyaz.serve import app, grammar
from riyaz.serve.fields import CHAT, TABLES
from riyaz.serve.opening import Opener
from riyaz.serve.problems import Problem
from riyaz.serve.schema import check

HELLO = [{"role": "user", "content": "where is my order"}]
CARD = {
    "type": "object", "additionalProperties": False, "required": ["label", "sure"],
    "properties": {"label": {"enum": ["billing", "refund"]}, "sure": {"type": "boolean"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_bert.write_folder(tmp_path_factory.mktemp("bert") / "bert"))


@pytest.fixture(scope="module")
def served(model_folder: Path, embedder: str) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, embedder=embedder) as found:
        yield found


def test_vectors_are_the_librarys(served: Running, embedder: str) -> None:
    texts = ["where is my order", "the card", "the card"]
    lenient = openai.OpenAI(base_url=f"{served.url}/v1", api_key="x")  # the strict one refuses the base64 it asks for
    made = lenient.embeddings.create(model=embedder, input=texts)
    wanted = open_embedder(embedder).embed(texts)
    assert np.abs(wanted - [each.embedding for each in made.data]).max() < 1e-6
    assert [each.index for each in made.data] == [0, 1, 2] and made.usage.prompt_tokens > 3
    plain = served.openai.embeddings.create(model=embedder, input="the card", encoding_format="float")
    assert np.abs(np.array(plain.data[0].embedding) - wanted[1]).max() < 1e-6
    pieces = served.state.embedder()
    rows = [pieces.ids(text) for text in texts]
    for given in (rows, [[*pieces._pieces.frame[:1], *row, *pieces._pieces.frame[1:]] for row in rows]):
        tokens = lenient.embeddings.create(model=embedder, input=given)
        assert np.abs(wanted - [each.embedding for each in tokens.data]).max() < 1e-6
        assert tokens.usage == made.usage
    assert lenient.embeddings.create(model=embedder, input=rows[0]).data[0].embedding == made.data[0].embedding
    body = {"model": embedder, "input": "the card", "encoding_format": "base64"}
    coded = served.post("/v1/embeddings", body).json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(coded), "<f4").tolist() == wanted[1].tolist()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": [100_000]}, "input.0"), ({"input": [[1], [2**31 - 1]]}, "input.1"), ({"input": ""}, "input.0"),
        ({"input": [[]]}, "input.0"), ({"input": [5] * 600}, "input.0"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input.1"), ({"dimensions": 7}, "dimensions"), ({"input": "card " * 600}, "input.0"),
        ({"model": "tiny"}, "model"), ({"input": ["a"] * 257}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)  # fmt: skip
def test_what_has_no_vector_is_refused(served: Running, embedder: str, change: dict, param: str) -> None:
    body = {"model": embedder, "input": "a", **change}
    assert assert_error(served.post("/v1/embeddings", body), 400)["param"] == param
    assert_error(served.post("/v1/embeddings", {"model": "other", "input": "a"}), 404)


def test_an_embedder_that_is_not_there_is_one_line(model_folder: Path) -> None:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, embedder="absent") as served:
        assert_error(served.post("/v1/embeddings", {"model": "absent", "input": "a"}), 400)


def test_a_response_is_the_chats_answer(served: Running) -> None:
    chat = served.openai.chat.completions.create(model="tiny", messages=HELLO, max_tokens=6, temperature=0)
    made = served.openai.responses.create(model="tiny", input="where is my order", max_output_tokens=6, temperature=0)
    assert made.output_text == chat.choices[0].message.content and made.status == "incomplete"
    assert made.incomplete_details is not None and made.incomplete_details.reason == "max_output_tokens"
    assert made.usage is not None and chat.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens) == (chat.usage.prompt_tokens, 6)
    turns = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "where is my order"}]}]
    told = served.openai.responses.create(model="tiny", input=turns, instructions="Be brief.", max_output_tokens=6)  # type: ignore[arg-type]
    system = [{"role": "system", "content": "Be brief."}, *HELLO]
    briefly = served.openai.chat.completions.create(model="tiny", messages=system, max_tokens=6)  # type: ignore[arg-type]
    assert told.output_text == briefly.choices[0].message.content and told.instructions == "Be brief."


def test_a_responses_stream_has_its_events_in_order(served: Running) -> None:
    asked: dict[str, Any] = {"model": "tiny", "input": "where is my order", "max_output_tokens": 6, "temperature": 0}
    whole = served.openai.responses.create(**asked)
    events = list(served.openai.responses.create(**asked, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete",
    ]  # fmt: skip
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == whole.output_text


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"), ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"), ({"input": [{"type": "function_call_output"}]}, "input.0"),
        ({"input": [{"role": "user", "content": [3]}]}, "input.0.content"),
        ({"input": [{"role": "user"}]}, "input.0.content"),
        ({"input": ""}, "input"), ({"text": {"format": {"type": "xml"}}}, "text.format"), ({"input": 3}, "input"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"max_output_tokens": 0}, "max_output_tokens"), ({"reasoning": {"effort": "high"}}, "reasoning"),
    ],
)  # fmt: skip
def test_what_no_stateless_client_needs_is_refused(served: Running, change: dict, param: str) -> None:
    found = assert_error(served.post("/v1/responses", {"model": "tiny", "input": "a", **change}), 400)
    assert found["param"].startswith(param)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_keeps_to_its_schema(served: Running, stream: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "card", "schema": CARD, "strict": True}}
    for seed in range(4):
        body = {"model": "tiny", "messages": HELLO, "response_format": form, "temperature": 1.5, "seed": seed,
                "max_tokens": 200, "stream": stream}  # fmt: skip
        made = served.openai.chat.completions.create(**body)  # type: ignore[call-overload]
        choices = [chunk.choices[0] for chunk in made] if stream else made.choices
        text = "".join(c.delta.content or "" for c in choices) if stream else choices[0].message.content
        if choices[-1].finish_reason == "stop":
            found = json.loads(text)
            assert found.keys() == {"label", "sure"} and found["label"] in ("billing", "refund")
        else:
            assert text.lstrip().startswith("{"), "a random model writes white space without end"
    compact = {**body, "stream": False, "temperature": 0, "logit_bias": dict.fromkeys(white_space(served), -100)}
    found = json.loads(served.post("/v1/chat/completions", compact).json()["choices"][0]["message"]["content"])
    assert isinstance(found["sure"], bool)
    text_format = {"format": {"type": "json_schema", "name": "card", "schema": CARD}}
    response = served.post(
        "/v1/responses", {"model": "tiny", "input": "a", "text": text_format, "max_output_tokens": 5}
    )
    assert response.json()["output"][0]["content"][0]["text"].lstrip().startswith("{")


def white_space(served: Running) -> list[str]:
    tokenizer = served.state.opener.bases[0].tokenizer
    return [str(token) for token in tokenizer.text_ids() if not tokenizer.token_text(token).strip()]


def test_any_object_is_asked_for_without_a_schema(served: Running) -> None:
    body = {"model": "tiny", "messages": HELLO, "response_format": {"type": "json_object"}, "max_tokens": 5}
    assert served.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"].lstrip()[0] == "{"


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "form",
    [
        {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "x"}}, {"type": None},
        [],
        {"type": "json_schema", "json_schema": {"name": "x", "schema": []}}, {}, "json",
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wheel"}}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "(["}}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": deep(40)}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer", "multipleOf": 999999937}}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["a" * 100] * 700}}},
    ],
)  # fmt: skip
def test_a_format_that_cannot_be_kept_is_refused(served: Running, form: Any) -> None:
    body = {"model": "tiny", "messages": HELLO, "response_format": form, "max_tokens": 3}
    assert assert_error(served.post("/v1/chat/completions", body), 400)["param"].startswith("response_format")


def test_without_llguidance_a_format_is_refused(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "find_spec", lambda name: None)
    body = {"model": "tiny", "messages": HELLO, "response_format": {"type": "json_object"}}
    with pytest.raises(openai.BadRequestError, match="llguidance"):
        served.openai.chat.completions.create(**body)  # type: ignore[call-overload]
    body["response_format"] = {"type": "text"}
    assert served.post("/v1/chat/completions", {**body, "max_tokens": 1}).status_code == 200


def test_the_document_names_every_route_and_field(served: Running) -> None:
    document = served.http.get("/openapi.json").json()
    routes = {(route.path.replace(":path", ""), method) for route in app.ROUTES for method in route.methods or ()}
    told = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert told == {(path, method) for path, method in routes if method != "HEAD"}
    body = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"].keys() == CHAT.keys() and set(body["required"]) == {"model", "messages"}
    assert {path for path, _ in told} >= TABLES.keys()
    answer = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]["application/json"]
    message = answer["schema"]["properties"]["choices"]["items"]["properties"]["message"]
    assert message == {"$ref": "#/components/schemas/Message"}
    assert document["components"]["schemas"]["Message"]["properties"].keys() == {"citations", "confidence", "runner_up"}


def test_the_document_says_which_fields_may_be_null(served: Running) -> None:
    paths = served.http.get("/openapi.json").json()["paths"]
    for path, table in TABLES.items():
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for name, schema in body["properties"].items():
            if table[name].required:
                with pytest.raises(Problem):
                    check(None, schema, name)
            else:
                check(None, schema, name)
    assert served.post("/detokenize", {"model": None, "tokens": [7]}).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content"),
        ({"input": [{"role": "system", "content": "x"}]}, "input"), ({"max_output_tokens": 51}, "max_output_tokens"),
        ({"instructions": "x" * 1_100_000}, "instructions"), ({"text": {"x": deep(40)}}, "text"),
        ({"text": {"format": {"type": "json_schema", "schema": {"$ref": "#/nowhere"}}}}, "text.format"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("instructions", ["Be brief.", None])
def test_what_a_chat_refuses_is_named_by_the_fields_of_responses(
    served: Running, change: dict, param: str, instructions: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.state, "config", replace(served.state.config, max_tokens=50))
    body = {"model": "tiny", "input": "a", "instructions": instructions, "max_output_tokens": 1, **change}
    found = assert_error(served.post("/v1/responses", body), 400)
    assert found["param"] == param and found["message"].startswith(f"{param}: ")


def test_items_and_formats_say_what_was_left_out_and_come_back_as_they_are(served: Running) -> None:
    item = {"role": "user", "id": "msg_1", "weight": 1, "content": [{"type": "input_text", "text": "a", "cache": 1}]}
    body = {"model": "tiny", "input": [item], "text": {"format": {"type": "text"}, "x": 1}, "max_output_tokens": 2}
    response = served.post("/v1/responses", body)
    assert response.headers["x-riyaz-ignored"] == "text.x,input.weight,input.content.cache"
    assert response.json()["output"][0]["status"] == response.json()["status"] == "incomplete"


@pytest.mark.parametrize("stream", ["true", "false"])
def test_what_json_can_say_and_an_answer_cannot_is_replaced_or_refused(served: Running, stream: str) -> None:
    body = '{"model": "tiny", "input": "a", "max_output_tokens": 1, "stream": %s, %s}'
    headers = {"content-type": "application/json"}
    half = body % (stream, '"instructions": "\\ud83d\\ude00 \\uD83D"')
    answer = served.http.post("/v1/responses", content=half, headers=headers)
    assert answer.status_code == 200
    if stream == "false":
        assert answer.json()["instructions"] == "\U0001f600 \ufffd"
    endless = body % (stream, '"text": {"x": 1e999}')
    assert assert_error(served.http.post("/v1/responses", content=endless, headers=headers), 400)["param"] == "text"
