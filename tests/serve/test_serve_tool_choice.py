"""Calls that a client asks for, in every form that models are taught: random weights keep to the schema of a tool, and
an answer with calls is told as OpenAI tells it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import tiny_llama
from live_server import Running, assert_error, running
from openai.types.chat import ChatCompletion, ChatCompletionMessageToolCall

from riyaz.serve import grammar
from riyaz.serve.opening import Opener
from riyaz.serve.schema import check
from riyaz.serve.text import Text
from riyaz.text.calls import FORMS, TAGGED, Calls, Form, form_of

HELLO = [{"role": "user", "content": "is it open on sunday"}]
HOURS = {
    "type": "object", "additionalProperties": False, "required": ["day", "late"],
    "properties": {
        "day": {"type": "string", "enum": ["Sunday €", 'a "b"\n']}, "late": {"type": "boolean"},
        "count": {"$ref": "#/$defs/digit"},
    },
    "$defs": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}},
}  # fmt: skip
PLACE = {
    "type": "object", "additionalProperties": False, "required": ["near"],
    "properties": {"near": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
}  # fmt: skip
SCHEMAS = {"hours": HOURS, "place": PLACE}


def tool(name: str, schema: Any, **members: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema, **members}}


TOOLS = [tool(name, schema) for name, schema in SCHEMAS.items()]
_, NAMED_FIRST, SPACED, LISTED, BARE = FORMS
# model: (what its template shows of its form, its added tokens and whether they are control tokens)
MODELS: dict[str, tuple[str, dict[str, bool]]] = {
    "text": ("<tool_call>", {}),
    "added": ("<tool_call>", {"<tool_call>": False, "</tool_call>": False}),
    "control": ("<tool_call>", {"<tool_call>": True, "</tool_call>": True}),
    "listed": ("[TOOL_CALLS][", {"[TOOL_CALLS]": True}),
    "spaced": ("[TOOL_CALLS] [", {}),
    "named": ("[TOOL_CALLS] [ARGS]", {"[TOOL_CALLS]": True, "[ARGS]": True}),
    "bare": ('{"name": , "parameters": ', {"<|python_tag|>": True}),
    "other": ("", {}),
}
IDS = """{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}{{
raise_exception('no id of 9 letters') }}{% endif %}{% endfor %}{{ m.tool_call_id or '' }}{% endfor %}"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    opener, root = Opener("fp32"), tmp_path_factory.mktemp("forms")
    whole = tiny_llama.write_hf_folder(root / "whole")
    for name, (shown, added) in MODELS.items():
        opener.serve(str(model(whole, root / name, shown, added)))
    shutil.copytree(whole, root / "none")
    opener.serve(str(root / "none"))
    with running(opener) as found:
        yield found


