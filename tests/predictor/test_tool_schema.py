"""`--schema tools`: an answer is text, or calls by the schemas of its own row's tools, wherever the row is answered."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live_server import running
from refusals import assert_refused
from tiny_comparison import command
from tiny_llama import CHAT_TEMPLATE
from tool_template import MISTRAL, QWEN, write_marked, write_model

import riyaz
from riyaz import artifact as artifacts
from riyaz.artifact import Artifact, BaseModel
from riyaz.card import card
from riyaz.cli import partial_answers
from riyaz.config import read_toml
from riyaz.data.schema import as_written, read_schema
from riyaz.data.task import Task
from riyaz.engine import tool_grammar
from riyaz.engine.engine import Engine
from riyaz.engine.grammar import misfit_of
from riyaz.engine.request import Added, Request
from riyaz.engine.tool_grammar import call_misfit, own_grammar, text_or_calls_rules
from riyaz.export.prompt import not_held
from riyaz.predictor import FreePredictor, Prediction, keeping_to, open_artifact, open_model
from riyaz.serve.opening import Opener
from riyaz.sources import open_source
from riyaz.text.calls import FORMS, HOLE, TAGGED, Form, answer_form, calls_in, turn_text

DAYS = ["Monday", 'a "b"\n€']


def tool(name: str, **fields: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = {
    "shop": [tool("book", day={"enum": DAYS}), tool("count", n={"type": "integer", "minimum": 1, "maximum": 3})],
    "door": [tool("lock", door={"enum": ["front", "back"]}, twice={"type": "boolean"})],
}
NAMES = {"shop": {"book", "count"}, "door": {"lock"}}
TASK = Task("free", (), "tools", "Call a tool.", "it was given", schema="tools")
OTHER_FORM = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHAT_TEMPLATE


def called(name: str, **arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


def assert_called(text: str, place: str) -> int:
    """Number of the calls in an answer to a row with the tools of a place, all of which are whole and allowed."""
    words, calls = calls_in(text)
    assert "<tool_call>" not in words, text
    for call in calls:
        function = call["function"]
        assert function["name"] in NAMES[place]
        given = json.loads(function["arguments"])
        if function["name"] == "book":
            assert [*given] == ["day"] and given["day"] in DAYS
        elif function["name"] == "count":
            assert [*given] == ["n"] and given["n"] in (1, 2, 3)
        else:
            assert given["door"] in ("front", "back") and isinstance(given["twice"], bool) and len(given) == 2
    return len(calls)


def asked(place: str, text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "", "tools": TOOLS[place]}, {"role": "user", "content": text}]


def write_rows(path: Path, count: int, tools: Sequence[str] = ("shop", "door")) -> Path:
    with open(path, "w") as file:
        for number in range(count):
            place = tools[number % len(tools)]
            answer = called("lock", door="back", twice=True) if place == "door" else called("count", n=number % 3 + 1)
            turns = [{"role": "user", "content": f"please help me with order {number}"}, answer]
            file.write(json.dumps({"messages": turns} | ({"tools": TOOLS[place]} if place else {})) + "\n")
    return path


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    return write_marked(tmp_path_factory.mktemp("marked") / "tiny")


@pytest.fixture
def calling(marked: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model, which calls: random weights never begin a call by themselves."""
    generate = Engine.generate

    def begun(self: Engine, requests: Sequence[Request], tell: Any = None) -> list[list[int]]:
        added = Added(((marked[1], 100.0), (2, 4.0)))
        return generate(self, [replace(each, added=added) for each in requests], tell)

    monkeypatch.setattr(Engine, "generate", begun)
    return marked[0]


@pytest.fixture
def folder(marked: tuple[Path, int], tmp_path: Path) -> Path:
    base = BaseModel("tiny", str(marked[0]), open_source(marked[0]).sha256(), 1)
    artifacts.write(tmp_path / "calls", Artifact("zero_shot", base=base, task=TASK, max_new_tokens=120), {})
    return tmp_path / "calls"


def written(form: Form, *calls: tuple[str, str]) -> str:
    """Calls of names with arguments in the form of a model."""
    each = [form.call.replace(HOLE, name, 1).replace(HOLE, arguments, 1) for name, arguments in calls]
    blocks = [form.joined.join(each)] if form.listed else each
    return form.joined.join(form.block.replace(HOLE, block) for block in blocks)


