"""/v1/completions with scored prompts, /tokenize and its kin: what lm-eval's `local-completions` asks for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from live_server import Running, assert_error, running
from test_serve_chat import nothing_is_left  # noqa: F401 (every test here leaves the engine empty too)

from riyaz.engine.request import Request
from riyaz.predictor import FreePredictor, open_model
from riyaz.serve.opening import Opener

MODEL, TEXT = "tiny", "where is my order, and when does it arrive"


@pytest.fixture(scope="module")
def served(model_folder: Path) -> Iterator[Running]:
    opener = Opener("fp32")
    opener.serve(str(model_folder))
    with running(opener, piece=64) as found:
        yield found


@pytest.fixture(scope="module")
def library(model_folder: Path) -> FreePredictor:
    return open_model(model_folder, "fp32")


def test_a_text_goes_on_as_the_engine_says(served: Running, library: FreePredictor) -> None:
    made = served.openai.completions.create(model=MODEL, prompt=TEXT, max_tokens=7)
    ids = library.tokenizer.encode(TEXT)
    answer = library.lm.generate([Request(0, tuple(ids), limit=7, stop=library.tokenizer.eos_ids)])[0]
    assert made.choices[0].text == library.tokenizer.decode(answer) and made.choices[0].finish_reason == "length"
    assert made.id.startswith("cmpl-") and made.object == "text_completion"
    assert made.usage is not None and (made.usage.prompt_tokens, made.usage.completion_tokens) == (len(ids), 7)
    lenient = openai.OpenAI(base_url=f"{served.url}/v1", api_key="x")  # the strict one knows no chunk without an end
    streamed = list(lenient.completions.create(
        model=MODEL, prompt=ids, max_tokens=7, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    assert "".join(choice.text for chunk in streamed for choice in chunk.choices) == made.choices[0].text
    assert streamed[-1].usage is not None and streamed[-1].usage == made.usage and streamed[-1].choices == []


def test_several_prompts_and_answers_come_in_order(served: Running) -> None:
    create = served.openai.completions.create
    prompts = ["the card", "the order", "the refund"]
    alone = [create(model=MODEL, prompt=prompt, max_tokens=4).choices[0].text for prompt in prompts]
    made = create(model=MODEL, prompt=prompts, max_tokens=4, n=2)
    assert [choice.index for choice in made.choices] == list(range(6))
    assert [choice.text for choice in made.choices] == [text for text in alone for _ in range(2)]


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_prompts_are_scored_as_in_the_library(served: Running, library: FreePredictor, limit: int) -> None:
    """The request that lm-eval sends: prompts of tokens, echo, one log-probability."""
    prompts = [library.tokenizer.encode(text) for text in (TEXT, "the card", "the " * 40)]
    body = {"model": MODEL, "prompt": prompts, "temperature": 0, "max_tokens": limit, "logprobs": 2, "echo": True}
    response = served.post("/v1/completions", {**body, "seed": 1234})
    assert response.status_code == 200, response.text
    for choice, ids in zip(response.json()["choices"], prompts, strict=True):
        said = choice["logprobs"]
        (wanted,) = library.lm.logprobs([Request(0, tuple(ids[:1]))], [ids[1:]])
        assert said["token_logprobs"][0] is None and said["top_logprobs"][0] is None
        found = said["token_logprobs"][1 : len(ids)]
        assert np.abs(wanted - found).max() < 1e-4
        assert len({len(values) for values in said.values()}) == 1
        assert len(said["tokens"]) == len(ids) + limit
        for token, value, top in list(zip(said["tokens"], said["token_logprobs"], said["top_logprobs"]))[1:]:
            assert top[token] >= value and len(top) in (1, 2, 3)
        rows = next(library.lm.distributions([Request(0, tuple(ids[:1]))], [ids[1:]]))
        greedy = [max(top.values()) == value for top, value in zip(said["top_logprobs"][1:], found)]
        assert greedy == (rows.argmax(1) == ids[1:]).tolist()
        assert choice["text"].startswith(library.tokenizer.decode(ids))
        assert said["text_offset"][:2] == [0, len(said["tokens"][0])]


def test_logprobs_0_scores_without_likeliest_tokens(served: Running) -> None:
    body = {"model": MODEL, "prompt": TEXT, "max_tokens": 1, "logprobs": 0, "echo": True}
    said = served.post("/v1/completions", body).json()["choices"][0]["logprobs"]
    pairs = list(zip(said["top_logprobs"], said["token_logprobs"]))
    assert all(list(top.values()) == [value] for top, value in pairs[1:])
    made = served.openai.completions.create(model=MODEL, prompt=TEXT, max_tokens=2, logprobs=1)
    assert made.choices[0].logprobs is not None and len(made.choices[0].logprobs.tokens or []) == 2
    plain = served.post("/v1/completions", {**body, "logprobs": None, "max_tokens": 0}).json()["choices"][0]
    assert plain == {"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "length"}


def test_a_whole_number_may_be_written_with_a_point(served: Running) -> None:
    plain = {"model": MODEL, "prompt": [7, 8], "max_tokens": 2, "logprobs": 2, "n": 2, "seed": 3, "top_k": 4}
    pointed = plain | {"prompt": [7.0, 8.0], "max_tokens": 2.0, "logprobs": 2.0, "n": 2.0, "seed": 3.0, "top_k": 4.0}
    answers = [served.post("/v1/completions", body) for body in (plain, pointed)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["choices"] == answers[1].json()["choices"]


def test_a_text_and_its_tokens_are_each_others(served: Running, library: FreePredictor) -> None:
    text = "the card, <|im_end|> 77 €🚲"
    found = served.post("/tokenize", {"prompt": text, "add_special_tokens": False, "return_token_strs": True}).json()
    assert found["tokens"] == library.tokenizer.encode(text) and found["count"] == len(found["tokens"])
    assert len(found["token_strs"]) == found["count"] and found["max_model_len"] == 1024
    assert served.post("/detokenize", {"tokens": found["tokens"]}).json() == {"prompt": text}
    assert served.post("/detokenize", {"tokens": [2]}).json() == {"prompt": "<|im_end|>"}
    messages = [{"role": "user", "content": "hello"}]
    rendered = served.post("/tokenize", {"messages": messages}).json()["tokens"]
    assert [rendered] == library.tokenizer.render([messages])
    begun = [*messages, {"role": "assistant", "content": "the card"}]
    assert served.post("/tokenize", {"messages": begun}).json()["tokens"] == [
        *rendered,
        *library.tokenizer.encode("the card"),
    ]
    whole = served.post("/tokenize", {"messages": begun, "add_generation_prompt": False}).json()["tokens"]
    assert [whole] == library.tokenizer.render([begun], add_generation_prompt=False) and len(whole) > len(rendered)
    info = served.http.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|im_end|>" and info["bos_token"] == "<|im_start|>" and "{%" in info["chat_template"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ""}, "prompt.0"), ({"prompt": None}, "prompt"), ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt.0"),
        ({"prompt": [512]}, "prompt.0"), ({"prompt": [-1]}, "prompt.0"), ({"prompt": [1.5]}, "prompt.0"),
        ({"prompt": ["a", 1]}, "prompt.1"), ({"prompt": ["a"] * 65}, "prompt"), ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"), ({"best_of": 2}, "best_of"), ({"suffix": "x"}, "suffix"),
        ({"echo": True, "repetition_penalty": 1.1, "logprobs": 1}, "repetition_penalty"),
        ({"prompt": "card " * 1100}, "prompt.0"), ({"max_tokens": 1024}, "prompt.0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line(served: Running, change: dict, param: str) -> None:
    found = assert_error(
        served.post("/v1/completions", {"model": MODEL, "prompt": "a", "max_tokens": 1, **change}), 400
    )
    assert found["param"] == param, found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}), ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}),
        ("/tokenize", {"prompt": 3}), ("/detokenize", {}), ("/detokenize", {"tokens": ["a"]}),
        ("/detokenize", {"tokens": [2**40]}), ("/tokenize", {"prompt": "x" * 1_100_000}),
    ],
)  # fmt: skip
def test_wrong_tokens_are_refused(served: Running, path: str, body: dict) -> None:
    assert_error(served.post(path, body), 400)


def test_an_id_without_a_token_is_shown(served: Running) -> None:
    assert served.post("/detokenize", {"tokens": [5000]}).json() == {"prompt": "<id 5000>"}


def test_a_seed_draws_the_same_for_a_prompt_alone_and_beside_others(served: Running) -> None:
    body = {"model": MODEL, "max_tokens": 8, "temperature": 1, "seed": 5, "n": 2}
    both = served.post("/v1/completions", {**body, "prompt": ["the card", TEXT]}).json()["choices"]
    alone = served.post("/v1/completions", {**body, "prompt": TEXT}).json()["choices"]
    assert [choice["text"] for choice in both[2:]] == [choice["text"] for choice in alone]
    assert alone[0]["text"] != alone[1]["text"]