def model(whole: Path, folder: Path, shown: str, added: dict[str, bool]) -> Path:
    """A tiny model whose template shows tools and a form; its last ids are the added tokens."""
    shutil.copytree(whole, folder)
    tiny_llama.write_tokenizer(folder, 512 - len(added))
    definition = json.loads((folder / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for number, (text, special) in enumerate(added.items(), 512 - len(added)):
        definition["added_tokens"].append({"id": number, "content": text, "special": special, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    place = "{% if tools %}{{ '<|im_start|>tools\n' + SHOWN + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    text = place.replace("SHOWN", repr(shown)) + (IDS if "TOOL_CALLS" in shown else "") + tiny_llama.CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(text)
    return folder


def ask(served: Running, model: str, stream: bool = False, **change: Any) -> list[tuple[str, list, str]]:
    """(text, calls, reason of the end) of each answer, by OpenAI's client."""
    more_ends = {"2": 2}  # the token that ends a turn: not every answer has many calls
    asked = {"model": model, "messages": HELLO, "tools": TOOLS, "max_tokens": 400, "temperature": 1.5, "seed": 0,
             "logit_bias": more_ends, **change}  # fmt: skip
    made = served.openai.chat.completions.create(**asked, stream=stream)
    if not stream:
        assert isinstance(made, ChatCompletion)
        return [(c.message.content or "", c.message.tool_calls or [], c.finish_reason) for c in made.choices]
    answers: dict[int, Any] = {}
    for choice in (choice for chunk in made for choice in chunk.choices):
        text, calls, _ = answers.get(choice.index, ("", [], None))
        for call in choice.delta.tool_calls or []:
            assert call.index == len(calls), "calls are numbered one after the other"
            calls.append(ChatCompletionMessageToolCall.model_validate(call.model_dump(exclude={"index"})))
        answers[choice.index] = (text + (choice.delta.content or ""), calls, choice.finish_reason)
    return [answers[index] for index in sorted(answers)]


def assert_calls(calls: list, schemas: dict[str, Any]) -> None:
    assert calls and len({call.id for call in calls}) == len(calls)
    for call in calls:
        arguments = json.loads(call.function.arguments)
        schema = schemas[call.function.name]
        assert arguments.keys() <= schema["properties"].keys() and arguments.keys() >= set(schema["required"])
        assert 0 <= arguments.pop("count", 0) <= 9
        check(arguments, schema, "arguments")


@pytest.mark.parametrize("name", MODELS)
def test_a_required_call_keeps_to_its_schema_in_every_form(served: Running, name: str) -> None:
    most = 0
    for seed in range(8):
        answers = ask(served, name, stream=seed % 2 == 0, tool_choice="required", seed=seed, n=2)
        for text, calls, finish in answers:
            assert text == "" and finish == "tool_calls"
            assert_calls(calls, SCHEMAS)
            most = max(most, len(calls))
        assert len(answers) == 2
    assert most > 1, "several calls of one answer are all told"


@pytest.mark.parametrize("name", MODELS)
def test_a_named_tool_is_called_once_and_no_other(served: Running, name: str) -> None:
    choice = {"type": "function", "function": {"name": "place"}}
    for seed in range(3):
        for text, calls, finish in ask(served, name, tool_choice=choice, seed=seed, n=2, stream=seed == 2):
            assert text == "" and finish == "stop" and len(calls) == 1  # as OpenAI's own server says it
            assert_calls(calls, {"place": PLACE})
    for seed in range(6):
        ((_, calls, finish),) = ask(served, name, tool_choice="required", parallel_tool_calls=False, seed=seed)
        assert len(calls) == 1 and finish == "tool_calls"


def test_of_the_allowed_tools_alone_one_is_called(served: Running) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "hours"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    for seed in range(6):
        ((_, calls, _),) = ask(served, "text", tool_choice=choice, seed=seed)
        assert_calls(calls, {"hours": HOURS})


def test_without_a_schema_the_arguments_are_any_object(served: Running) -> None:
    tools = [{"type": "function", "function": {"name": 'say "x" é'}}]
    ends = [str(token) for token in braces(served)]
    found = ask(served, "text", tools=tools, tool_choice="required", temperature=0, logit_bias=dict.fromkeys(ends, 50))
    ((_, calls, _),) = found
    assert calls[0].function.name == 'say "x" é' and isinstance(json.loads(calls[0].function.arguments), dict)


def braces(served: Running) -> list[int]:
    tokenizer = served.state.shelf.find("text").open.tokenizer
    return [token for token in tokenizer.text_ids() if tokenizer.token_text(token) == "}"] + [tokenizer.end_of_turn]


@pytest.mark.parametrize("name", ["text", "control", "listed", "bare"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_a_limit_or_a_stop_string_cuts_is_text(served: Running, name: str, stream: bool) -> None:
    ((text, calls, finish),) = ask(served, name, stream, tool_choice="required", max_tokens=20, temperature=0)
    assert not calls and finish == "length" and '{"n' in text
    ((cut, calls, finish),) = ask(served, name, stream, tool_choice="required", stop=['"name"'], temperature=0)
    assert not calls and finish == "stop" and text.startswith(cut) and cut.endswith("{")


def test_log_probabilities_are_those_of_the_whole_call(served: Running) -> None:
    asked: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False, "logprobs": True}
    for name in ("text", "control"):
        made = served.post("/v1/chat/completions", {"model": name, "messages": HELLO, "tools": TOOLS, **asked}).json()
        tokens = [each["token"] for each in made["choices"][0]["logprobs"]["content"]]
        joined = "".join(tokens)
        assert joined.startswith("<tool_call>\n{") and joined.endswith("}\n</tool_call>")
        assert made["usage"]["completion_tokens"] >= len(tokens)


@pytest.mark.parametrize("name", ["added", "control", "listed", "named"])
def test_strict_tools_hold_calls_to_their_schema_once_they_begin(served: Running, name: str) -> None:
    mark = served.state.shelf.find(name).open.tokenizer.added["<tool_call>" if name[0] in "ac" else "[TOOL_CALLS]"]
    tools = [tool(each, schema, strict=True) for each, schema in SCHEMAS.items()]
    body = {"model": name, "messages": HELLO, "tools": tools, "logit_bias": {str(mark): 100}, "temperature": 1.5}
    for seed in range(3):
        single = seed < 2
        asked = {**body, "seed": seed, "max_tokens": 300, "parallel_tool_calls": not single}
        response = served.post("/v1/chat/completions", asked)
        message = response.json()["choices"][0]["message"]
        calls = ChatCompletion.model_validate(response.json()).choices[0].message.tool_calls or []
        assert_calls(calls, SCHEMAS)
        assert "x-riyaz-ignored" not in response.headers
        if single:
            assert len(calls) == 1 and response.json()["choices"][0]["finish_reason"] == "tool_calls"
            assert message["content"] is None and response.json()["usage"]["completion_tokens"] < 300
    begun = {**body, "logit_bias": {}, "max_tokens": 20, "seed": 1}
    plain = served.post("/v1/chat/completions", {**begun, "tools": TOOLS}).json()
    held = served.post("/v1/chat/completions", begun).json()
    assert plain["choices"] == held["choices"], "text without calls is free"


def test_where_strict_is_not_kept_the_header_says_so(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = [tool("hours", HOURS, strict=True)]
    body: dict[str, Any] = {"messages": HELLO, "tools": strict, "max_tokens": 1}
    for name in ("text", "bare", "other"):
        response = served.post("/v1/chat/completions", {**body, "model": name})
        assert response.headers["x-riyaz-ignored"] == "tools.function.strict"
    required = served.post("/v1/chat/completions", {**body, "model": "text", "tool_choice": "required"})
    assert "x-riyaz-ignored" not in required.headers
    monkeypatch.setattr(grammar, "find_spec", lambda name: None)
    response = served.post("/v1/chat/completions", {**body, "model": "control"})
    assert response.status_code == 200 and response.headers["x-riyaz-ignored"] == "tools.function.strict"
    for choice in ("required", {"type": "function", "function": {"name": "hours"}}):
        with pytest.raises(openai.BadRequestError, match=r"tool_choice: the server needs llguidance"):
            ask(served, "control", tools=strict, tool_choice=choice)


NAME = {"name": "hours"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_choice": "any"}, "tool_choice"), ({"tool_choice": {"type": "custom"}}, "tool_choice.type"),
        ({"tool_choice": {}}, "tool_choice.type"), ({"tool_choice": 3}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": {"type": "function", "function": {"name": "rm"}}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "function": NAME}}, "tool_choice.allowed_tools"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}},
         "tool_choice.allowed_tools.tools"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "all", "tools": [{"function": NAME}]}}},
         "tool_choice.allowed_tools.mode"),
        ({"tools": None}, "tool_choice"), ({"tools": []}, "tool_choice"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools.1.function.name"),
        ({"tools": [TOOLS[0], {"type": "custom", "custom": NAME}]}, "tools.1.function"),
        ({"model": "none"}, "tools"), ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"tools": [tool("a", {"type": "string"})]}, "tools.0.function.parameters"),
        ({"tools": [tool("a", {"properties": {"b": {"type": "wheel"}}})]}, "tools"),
        ({"tools": [tool("a", {"properties": {"b": {"type": "\u202e\x00"}}})]}, "tools"),
        ({"tools": [tool("a", {"properties": {"b": {"$ref": "#/nowhere"}}})]}, "tools"),
        ({"tools": [tool("a", {"properties": {"b": {"pattern": "(["}}})]}, "tools"),
        ({"tools": [tool("a", {"properties": {"b": False}, "required": ["b"]})]}, "tools"),
        ({"tools": [tool("a", {"properties": {"b": {"enum": ["a" * 100] * 700}}})]}, "tools"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_followed_is_one_line(served: Running, change: dict, param: str) -> None:
    body = {"model": "text", "messages": HELLO, "tools": TOOLS, "tool_choice": "required", "max_tokens": 4, **change}
    assert assert_error(served.post("/v1/chat/completions", body), 400)["param"] == param
    assert served.idle()


class Said(Text):
    """An answer of two calls, which a tiny model cannot write: some characters for each token."""

    said = '<tool_call>{"name":"place"}</tool_call> <tool_call>{"name":"hours","arguments":{"day":1}}</tool_call> Done.'

    def push(self, token: int) -> str:
        self._ids.append(token)
        self.stopped = 3 * len(self._ids) >= len(self.said)
        return self.said[3 * len(self._ids) - 3 : 3 * len(self._ids)]

    def finish(self, cut: bool) -> str:
        return ""


@pytest.mark.parametrize("stream", [False, True])
def test_without_parallel_calls_the_first_one_ends_the_answer(
    served: Running, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("riyaz.serve.asking.Text", Said)
    never: dict[str, Any] = {"logit_bias": {"2": -100}}
    ((text, calls, finish),) = ask(served, "text", stream, **never)
    assert [call.function.name for call in calls] == ["place", "hours"]
    assert text == " Done." and finish == "tool_calls"
    before = served.state.metrics.generation_tokens
    ((text, calls, finish),) = ask(served, "text", stream, parallel_tool_calls=False, **never)
    assert [call.function.name for call in calls] == ["place"] and text == "" and finish == "tool_calls"
    assert served.state.metrics.generation_tokens - before < len(Said.said) / 3 / 2, "no more is written"
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "hours"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    ((text, calls, _),) = ask(served, "text", stream, tool_choice=choice, **never)
    assert [call.function.name for call in calls] == ["hours"] and '"name":"place"' in text


def test_a_call_of_mistrals_form_goes_back_with_its_id(served: Running) -> None:
    ((_, calls, _),) = ask(served, "listed", tool_choice="required", parallel_tool_calls=False)
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [calls[0].model_dump()]},
             {"role": "tool", "tool_call_id": calls[0].id, "content": "9 to 5"}]  # fmt: skip
    made = served.post("/tokenize", {"model": "listed", "messages": turns}).json()["tokens"]
    assert calls[0].id in served.state.shelf.find("listed").open.tokenizer.decode(made)
    turns[1]["tool_calls"][0]["id"] = "call_1"
    body = {"model": "listed", "messages": turns, "max_tokens": 1}
    assert "9 letters" in assert_error(served.post("/v1/chat/completions", body), 400)["message"]


TEXTS: list[tuple[Form, str, str, list[str]]] = [
    (TAGGED, '<tool_call>{"name": "a", "arguments": {"x": "</tool_call>"}}</tool_call>', "", ["a"]),
    (TAGGED, '<tool_call>{"name": a"}</tool_call>, <tool_call>{"name": "b"}</tool_call>',
     '<tool_call>{"name": a"}</tool_call>,', ["b"]),
    (TAGGED, 'I <b> look.\n<tool_call>\n[{"name": "a", "arguments": {"x": "}"}}, {"name": "b"}]\n</tool_call>\nSo.',
     "I <b> look.\nSo.", ["a", "b"]),
    (LISTED, 'Well. [TOOL_CALLS] [{"name": "a", "arguments": {"x": "]"}}, {"name": "b", "arguments": {}, "id": "1"}]',
     "Well.", ["a", "b"]),
    (NAMED_FIRST, '[TOOL_CALLS]a[ARGS]{"x": "[TOOL_CALLS]"}[TOOL_CALLS]b[CALL_ID]abc123456[ARGS]{}', "", ["a", "b"]),
    (BARE, '\n{"name": "a", "parameters": {"x": "}"}}; {"name": "b", "parameters": {}}', "", ["a", "b"]),
    (BARE, 'So: <|python_tag|>{"name": "a", "parameters": {}}', "So:", ["a"]),
    (BARE, 'So: {"name": "a", "parameters": {}}', None, []),  # type: ignore[list-item]
    (BARE, '{"answer": 5} and {"name": "a", "parameters": {}}', None, []),  # type: ignore[list-item]
    (TAGGED, '{"name": "a", "arguments": {}}', None, []),  # type: ignore[list-item]
    (TAGGED, 'a{"x": 1} <tool_call>a{"x": 1}</tool_call>', None, []),  # type: ignore[list-item]
    (LISTED, '[TOOL_CALLS][{"name": "a", "arguments": {}}, {"name": "b", "argu', None, []),  # type: ignore[list-item]
    (LISTED, '[TOOL_CALLS][{"name": "a"}, {"name": "rm"}]', None, []),  # type: ignore[list-item]
    (NAMED_FIRST, "[TOOL_CALLS]a[ARGS]" + '{"x":' * 9000, None, []),  # type: ignore[list-item]
    (TAGGED, '<tool_call>{"name": "a", "arguments": {"x": NaN}}</tool_call>', None, []),  # type: ignore[list-item]
    (TAGGED, "<tool_call>[]</tool_call>", None, []),  # type: ignore[list-item]
]  # fmt: skip


@pytest.mark.parametrize(("form", "whole", "said", "names"), TEXTS)
def test_the_calls_of_a_form_are_told_apart_in_any_pieces(
    form: Form, whole: str, said: str | None, names: list[str]
) -> None:
    generator = np.random.default_rng(0)
    for turn in range(60):
        cuts = sorted(generator.integers(0, len(whole) + 1, 0 if turn == 0 else 8))
        calls, text, made = Calls({"a", "b"}, form), "", []
        for start, end in zip([0, *cuts], [*cuts, len(whole)]):
            told, found = calls.push(whole[start:end])
            text, made = text + told, made + found
        told, found = calls.push("", last=True)
        assert text + told == (whole if said is None else said)
        assert [call["function"]["name"] for call in made + found] == names and calls.count == len(names)
        texts = [json.loads(call["function"]["arguments"]).get("x", "}") for call in made + found]
        assert set(texts) <= {"}", "]", "[TOOL_CALLS]", "</tool_call>"}
    single = Calls({"a", "b"}, form, single=True)
    assert len(single.push(whole, last=True)[1]) == min(1, len(names)) and single.over == bool(names)


def test_a_template_says_which_form_its_model_writes() -> None:
    found = {name: form_of(shown) for name, (shown, _) in MODELS.items()}
    assert found == {
        "text": TAGGED, "added": TAGGED, "control": TAGGED, "listed": LISTED, "spaced": SPACED, "named": NAMED_FIRST,
        "bare": BARE, "other": None,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "mark"), [("text", "</tool_call>"), ("control", "<tool_call>"), ("bare", "}; {")])
def test_a_mark_within_an_argument_is_part_of_it(served: Running, name: str, mark: str) -> None:
    schema = {"type": "object", "properties": {"x": {"enum": [mark]}}, "required": ["x"], "additionalProperties": False}
    ((text, calls, _),) = ask(served, name, tools=[tool("a", schema)], tool_choice="required", max_tokens=700)
    assert text == "" and {call.function.arguments for call in calls} == {json.dumps({"x": mark})}