def test_what_rows_with_the_same_tools_begin_with_is_read_once(marked: tuple[Path, int]) -> None:
    model = keeping_to(open_model(marked[0]), "tools", "here")
    texts = ("lock it", "is it open?", "book a day", "how many?")
    talks = [asked(place, text) for text in texts for place in ("shop", "door")]
    apart = [asked("door", text) for text in texts]
    for number, talk in enumerate(apart):
        talk[0]["content"] = f"It is day {number}."
    assert not any(each.request.prefix for each in model.prepare(apart, room=8)), "each has its own system turn"
    requests = [each.request for each in model.prepare(talks, room=8)]
    assert [[*each.prefix, *each.tokens] for each in requests] == model.tokenizer.render(talks)
    assert len({each.prefix for each in requests}) == 2 and requests[0].prefix == requests[2].prefix
    assert all(len(each.tokens) < 40 < len(each.prefix) for each in requests)
    (sent,) = model.prepare([talks[0][1:]], room=8, tools=TOOLS["shop"])
    assert sent.request.prefix == requests[0].prefix, "tools of a request are as those of a row"


def test_rows_of_a_chunk_are_read_the_same_whatever_was_answered_before(
    marked: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []

    def watched(self: FreePredictor, prepared: Sequence[Any], tell: Any = None) -> list[Prediction]:
        read.append([len(each.request.prefix) for each in prepared])
        return [Prediction("x")] * len(prepared)

    monkeypatch.setattr(FreePredictor, "_generated", watched)
    monkeypatch.setattr(partial_answers, "CHUNK", 6)
    rows = [{"messages": [*asked("shop", f"is it open on day {n}?"), {"role": "assistant", "content": "yes"}]}
            for n in range(8)]  # fmt: skip
    for row in rows:
        row["tools"] = row["messages"][0].pop("tools")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "last.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[6:]))
    for name in "rows", "last":
        told = command("run", marked[0], tmp_path / f"{name}.jsonl", "--out", tmp_path / f"{name}.out.jsonl")
        assert told.status == 0, told.err
    assert min(read[0]) > 40 and read[1] == read[2] and len(read) == 3


@pytest.mark.parametrize("form", FORMS)
def test_the_rules_of_every_form_allow_text_and_its_calls(form: Form) -> None:
    rules = text_or_calls_rules(TOOLS["shop"], TOOLS["shop"], form, {})
    book, count = ("book", json.dumps({"day": DAYS[1]}, ensure_ascii=False)), ("count", '{"n": 2}')
    one, two = written(form, book), written(form, book, count)
    whole = {"": 0, "It is open.": 0, f"So {form.open[:-1]}": 0, one: 1, two: 2, f"One moment.\n{one}": 1}
    if form.bare:
        whole = {**whole, "So: {x": 0, "So: " + one: 0}
        del whole[f"One moment.\n{one}"]
    for text, calls in whole.items():
        assert misfit_of(rules, text, "here") == (len(text.encode()), True), text
        assert len(calls_in(text, form)[1]) == calls
    wrong = [
        written(form, ("cancel", '{"n": 2}')), written(form, ("count", '{"n": 9}')), written(form, ("count", "{}")),
        f"So {form.open}", f"So {form.open} is", f"{one} So.", one[:-1], *['{"n": 2}', ' ; {"x'] * form.bare,
    ]  # fmt: skip
    for text in wrong:
        assert not misfit_of(rules, text, "here")[1], text
    single = text_or_calls_rules(TOOLS["shop"], TOOLS["shop"], form, {}, single=True)
    assert misfit_of(single, one, "here")[1] and not misfit_of(single, two, "here")[1]


@pytest.mark.parametrize("template", [QWEN, MISTRAL, CHAT_TEMPLATE, "marks"], ids=["text", "listed", "none", "marks"])
def test_the_tokens_of_a_trained_answer_fit(template: str, tmp_path: Path) -> None:
    path = write_marked(tmp_path / "t")[0] if template == "marks" else write_model(tmp_path / "t", template)
    model = open_model(path, "fp32")
    grammar = own_grammar(model.tokenizer, TOOLS["shop"], model.lm.runner.vocab_size, "row 1")
    turns = [called("book", day=DAYS[1]), called("count", n=3), {**called("count", n=1), "content": "One moment."}]
    for ids in model.tokenizer.answer_ids([*turns, {"role": "assistant", "content": "it is open"}]):
        parse = grammar.start()
        for token in ids:
            assert parse.fits(token), model.tokenizer.decode(ids)
            parse.accept(token)
    form = answer_form(model.tokenizer.template)
    assert form is not None
    spelled = model.tokenizer.answer_ids([form.open + "say"])[0][:-1]
    parse = grammar.start()
    with pytest.raises(AssertionError):
        for token in spelled:
            assert parse.fits(token)
            parse.accept(token)


def test_answers_call_only_their_own_tools_alone_and_in_a_batch(calling: Path) -> None:
    model = replace(keeping_to(open_model(calling, "fp32"), "tools", "--schema"), max_new_tokens=90)
    assert isinstance(model, FreePredictor)
    places = ["shop", "door"] * 4
    rows = [asked(place, f"please change order {number}") for number, place in enumerate(places)]
    texts = [each.text for each in model.answers(rows)]
    assert texts == [model.answer(row) for row in rows]
    assert sum(assert_called(text, place) for text, place in zip(texts, places, strict=True)) >= 8
    free = [each.text for each in replace(model, schema="").answers(rows)]
    assert not any(calls_in(text)[1] for text in free), "without the grammar it writes no call"


def test_a_grammar_is_compiled_once_for_equal_tools(calling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    rules = tool_grammar.text_or_calls_rules
    monkeypatch.setattr(tool_grammar, "text_or_calls_rules", lambda *given: made.append(1) or rules(*given))
    model = keeping_to(open_model(calling, "fp32"), "tools", "--schema")
    first, _, third = (
        each.request.grammar for each in model.prepare([asked(p, "x") for p in ("shop", "door", "shop")])
    )
    assert first is third is not None and len(made) == 2


def test_evaluate_and_run_hold_each_row_to_its_tools(calling: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 24)
    held = ("--schema", "tools", "--max-new-tokens", 90)
    told = command("evaluate", calling, "--test", rows, *held, "--json")
    assert told.status == 0, told.err
    assert told.document["metric"] == "tools" and told.document["extras"]["parses"] == 1.0
    assert command("evaluate", calling, "--test", rows, "--json").document["extras"]["parses"] == 0.0
    out = tmp_path / "out.jsonl"
    told = command("run", calling, rows, "--out", out, *held)
    assert told.status == 0 and "cut" not in told.err, told.err
    answers = [json.loads(line)["prediction"] for line in out.read_text().splitlines()]
    assert sum(assert_called(text, ("shop", "door")[row % 2]) for row, text in enumerate(answers)) >= 24
    read = [json.loads(line) for line in rows.read_text().splitlines()]
    asked_for = [{**row, "messages": row["messages"][:1]} for row in read]
    assert riyaz.open(calling).answers(asked_for, schema="tools", max_tokens=90) == answers


@pytest.mark.usefixtures("one_core", "inside")
def test_a_comparison_stores_the_word_and_its_answers_keep_to_it(calling: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "train.jsonl", 40)
    (data / "riyaz.toml").write_text('schema = "tools"\n')
    assert str(read_toml(data / "riyaz.toml")["schema"]) == "tools"
    out = tmp_path / "out"
    told = command("compare", data, "--model", calling, "--methods", "zero_shot", "--budget", "3h", "--out", out,
                   "--limit-test", 6, "--max-new-tokens", 60, "--json")  # fmt: skip
    assert told.status == 0, told.err
    assert [arm["status"] for arm in told.document["arms"]] == ["ok"] and "do not keep" not in told.err
    made = Artifact.read(out / "arms/zero_shot/kept/artifact")
    assert made.task is not None and made.task.schema == "tools"
    lines = [line for file in (out / "arms/zero_shot").glob("*/predictions.jsonl") for line in file.open()]
    texts = [json.loads(line)["prediction"] for line in lines]
    assert texts and all("lock" in text or "book" in text or "count" in text for text in texts)
    assert (
        command("evaluate", out / "zero_shot", "--test", data / "train.jsonl", "--json").document["score"] is not None
    )


def test_the_word_comes_back_with_the_artifact(folder: Path, calling: Path) -> None:
    described = json.loads((folder / "riyaz.json").read_text())
    assert described["task"]["schema"] == "tools" and described["text"]["schema_file"] is None
    artifact = Artifact.read(folder)
    assert artifact.task == TASK and "tools" in " ".join(not_held(artifact))
    assert "calls by the schemas of the tools" in card(folder)
    model = open_artifact(folder, precision="fp32")
    assert assert_called(model.answer(asked("door", "please lock the door")), "door")
    assert model.answer([{"role": "user", "content": "hello"}]), "where no tools are defined any text is an answer"


def test_a_served_artifact_holds_calls_to_the_tools_of_the_request(folder: Path, marked: tuple[Path, int]) -> None:
    opener = Opener("fp32")
    opener.serve(str(folder))  # and its base, a plain model
    with running(opener) as served:

        def said(model: str, **more: Any) -> dict[str, Any]:
            body = {"model": model, "messages": [{"role": "user", "content": "lock it"}], "temperature": 0,
                    "logit_bias": {str(marked[1]): 100, "2": 4}, "max_tokens": 120, **more}  # fmt: skip
            response = served.post("/v1/chat/completions", body)
            assert response.status_code == 200, response.text
            return response.json()["choices"][0]["message"]

        auto = said("calls", tools=TOOLS["door"])
        assert auto["tool_calls"] and assert_called(turn_text({"content": "", "tool_calls": [
            {"function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
            for call in auto["tool_calls"]
        ]}), "door")  # fmt: skip
        assert len(said("calls", tools=TOOLS["door"], parallel_tool_calls=False)["tool_calls"]) == 1
        choice = {"type": "function", "function": {"name": "book"}}
        (named,) = said("calls", tools=TOOLS["shop"], tool_choice=choice)["tool_calls"]
        assert named["function"]["name"] == "book", "the client's own choice counts"
        assert "tool_calls" not in said("calls", tools=TOOLS["door"], tool_choice="none")
        assert "tool_calls" not in said("tiny", tools=TOOLS["door"]), "a plain model is held to nothing"
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [7]}}}
        assert said("calls", tools=TOOLS["door"], response_format=form)["content"] == "7"
        wrong = [tool("bad", x={"type": "wheel"})]
        body = {"model": "calls", "messages": [{"role": "user", "content": "x"}], "tools": wrong}
        assert served.post("/v1/chat/completions", body).status_code == 400


