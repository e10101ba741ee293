"""Every answer of a conversation is a row: with its true history, in the conversation's group, never divided."""

import json
from pathlib import Path

import pytest
from refusals import assert_refused

from riyaz.data import Dataset, Example, Reading, formats
from riyaz.data.split import split
from riyaz.data.task import detect
from riyaz.data.turns import facts_of

TOOL = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}


def talk(*texts: str, **answer: object) -> dict:
    roles = ("user", "assistant") * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts)]
    turns[-1] |= answer
    return {"messages": turns}


def read(folder: Path, *rows: dict, **options) -> Dataset:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return formats.load(path, **options)


def test_the_note_says_what_an_answer_is(tmp_path: Path) -> None:
    notes = read(tmp_path, talk("q", "a", "r", "b"), talk("t", "d")).notes
    assert "a.jsonl: 2 conversations with 3 answers, each of which makes a row" in notes


def histories(dataset: Dataset) -> list[tuple[list[str], str]]:
    return [([turn["content"] for turn in each.messages], each.answer) for each in dataset.examples]


def test_every_answer_has_the_true_history_before_it_and_the_group_of_its_conversation(tmp_path) -> None:
    data = read(tmp_path, talk("q", "a", "r", "b", "s", "c"), talk("t", "d"))
    assert histories(data) == [
        (["q"], "a"), (["q", "a", "r"], "b"), (["q", "a", "r", "b", "s"], "c"), (["t"], "d"),
    ]  # fmt: skip
    first, second, third, alone = data.examples
    assert [each.where for each in data.examples] == [*(f"a.jsonl:1 turn {n}" for n in (1, 2, 3)), "a.jsonl:2"]
    assert first.group == second.group == third.group is not None and alone.group is None
    assert [each.slice for each in data.examples] == ["turn 1", "turn 2", "turn 3", "turn 1"]
    assert any("2 conversations with 4 answers" in note for note in data.notes)
    assert Example.from_record(json.loads(json.dumps(third.to_record()))) == third


def test_the_last_answer_alone_where_it_is_asked_for_and_for_what_was_trained_so(tmp_path) -> None:
    row = talk("q", "a", "r", "b")
    assert histories(read(tmp_path, row, turns="last")) == [(["q", "a", "r"], "b")]
    earlier = Reading("messages")  # of an artifact from before there was a choice
    assert histories(read(tmp_path, row, like=earlier)) == [(["q", "a", "r"], "b")]
    assert len(read(tmp_path, row, like=read(tmp_path, row).reading).examples) == 2
    assert histories(read(tmp_path, row, answers_required=False)) == [(["q", "a", "r"], "b")]


def test_weights_slices_and_groups_of_the_rows_are_kept(tmp_path) -> None:
    row = talk("q", "a", "r", "b", "s", "c") | {"slice": "x", "customer": "k"}
    row["messages"][1]["weight"] = 0
    data = read(tmp_path, row, group_column="customer")
    assert [answer for _, answer in histories(data)] == ["b", "c"]
    assert {(each.slice, each.group) for each in data.examples} == {("x", "k")}


def test_turns_that_answer_nothing_stay_in_the_history(tmp_path) -> None:
    greeting = {"role": "assistant", "content": "Welcome!"}
    row = talk("q", "a", "r", "b")
    row["messages"] = [greeting, *row["messages"][:2], {"role": "assistant", "content": ""}, *row["messages"][2:]]
    assert histories(read(tmp_path, row)) == [(["Welcome!", "q"], "a"), (["Welcome!", "q", "a", "", "r"], "b")]
    with assert_refused("a.jsonl:1: ", "does not follow a user turn"):
        read(tmp_path, {"messages": [greeting]})


def test_no_split_divides_a_conversation(tmp_path) -> None:
    data = read(tmp_path, *(talk(f"q{n}", f"a{n}", f"r{n}", f"b{n} {n % 7}", f"s{n}", "c") for n in range(120)))
    parts, report = split(data, None, detect(data))
    places = [{each.where.split()[0] for each in part} for part in (parts.train, parts.valid, parts.test)]
    assert all(places) and not (places[0] & places[1] or places[0] & places[2] or places[1] & places[2])
    assert sum(map(len, (parts.train, parts.valid, parts.test))) == 360 and report.groups is not None
    assert [each.turn for each in parts.test[:3]] == [1, 2, 3], "a conversation's answers stand in order"


