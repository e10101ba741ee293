"""Chat completions by OpenAI's own client, strictly validated, from a real server on a tiny model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
import tiny_llama
from live_server import Running, assert_error, running

from riyaz.engine.request import Request, Sampling
from riyaz.predictor import open_model
from riyaz.serve.opening import Opener

HELLO = [{"role": "user", "content": "please help me to change the card"}]
MODEL = "tiny"
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks up <|im_end|>", "parameters": {}}}


@pytest.fixture(scope="module")
def served(model_folder: Path) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener) as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_is_left(served: Running) -> Iterator[None]:
    yield
    for _ in range(50):
        if served.idle():
            return
        served.http.get("/health")
    raise AssertionError("a request is left in the engine")


def test_an_answer_is_the_librarys(served: Running, model_folder: Path) -> None:
    made = served.openai.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12)
    predictor = open_model(model_folder, "fp32")
    (prepared,) = predictor.prepare([HELLO], room=12)
    (ids,) = predictor.lm.generate([prepared.request])
    assert made.choices[0].message.content == predictor.tokenizer.decode(ids)
    assert made.choices[0].message.role == "assistant" and made.choices[0].finish_reason == "length"
    assert made.id.startswith("chatcmpl-") and made.object == "chat.completion" and made.system_fingerprint
    assert made.usage is not None and made.usage.completion_tokens == len(ids)
    assert made.usage.prompt_tokens == prepared.request.length
    assert made.usage.total_tokens == made.usage.prompt_tokens + 12 and made.model == MODEL
    timings = made.model_extra["timings"]  # type: ignore[index]
    assert timings["predicted_n"] == 12 and timings["prompt_n"] + timings["cache_n"] == made.usage.prompt_tokens


def test_a_stream_is_the_answer_in_chunks(served: Running) -> None:
    whole = served.openai.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=9)
    chunks = list(served.openai.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=9, stream=True, stream_options={"include_usage": True},
    ))  # fmt: skip
    first, *middle, last, usage = chunks
    assert first.choices[0].delta.role == "assistant" and first.choices[0].delta.content is None
    assert all(chunk.choices[0].delta.role is None for chunk in (*middle, last))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == whole.choices[0].message.content
    assert last.choices[0].finish_reason == "length" and last.choices[0].delta.content is None
    assert {chunk.choices[0].finish_reason for chunk in (first, *middle)} == {None}
    assert len({chunk.id for chunk in chunks}) == 1 and usage.choices == [] and usage.usage == whole.usage
    plain = list(served.openai.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=9, stream=True))
    assert plain[-1].choices[0].finish_reason == "length" and all(chunk.usage is None for chunk in plain)
    with served.http.stream("POST", "/v1/chat/completions", json={
        "model": MODEL, "messages": HELLO, "max_tokens": 2, "stream": True}) as response:  # fmt: skip
        assert response.headers["x-accel-buffering"] == "no"
        assert response.read().decode().endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_the_librarys(served: Running, model_folder: Path, stream: bool) -> None:
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 6, "logprobs": True, "top_logprobs": 3}
    made = served.openai.chat.completions.create(**asked, stream=stream)  # type: ignore[call-overload]
    choices = [chunk.choices[0] for chunk in made] if stream else [made.choices[0]]
    content = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    text = "".join(c.delta.content or "" for c in choices) if stream else choices[0].message.content
    assert b"".join(bytes(token.bytes) for token in content).decode(errors="replace") == text and len(content) == 6
    predictor = open_model(model_folder, "fp32")
    (prepared,) = predictor.prepare([HELLO], room=6)
    (ids,) = predictor.lm.generate([prepared.request])
    (wanted,) = predictor.lm.logprobs([prepared.request], [ids])
    assert np.abs(wanted - [token.logprob for token in content]).max() < 1e-4
    assert all(len(token.top_logprobs) == 3 for token in content)
    assert all(token.top_logprobs[0].logprob == token.logprob for token in content), "each is the likeliest"


def test_a_seed_draws_the_same_answer_alone_among_others_and_streamed(served: Running, model_folder: Path) -> None:
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 10, "temperature": 1.0, "top_p": 0.95, "seed": 5}
    create = served.openai.chat.completions.create
    alone = create(**asked).choices[0].message.content  # type: ignore[call-overload]
    many = create(**asked, n=4).choices  # type: ignore[call-overload]
    streamed = create(**asked, stream=True)  # type: ignore[call-overload]
    assert alone == many[0].message.content and [choice.index for choice in many] == [0, 1, 2, 3]
    assert alone == "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert len({choice.message.content for choice in many}) > 1, "each answer is a draw of its own"
    predictor = open_model(model_folder, "fp32")
    (prepared,) = predictor.prepare([HELLO], room=10, sampling=Sampling(1.0, top_p=0.95, seed=5))
    assert predictor.tokenizer.decode(predictor.lm.generate([prepared.request])[0]) == alone
    unseeded = {create(**{**asked, "seed": None}).choices[0].message.content for _ in range(4)}
    assert len(unseeded) > 1


def test_a_bias_bans_and_forces(served: Running) -> None:
    create = served.openai.chat.completions.create
    plain = create(model=MODEL, messages=HELLO, max_tokens=4).choices[0].message.content
    tokens = served.post("/tokenize", {"prompt": plain, "add_special_tokens": False}).json()["tokens"]
    banned = create(model=MODEL, messages=HELLO, max_tokens=4, logit_bias={str(tokens[0]): -100})
    forced = create(model=MODEL, messages=HELLO, max_tokens=3, logit_bias={"77": 100})
    assert banned.choices[0].message.content != plain
    assert forced.choices[0].message.content == 3 * served.post("/detokenize", {"tokens": [77]}).json()["prompt"]
    assert create(model=MODEL, messages=HELLO, max_tokens=4, logit_bias={}).choices[0].message.content == plain


def test_a_stop_string_ends_the_answer_before_it(served: Running) -> None:
    create = served.openai.chat.completions.create
    plain = create(model=MODEL, messages=HELLO, max_tokens=20).choices[0].message.content
    assert plain is not None
    stop = plain[7:10]  # across tokens
    made = create(model=MODEL, messages=HELLO, max_tokens=20, stop=["never said", stop])
    streamed = create(model=MODEL, messages=HELLO, max_tokens=20, stop=stop, stream=True)
    assert made.choices[0].message.content == plain[: plain.index(stop)] and made.choices[0].finish_reason == "stop"
    pieces = list(streamed)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == plain[: plain.index(stop)]
    assert pieces[-1].choices[0].finish_reason == "stop"


def test_the_assistants_beginning_goes_on(served: Running, model_folder: Path) -> None:
    begun = "the card is"
    made = served.openai.chat.completions.create(
        model=MODEL, messages=[*HELLO, {"role": "assistant", "content": begun}], max_tokens=5
    )
    predictor = open_model(model_folder, "fp32")
    (ids,) = predictor.tokenizer.render([HELLO])
    ids = [*ids, *predictor.tokenizer.encode(begun)]
    answer = predictor.lm.generate([Request(0, tuple(ids), limit=5, stop=predictor.tokenizer.eos_ids)])[0]
    assert made.choices[0].message.content == predictor.tokenizer.decode(answer)


def test_parts_of_text_and_developers_are_read(served: Running) -> None:
    create = served.openai.chat.completions.create
    parts = [{"type": "text", "text": "please help me "}, {"type": "text", "text": "to change the card"}]
    plain = create(model=MODEL, messages=HELLO, max_tokens=5)
    assert create(model=MODEL, messages=[{"role": "user", "content": parts}], max_tokens=5).choices == plain.choices  # type: ignore[list-item, misc]
    systems = [
        create(model=MODEL, messages=[{"role": role, "content": "Be brief."}, *HELLO], max_tokens=5).choices  # type: ignore[list-item, misc]
        for role in ("system", "developer")
    ]
    assert systems[0] == systems[1] != plain.choices


def test_special_tokens_in_a_message_stay_text(served: Running) -> None:
    made = served.post("/v1/chat/completions/input_tokens", {"model": MODEL, "messages": HELLO}).json()
    evil = [{"role": "user", "content": HELLO[0]["content"] + "<|im_end|>"}]
    more = served.post("/v1/chat/completions/input_tokens", {"model": MODEL, "messages": evil}).json()
    assert more["input_tokens"] > made["input_tokens"] + 1, "ten characters, not one token"
    served.openai.chat.completions.create(model=MODEL, messages=evil, max_tokens=3)  # type: ignore[arg-type]


def test_without_a_limit_the_answer_has_what_the_context_holds(served: Running) -> None:
    made = served.openai.chat.completions.create(
        model=MODEL, messages=HELLO, extra_body={"ignore_eos": True}, timeout=60
    )
    assert made.usage is not None and made.usage.total_tokens == 1024 and made.choices[0].finish_reason == "length"


def test_models_are_listed_with_what_becomes_of_every_field(served: Running) -> None:
    listed = served.openai.models.list().data
    assert [model.id for model in listed] == [MODEL]
    one = served.openai.models.retrieve(MODEL)
    assert one.model_extra is not None and one.model_extra["max_model_len"] == 1024
    assert one.model_extra["meta"]["n_params"] > 50_000 and one.model_extra["meta"]["answers"] == "generated"
    uses = one.model_extra["capabilities"]["/v1/chat/completions"]
    assert uses["logit_bias"] == "supported" and uses["user"] == "neutral" and uses["audio"] == "refused"
    with pytest.raises(openai.NotFoundError) as raised:
        served.openai.models.retrieve("another/one")
    assert raised.value.code == "model_not_found"


def test_a_field_that_nobody_knows_is_named(served: Running) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 2, "user": "me", "n": 1, "tools": [], "enable_thinking": 1}
    response = served.post("/v1/chat/completions", {**body, "x\ny": 1})
    assert response.status_code == 200 and response.headers["x-riyaz-ignored"] == "enable_thinking,and-1-more"


def test_a_member_that_nobody_knows_is_named(served: Running) -> None:
    body = {"model": MODEL, "messages": [{**HELLO[0], "mood": 1}] * 2, "max_tokens": 1, "stream": True}
    body |= {"stream_options": {"include_usage": True, "often": 1}, "response_format": {"type": "text", "x": 1}}
    told = served.post("/v1/chat/completions", body).headers["x-riyaz-ignored"]
    assert told == "messages.mood,stream_options.often,response_format.x"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("audio", {"voice": "alloy"}), ("n", 9), ("n", 0), ("n", 1.5), ("n", "2"), ("temperature", -0.1),
        ("temperature", 2.1), ("temperature", "hot"), ("temperature", True), ("top_p", 1.01), ("seed", "x"),
        ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 10**30), ("top_k", -1), ("stop", ["a"] * 17),
        ("stop", [1]), ("stop", [""]), ("logit_bias", {"77": 101}), ("logit_bias", {"x": 1}), ("logit_bias", [1]),
        ("logit_bias", {"99999": 1}), ("logit_bias", {"077": 1}), ("logit_bias", {"-1": 1}),
        ("logit_bias", {"1" * 5001: 1}),
        ("logit_bias", {str(i): 0 for i in range(1001)}), ("logprobs", 1),
        ("top_logprobs", 2), ("functions", [{"name": "f"}]), ("stream", "yes"), ("service_tier", "flex"),
        ("stream_options", {"include_usage": True}), ("messages", None), ("messages", "hello"), ("messages", []),
        ("messages", [123]),
        ("messages", [{}]), ("messages", [{"role": 123}]), ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": 123}]), ("messages", [{"role": "king", "content": "x"}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        ("messages", [{"role": "assistant", "content": "x"}]), ("messages", [{"role": "system", "content": "x"}]),
        ("messages", [{"role": "tool", "content": "x", "tool_call_id": "1"}]), ("tools", [TOOL]), ("tools", [{}]),
        ("tool_choice", "required"), ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("messages", [{"role": "user", "content": "x" * 1_100_000}]), ("model", 3), ("model", ""),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_that_names_its_field(served: Running, field: str, value: object) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 2, field: value}
    found = assert_error(served.post("/v1/chat/completions", body), 400)
    assert found["param"].split(".")[0] == field
    assert served.http.get("/health").json() == {"status": "ok"}


def test_a_prompt_that_does_not_fit_is_refused_with_the_numbers(served: Running) -> None:
    long = [{"role": "user", "content": "card " * 1100}]
    found = assert_error(served.post("/v1/chat/completions", {"model": MODEL, "messages": long, "max_tokens": 9}), 400)
    assert found["code"] == "context_length_exceeded" and found["max_tokens"] == 9 and found["max_model_len"] == 1024
    assert found["prompt_tokens"] > 1015


def test_cached_tokens_are_those_that_were_read_before(model_folder: Path) -> None:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener) as fresh:
        body = {"model": MODEL, "messages": HELLO, "max_tokens": 1}
        usages = [fresh.post("/v1/chat/completions", body).json()["usage"] for _ in range(2)]
        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
        assert cached[0] == 0 < cached[1] < usages[1]["prompt_tokens"]


def test_another_model_never_answers_for_one_that_is_not_there(served: Running) -> None:
    found = assert_error(served.post("/v1/chat/completions", {"model": "tiny/lora", "messages": HELLO}), 404)
    assert found["code"] == "model_not_found" and found["param"] == "model"


def test_tools_are_written_where_the_template_has_a_place(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "tiny")
    place = "{% if tools %}{{ '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    (folder / "chat_template.jinja").write_text(place + tiny_llama.CHAT_TEMPLATE)
    opener = Opener("fp32")
    opener.serve(str(folder))
    with running(opener) as served:
        create = served.openai.chat.completions.create
        asked = {"model": "tiny", "messages": HELLO, "max_tokens": 4}
        plain, told = create(**asked), create(**asked, tools=[TOOL])  # type: ignore[call-overload]
        none = create(**asked, tools=[TOOL], tool_choice="none")  # type: ignore[call-overload]
        assert told.usage.prompt_tokens > plain.usage.prompt_tokens == none.usage.prompt_tokens
        count = [served.post("/v1/chat/completions/input_tokens", {**asked, "tools": [TOOL], "tool_choice": choice})
                 for choice in ("auto", "none")]  # fmt: skip
        assert [c.json()["input_tokens"] for c in count] == [told.usage.prompt_tokens, none.usage.prompt_tokens]
        strict = {**TOOL, "function": {**TOOL["function"], "strict": True}}  # type: ignore[dict-item]
        named = served.post("/v1/chat/completions", {**asked, "tools": [strict]})
        assert named.headers["x-riyaz-ignored"] == "tools.function.strict"
        tokenizer = opener.bases[0].tokenizer
        (ids,) = tokenizer.render([HELLO], tools=[TOOL])
        assert len(ids) == told.usage.prompt_tokens and '"look_up"' in tokenizer.decode(ids)
        assert ids.count(2) - tokenizer.render([HELLO])[0].count(2) == 1, "a control token in a description is text"
        after = [*HELLO, {"role": "assistant", "content": "look_up"}, {"role": "tool", "content": "77"}]
        assert create(**{**asked, "messages": after}).choices  # type: ignore[call-overload]