def test_what_the_word_is_not_for_is_one_line(marked: tuple[Path, int], tmp_path: Path) -> None:
    path = marked[0]
    out = ("--out", tmp_path / "out", "--model", path, "--budget", "3h", "--schema", "tools")
    some = write_rows(tmp_path / "some.jsonl", 40, ("shop", "shop", ""))
    line = command("compare", some, *out).line
    assert "some.jsonl:3: no tools are defined here, and --schema tools holds answers to them" in line
    assert "some.jsonl:3: no tools" in command("evaluate", path, "--test", some, "--schema", "tools").line
    assert "no tools are defined here" in command("generate", path, "hello", "--schema", "tools").line
    assert (
        "some.jsonl:3: no tools" in command("run", path, some, "--out", tmp_path / "o.jsonl", "--schema", "tools").line
    )
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps({"text": f"a {n}", "label": "ab"[n % 2]}) + "\n" for n in range(40)))
    assert "--schema: these answers are a closed set of labels" in command("compare", labels, *out).line
    assert not (tmp_path / "out").exists()
    with assert_refused("--schema: the model's chat template writes calls of tools in a form that riyaz does not know"):
        keeping_to(open_model(write_model(tmp_path / "other", OTHER_FORM), "fp32"), "tools", "--schema")
    model = keeping_to(open_model(path, "fp32"), "tools", "--schema")
    for wrong, says in (({"type": "wheel"}, "row 1: tools: the schema cannot be followed"), (3, "describes no object")):
        fields = {"parameters": wrong if wrong == 3 else {"properties": {"x": wrong}}}
        turn = {"role": "user", "content": "x", "tools": [{"type": "function", "function": {"name": "a", **fields}}]}
        with assert_refused(says):
            model.prepare([[turn]], ["row 1"])


def test_rows_whose_calls_their_tools_do_not_allow_are_counted(tmp_path: Path) -> None:
    def misfit(turn: dict[str, Any]) -> str:
        return call_misfit(TOOLS["door"], turn_text(turn), "row 1")

    assert misfit(called("lock", door="back", twice=True)) == "" == misfit({"content": "it is locked"})
    assert "another order" in misfit(called("lock", twice=True, door="back"))
    assert "something else behind" in misfit(called("book", day="Monday"))
    assert call_misfit(TOOLS["door"], turn_text(called("lock", door="back", twice=True))[:-3], "x").startswith(
        "it ends"
    )
    rows = write_rows(tmp_path / "rows.jsonl", 39)
    wrong = {"messages": [{"role": "user", "content": "x"}, called("lock", door="roof", twice=True)]}
    with open(rows, "a") as file:
        file.write(json.dumps({**wrong, "tools": TOOLS["door"]}) + "\n")
    told = command("data", rows, "--schema", "tools", "--skip-problems")
    assert "tools, which 39 of 40 answers keep to" in told.out and "rows.jsonl:40: its tools have" in told.out
    assert read_schema("tools") == as_written("tools", ["x"]) == "tools" and TAGGED.open == "<tool_call>"