def test_openings_that_conversations_share_are_dropped_from_training_and_not_refused(tmp_path) -> None:
    train = read(tmp_path, *(talk("Hi!", "Hello.", f"q{n}", f"a{n}") for n in range(30)))
    test = read(tmp_path, *(talk("Hi!", "Hello.", f"r{n}", f"a{n}") for n in range(10)), like=train.reading)
    parts, report = split(train, test, detect(train))
    assert {each.turn for each in (*parts.train, *parts.valid)} == {2} and report.leakage["test_rows"] == 10
    copies = read(tmp_path, *(talk("Hi!", "Hello.", f"q{n}", f"a{n}") for n in range(10)), like=train.reading)
    with assert_refused("are training rows too"):
        split(train, copies, detect(train))


def test_tools_calls_and_results_are_kept_as_templates_read_them(tmp_path) -> None:
    called = {
        "id": "c1",
        "type": "function",
        "function": {"name": "book", "arguments": '{"day": "Monday", "at": null}'},
    }
    turns = [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"}, {"role": "assistant", "content": "a"},
    ]  # fmt: skip
    other = talk("what can you do", "I book.") | {"functions": [TOOL["function"]]}
    data = read(tmp_path, {"messages": turns, "tools": [TOOL]}, other)
    call, reply, plain = data.examples
    assert call.tools == plain.tools == (TOOL,), "an older definition gets OpenAI's form"
    assert call.answer == '<tool_call>\n{"name": "book", "arguments": {"day": "Monday"}}\n</tool_call>'
    assert call.said == {"role": "assistant", "content": "", "tool_calls": [{
        "id": "call00001", "type": "function", "function": {"name": "book", "arguments": {"day": "Monday"}}}],
    }  # fmt: skip
    assert reply.messages[2]["tool_calls"][0]["id"] == "c1"
    assert reply.messages[3] == {"role": "tool", "content": "done", "tool_call_id": "c1"} and reply.prompt == "done"
    assert facts_of(data.examples) | {"longest": 0} == {
        "conversations": 2, "answers": 3, "longest": 0, "tools": ["book"], "calling": 1,
    }  # fmt: skip
    task = detect(data)
    assert (task.kind, task.metric) == ("free", "tools")
    assert plain.key != read(tmp_path, talk("what can you do", "I book.")).examples[0].key


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ({"name": "book", "arguments": "[1]"}, "the arguments of the call of 'book' are no object of JSON"),
        ({"arguments": "{}"}, "a tool call has no name"),
        ({"name": "book", "arguments": {"day": "\ud83d"}}, "unpaired surrogate"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, call, what) -> None:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"function": call}]}]}
    with assert_refused("a.jsonl:1: ", what):
        read(tmp_path, row | {"tools": [TOOL]})


def test_calls_in_turns_of_their_own_that_follow_each_other_are_one_answer(tmp_path) -> None:
    calls = [{"from": "function_call", "value": json.dumps({"name": "book", "arguments": {"n": n}})} for n in (1, 2)]
    row = {"conversations": [{"from": "human", "value": "q"}, *calls], "tools": json.dumps([TOOL])}
    (example,) = read(tmp_path, row).examples
    assert [each["function"]["arguments"] for each in example.said["tool_calls"]] == [{"n": 1}, {"n": 2}]


def test_answers_of_talks_are_no_labels_where_one_is_given_once(tmp_path) -> None:
    talks = [talk(f"hello {n}", "hi", f"who are you, {n}?", ("Pip", "a program")[n % 2]) for n in range(20)]
    assert detect(read(tmp_path, *talks)).kind == "closed"  # as an intent for every turn is
    assert detect(read(tmp_path, *talks, talk("hello", "hi", "the price?", "3 euros"))).kind == "short"
    alone = [talk(f"who are you, {n}?", ("Pip", "a program")[n % 2]) for n in range(20)]
    assert detect(read(tmp_path, *alone, talk("the price?", "3 euros"))).kind == "closed"
