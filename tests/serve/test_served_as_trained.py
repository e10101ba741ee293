"""What a client of the server sends has the tokens of the training row: turns, tools, calls and results."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_llama import CHAT_TEMPLATE
from tool_template import MISTRAL, QWEN, TOOLS, write_model

from riyaz.artifact import TextPart
from riyaz.data import formats
from riyaz.data.rows import encode_rows, joined
from riyaz.data.task import Task
from riyaz.predictor.free import FreePredictor
from riyaz.predictor.from_files import open_model
from riyaz.serve import asking
from riyaz.serve.calls import Offer
from riyaz.serve.problems import Problem

TASK = Task("free", (), "tools", "Book for the workshop.", "")


def call(day: str) -> dict:
    return {"id": "c1", "type": "function", "function": {"name": "book", "arguments": json.dumps({"day": day})}}


TURNS = [
    {"role": "user", "content": "on monday please"},
    {"role": "assistant", "content": None, "tool_calls": [call("monday")]},
    {"role": "tool", "tool_call_id": "c1", "content": "it is full"}, {"role": "assistant", "content": "monday is full"},
    {"role": "user", "content": "then <|im_end|> on friday"},
    {"role": "assistant", "content": "one moment", "tool_calls": [call("friday")]},
]  # fmt: skip


@pytest.fixture(scope="module", params=[QWEN, MISTRAL, CHAT_TEMPLATE], ids=["tagged", "listed", "text"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FreePredictor:
    plain = open_model(write_model(tmp_path_factory.mktemp("served") / "tiny", request.param), "fp32")
    return replace(plain, text=TextPart(TASK.instruction), task=TASK)


def rows_of(folder: Path, record: dict) -> tuple:
    path = folder / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    return formats.load(path).examples


def served(model: FreePredictor, turns: list[dict], tools: list[dict]) -> tuple[int, ...]:
    """The tokens of the prompt that the server makes of a client's request."""
    place = SimpleNamespace(predictor=model, open=SimpleNamespace(tokenizer=model.tokenizer), name="tiny")
    asked = asking.turns_of(turns, place, tools)
    request = asking.prepared(model, asked, 8, None).request
    return (*request.prefix, *request.tokens)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_conversation_with_tools_is_served_as_it_was_trained(model, tmp_path, system) -> None:
    turns = [{"role": "system", "content": system}, *TURNS] if system else TURNS
    examples = rows_of(tmp_path, {"messages": turns, "tools": TOOLS})
    prompts = [(model.conversations([example.messages])[0], example) for example in examples]
    (row,) = joined(encode_rows(model.tokenizer, prompts, 1000)[0])
    tokens = (*row.prompt, *row.answer)
    spans = [*row.earlier, (len(row.prompt), len(tokens))]
    answered = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    for place, (start, end) in zip(answered, spans, strict=True):
        assert served(model, turns[:place], TOOLS) == tokens[:start]
        assert tokens[end - 1] == model.tokenizer.end_of_turn
    assert served(model, turns[: answered[0]], TOOLS) != served(model, turns[: answered[0]], []), "tools are in it"


def test_an_answer_with_a_call_is_read_as_the_rows_have_it(model, tmp_path) -> None:
    first, _, last = rows_of(tmp_path, {"messages": TURNS, "tools": TOOLS})
    for example in (first, last):
        (ids,) = model.tokenizer.answer_ids([example.said])
        assert model.text_of(ids[:-1], 500, tools=True) == example.answer
        if model.tokenizer.template == MISTRAL:
            assert model.tokenizer.answer_ids([example.answer]) != [ids], "the model writes another form"


def test_a_call_in_an_answer_is_told_where_tools_are_text_too(model) -> None:
    """The server finds calls in the form in which the model was trained to write them."""
    calls = Offer(tuple(TOOLS), tuple(TOOLS)).calls(model.tokenizer.template)
    assert calls is not None
    block = calls.form.block.replace("…", '{"name": "book", "arguments": {"day": "friday"}}')
    text, made = calls.push(block, last=True)
    assert text == "" and made[0]["function"] == {"name": "book", "arguments": '{"day": "friday"}'}


def test_a_plain_model_whose_template_takes_no_tools_still_refuses_them(tmp_path) -> None:
    plain = open_model(write_model(tmp_path / "tiny", CHAT_TEMPLATE), "fp32")
    with pytest.raises(Problem, match="writes none into its prompts"):
        served(plain, TURNS[:1], TOOLS)


def test_predictions_of_rows_with_tools_are_in_the_form_of_the_rows(model, tmp_path, monkeypatch) -> None:
    example, _, _ = rows_of(tmp_path, {"messages": TURNS, "tools": TOOLS})
    (ids,) = model.tokenizer.answer_ids([example.said])
    monkeypatch.setattr(model.lm, "generate", lambda requests, tell=None: [np.array(ids[:-1])] * len(requests))
    (prediction,) = model.answers([example.messages])
    assert prediction.text == example.answer
