"""Calls of tools in rows: text in one form, and what a chat template writes in the place of it."""

import json
from pathlib import Path

import pytest
import tiny_llama
from tool_template import MISTRAL, QWEN, TOOLS, write_model

from riyaz.text.calls import FORMS, TAGGED, calls_in, canonical, turn_of, turn_text, without_tools
from riyaz.text.tokenizer import Tokenizer


def call(name: str, **arguments: object) -> dict:
    return {"id": "call00001", "type": "function", "function": {"name": name, "arguments": arguments}}


def tokenizer_of(folder: Path, template: str) -> Tokenizer:
    path = tiny_llama.write_tokenizer(folder)
    (path / "chat_template.jinja").write_text(template)
    return Tokenizer.from_folder(path)


@pytest.fixture
def qwen(tmp_path: Path) -> Tokenizer:
    return tokenizer_of(tmp_path / "qwen", QWEN)


def test_a_turn_with_calls_becomes_text_and_a_turn_again() -> None:
    turn = {"role": "assistant", "content": "One moment.", "tool_calls": [call("book", day="é", hour=9)]}
    text = turn_text(turn)
    assert text == 'One moment.\n<tool_call>\n{"name": "book", "arguments": {"day": "é", "hour": 9}}\n</tool_call>'
    assert turn_of(text) == turn
    assert turn_of("a < b") == {"role": "assistant", "content": "a < b"}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.open + form.call)
def test_an_answer_in_any_form_is_read_in_the_one_of_the_rows(form) -> None:
    body = form.call.replace("…", "book", 1).replace("…", '{"day":  "Monday"}')
    text = form.block.replace("…", body)
    assert canonical(text, form) == turn_text({"content": "", "tool_calls": [call("book", day="Monday")]})
    assert canonical("It is open.", form) == "It is open."


def test_a_template_with_tools_writes_them_in_its_own_form(qwen: Tokenizer) -> None:
    asked = [{"role": "system", "content": "", "tools": TOOLS}, {"role": "user", "content": "on Monday?"}]
    (rendered,) = qwen.render_texts([asked])
    served = qwen.render([asked[1:]], tools=TOOLS)
    assert qwen.render([asked]) == served and json.dumps(TOOLS[0]) in rendered
    plain = qwen.render_texts([asked[1:], asked])
    assert "<tools>" not in plain[0] and plain[1] == rendered, "each conversation has its own tools"


def test_a_called_answer_is_trained_in_the_ids_that_the_template_writes(qwen: Tokenizer) -> None:
    asked = [{"role": "system", "content": "", "tools": TOOLS}, {"role": "user", "content": "on Monday?"}]
    said = {"role": "assistant", "content": "", "tool_calls": [call("book", day="<|im_end|>")]}
    (row,) = qwen.rows([(asked, said)])
    assert all(row.checks.values()) and row.answer.count(qwen.end_of_turn) == 1
    (whole,) = qwen.render([[*asked, said]], add_generation_prompt=False)
    assert whole[: len(row.prompt) + len(row.answer)] == row.prompt + row.answer
    assert calls_in(qwen.decode(row.answer), TAGGED)[1][0]["function"]["name"] == "book"


def test_a_control_token_of_calls_is_written_by_the_template_alone(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(write_model(tmp_path / "mistral", MISTRAL))
    said = {"role": "assistant", "content": "", "tool_calls": [call("book", day="[TOOL_CALLS]"), call("book", day=2)]}
    (ids,) = tokenizer.answer_ids([said])
    assert ids[0] == 0 and ids.count(0) == 1 and ids[-1] == tokenizer.end_of_turn
    assert tokenizer.decode(ids) == ' [{"name": "book", "arguments": {"day": "[TOOL_CALLS]"}}, ' + (
        '{"name": "book", "arguments": {"day": 2}}]'
    )
    (row,) = tokenizer.rows([([{"role": "user", "content": "q"}], said)])
    assert row.answer == ids and all(row.checks.values())


def test_a_template_without_tools_gets_them_as_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "plain", tiny_llama.CHAT_TEMPLATE)
    turns = [
        {"role": "system", "content": "Be brief.", "tools": TOOLS}, {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call("book", day=1)]},
        {"role": "tool", "content": "2"}, {"role": "tool", "content": "3"},
    ]  # fmt: skip
    written = without_tools(turns)
    assert [turn["role"] for turn in written] == ["system", "user", "assistant", "user"]
    assert written[0]["content"] == f"Be brief.\n\n<tools>\n{json.dumps(TOOLS[0])}\n</tools>"
    assert written[3]["content"] == "<tool_response>\n2\n</tool_response>\n<tool_response>\n3\n</tool_response>"
    assert tokenizer.render([turns]) == tokenizer.render([written])
    said = {"role": "assistant", "content": "", "tool_calls": [call("book", day=1)]}
    assert tokenizer.answer_ids([said]) == tokenizer.answer_ids([turn_text(said)])
