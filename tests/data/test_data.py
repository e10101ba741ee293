"""Files become examples: every format, byte order marks and line ends, and one line for each wrong input."""

import json
from pathlib import Path

import pytest

from riyaz.data import Dataset, formats
from riyaz.errors import RiyazError


def write(path: Path, rows: list[dict]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(tmp_path: Path, *rows: dict, **options) -> Dataset:
    return formats.load(write(tmp_path / "train.jsonl", list(rows)), **options)


def refusal(path: Path, **options) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(RiyazError) as error:
        formats.load(path, **options)
    text = str(error.value)
    assert "\n" not in text and "; " in text
    return text.replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("row", "format", "prompt", "answers"),
    [
        ({"prompt": "p", "completion": " c\n"}, "prompt,completion", "p", ("c",)),
        ({"text": "t", "label": "l", "slots": {}}, "text,label", "t", ("l",)),
        ({"text": "t", "label": 1}, "text,label", "t", ("1",)),
        ({"text": "t", "label": True}, "text,label", "t", ("true",)),
        ({"question": "q", "answer": "a"}, "question,answer", "q", ("a",)),
        ({"question": "q", "answers": ["a", "b", "a", ""]}, "question,answers", "q", ("a", "b")),
        (
            {"context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}},
            "context,question,answers",
            "c\n\nq",
            ("a",),
        ),
        ({"text": "t", "answer": "a"}, "text,answer", "t", ("a",)),
        ({"instruction": "i", "input": "x", "output": "o"}, "instruction,input,output", "i\n\nx", ("o",)),
        ({"instruction": "i", "input": "", "output": "o"}, "instruction,input,output", "i", ("o",)),
        ({"instruction": "i", "response": "r"}, "instruction,response", "i", ("r",)),
        ({"input": "i", "output": "o"}, "input,output", "i", ("o",)),
        ({"document": "d", "summary": "s", "title": "t"}, "document,summary", "d", ("s",)),
        (
            {"document": "d", "summary": "s", "references": ["s", "r"]},
            "document,summary,references",
            "d",
            ("s", "r"),
        ),
        ({"abstract": "d", "summary": "s"}, "abstract,summary", "d", ("s",)),
    ],
)
def test_formats_are_detected(tmp_path, row, format, prompt, answers):
    dataset = read(tmp_path, row, row)
    example = dataset.examples[1]
    assert (dataset.format, example.prompt, example.answers) == (format, prompt, answers)
    assert example.where == "train.jsonl:2" and example.messages == ({"role": "user", "content": prompt},)
    assert dataset.columns == tuple(row) and len(dataset.sha256) == 64


def test_what_is_not_read_is_listed(tmp_path):
    row = {"text": "t", "label": "l", "subject": "s", "slice": "rare", "doc_id": 7}
    dataset = read(tmp_path, row)
    assert dataset.unused_columns == ("subject",)
    assert (dataset.examples[0].slice, dataset.examples[0].doc_ids) == ("rare", ("7",))


def test_a_system_column_becomes_the_system_turn(tmp_path):
    example = read(tmp_path, {"system": "s", "prompt": "p", "completion": "c"}).examples[0]
    assert example.messages == ({"role": "system", "content": "s"}, {"role": "user", "content": "p"})


def test_given_columns_are_read_alone(tmp_path):
    row = {"context": "c", "question": "q", "answers": ["a"], "note": "n"}
    dataset = read(tmp_path, row, prompt_column="question", answer_column="note")
    assert (dataset.format, dataset.examples[0].prompt, dataset.examples[0].answers) == (
        "question,note",
        "q",
        ("n",),
    )
    assert read(tmp_path, row, answer_column="note").format == "context,question,note"
    assert read(tmp_path, row, prompt_column="note").format == "note,answers"


def turn(role: str, content: object, **more) -> dict:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("turns", "context", "answer"),
    [
        ([turn("user", "q"), turn("assistant", "a")], ["q"], "a"),
        ([turn("developer", "s"), turn("user", "q"), turn("assistant", "a")], ["s", "q"], "a"),
        (
            [turn("user", "q"), turn("assistant", "a"), turn("user", "r"), turn("assistant", "b")],
            ["q", "a", "r"],
            "b",
        ),
        ([turn("user", "q"), turn("assistant", "a"), turn("user", "thanks")], ["q"], "a"),
        (
            [turn("user", "q"), turn("assistant", "a"), turn("user", "r"), turn("assistant", "b", weight=0)],
            ["q"],
            "a",
        ),
        ([turn("user", [{"type": "text", "text": "q"}]), turn("assistant", "a")], ["q"], "a"),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], ["q"], "a"),
    ],
)
def test_conversations_end_with_the_last_answer_to_learn(tmp_path, turns, context, answer):
    dataset = read(tmp_path, {"messages": turns})
    example = dataset.examples[-1]
    assert dataset.format == "messages" and example.messages[-1]["role"] == "user"
    assert [message["content"] for message in example.messages] == context and example.answers == (answer,)


def test_conversations_of_weight_0_are_skipped_and_counted(tmp_path):
    quiet = {"messages": [turn("user", "q"), turn("assistant", "a", weight=0)]}
    dataset = read(tmp_path, quiet, {"messages": [turn("user", "q"), turn("assistant", "a")]})
    assert (len(dataset.examples), dataset.skipped) == (1, 1)
    assert "weight 0" in refusal(write(tmp_path / "train.jsonl", [quiet]))


@pytest.mark.parametrize(
    ("turns", "what"),
    [
        ([], "is not a list of messages"),
        ([turn("user", "q")], "no assistant turn"),
        ([turn("assistant", "a")], "does not follow a user turn"),
        ([turn("user", "q"), turn("assistant", " ")], "last assistant turn is empty"),
        ([turn("user", ""), turn("assistant", "a")], "last user turn is empty"),
        ([turn("user", "q"), turn("assistant", None, tool_calls=[{}])], "a tool call has no name"),
        ([turn("bot", "q"), turn("assistant", "a")], "role 'bot'"),
    ],
)
def test_broken_conversations_are_refused(tmp_path, turns, what):
    good = {"messages": [turn("user", "q"), turn("assistant", "a")]}
    text = refusal(write(tmp_path / "train.jsonl", [good, {"messages": turns}]))
    assert text.startswith("train.jsonl:2: ") and what in text


def test_byte_order_mark_crlf_and_blank_lines_are_fine(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes('\ufeff{"text": "é\u2028", "label": "l"}\r\n\r\n{"text": "u", "label": "m"}'.encode())
    examples = formats.load(path).examples
    assert [(e.prompt, e.answer, e.where) for e in examples] == [
        ("é\u2028", "l", "train.jsonl:1"),
        ("u", "m", "train.jsonl:3"),
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_tables_are_read_with_the_line_each_row_starts_on(tmp_path, newline, name, separator):
    lines = ["text{0}label", '"two', 'lines{0}""quoted"""{0}l', "u{0}m"]
    path = tmp_path / name
    path.write_bytes(("\ufeff" + newline.join(lines).format(separator) + newline).encode())
    dataset = formats.load(path)
    assert dataset.format == "text,label"
    assert [(e.prompt, e.answer, e.where) for e in dataset.examples] == [
        (f'two\nlines{separator}"quoted"', "l", f"{name}:2"),
        ("u", "m", f"{name}:4"),
    ]


def test_answers_keep_the_indentation_of_code(tmp_path):
    (example,) = read(tmp_path, {"prompt": "p", "completion": "\n    a = 1\n    b = 2\n"}).examples
    assert example.answer == "    a = 1\n    b = 2"


# Wrong files: each one line with file, line and next step.


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("none.jsonl", None, ["none.jsonl: no such file", "check the path"]),
        ("a.jsonl", b"", ["a.jsonl: the file is empty"]),
        ("a.jsonl", b"\xef\xbb\xbf \r\n", ["a.jsonl: the file is empty"]),
        ("a.csv", b"text,label\n", ["a.csv: the file has a header and no rows"]),
        ("a.jsonl", b'{"text": "t", "label": "l"}\n' * 16 + b"{text\n", ["a.jsonl:17: not JSON", "column 2"]),
        ("a.jsonl", b"{}\n[1]\n", ["a.jsonl:2: an array, not a JSON object"]),
        ("a.jsonl", b'[\n{"text": "t"}\n]', ["a.jsonl:1: not JSON", "(and 1 more: line 3)", "not one array"]),
        ("a.jsonl", b'{\n"text": "t"\n}\n{\n"text": ""}', ["a.jsonl:1: one object spans lines 1 to 3; write one"]),
        ("a.jsonl", b"[" * 100_000, ["a.jsonl:1: not JSON"]),
        ("a.jsonl", b"1" * 5000, ["a.jsonl:1: not JSON"]),
        ("a.jsonl", b'{"text": "t", "label": "l"}\n{"text": "\xe9"}', ["a.jsonl:2: byte 0xE9 is not UTF-8"]),
        ("a.jsonl", '{"text": "t"}'.encode("utf-16"), ["a.jsonl:1: byte 0xFF is not UTF-8", "save the file"]),
        ("a.csv", b"text,label\nt,l\nu\nv,m,n\n", ["a.csv:3: 1 fields where the header has 2", "line 4"]),
        ("a.csv", b'text,label\n"t" x,l\n', ["a.csv:2: not a table"]),
        ("a.csv", b'text,label\nt,l\n"u,m\nv,n\n', ["a.csv:3: not a table"]),
        ("a.csv", b"text,,label\nt,u,l\n", ["a.csv:1: a column has no name", "name each column"]),
        ("a.csv", b"text,text\nt,u\n", ["a.csv:1: two columns have the same name"]),
        ("a.csv", b"I lost my card,lost_card\nWhere is it,arrival\n", ["among I lost", "the first line"]),
        ("a.xls", b"PK", ["a.xls: .xls is not supported", ".csv or .tsv (also with .gz), .xlsx or .parquet"]),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_in_one_line(tmp_path, name, content, parts):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    text = refusal(path)
    for part in parts:
        assert part in text


def test_a_folder_is_not_a_file(tmp_path):
    assert "is a folder" in refusal(tmp_path)


def test_rows_without_answer_are_named_all_at_once(tmp_path):
    rows = [{"text": f"t{n}", "label": "l"} for n in range(20)]
    for n in (16, *range(3, 10)):
        rows[n]["label"] = ["", None, " "][n % 3]
    text = refusal(write(tmp_path / "a.jsonl", rows))
    assert text.startswith("a.jsonl:4: the row has no 'label' (and 7 more: lines 5, 6, 7, 8, 9, …)")
    del rows[16]["label"]
    assert text == refusal(write(tmp_path / "a.jsonl", rows))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"text": "", "label": "l"}, "the row has no 'text'"),
        ({"text": ["t"], "label": "l"}, "'text' is an array, not text"),
        ({"text": "t", "label": {"a": 1}}, "'label' is an object, not text"),
        ({"text": "t", "label": ["a", "b"]}, "several labels"),
        ({"text": "\ud800", "label": "l"}, "surrogate"),
        ({"text": "t", "label": "l", "slice": ["a"]}, "'slice' is an array"),
    ],
)
def test_broken_rows_are_refused(tmp_path, row, what):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "t", "label": "l"}) + "\n" + json.dumps(row))
    text = refusal(path)
    assert text.startswith("a.jsonl:2: ") and what in text


def test_a_column_alone_has_the_separator_that_leaves_it_one(tmp_path):
    path = tmp_path / "a.csv"
    for text in ('text\none, two\n"three; four"\n', 'text\n"one, two"\nthree; four\n'):
        path.write_text(text)
        rows = formats.load(path, answers_required=False).examples
        assert [row.prompt for row in rows] == ["one, two", "three; four"]
    path.write_text("text\none, two\nthree; four\n")
    assert refusal(path).startswith("a.csv:2: 2 fields where the header has 1")


@pytest.mark.parametrize(
    ("row", "options", "parts"),
    [
        ({"text": "t", "label": "l"}, {"prompt_column": "txt"}, ["no column 'txt'; columns: text, label"]),
        ({"text": "t", "label": "l"}, {"answer_column": "lable"}, ["no column 'lable'; columns: text"]),
        ({"text": "t"}, {"prompt_column": "text", "answer_column": "text"}, ["prompt and as the answer"]),
        ({"a": "t", "b": "l"}, {}, ["no prompt and no answer column is recognised among a, b", "--prompt"]),
        ({"text": "t", "to": "l", "by": "m"}, {}, ["no answer column is recognised among text, to, by"]),
        ({"key": "t", "two": "u", "label": "l"}, {}, ["no prompt column is recognised among key, two, label"]),
        ({"sentence": "t", "body": "u", "answer": "l"}, {}, ["no two of the columns sentence, body, answer"]),
        ({"text": "t", "label": "l", "answer": "a"}, {}, ["as text,label or text,answer", "--answer-column"]),
        ({"question": "q", "answer": "a", "answers": ["a"]}, {}, ["question,answer or question,answers"]),
        ({"prompt": "p", "completion": "c", "messages": []}, {}, ["prompt,completion or messages"]),
        ({"question": "q", "choices": ["a", "b"], "answer": 0}, {}, ["a.jsonl:1: multiple-choice rows"]),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, {}, ["'chosen' and 'rejected' are the same answer"]),
        ({"prompt": "q", "chosen": "a", "rejected": ""}, {}, ["the row has no 'rejected'"]),
        ({"chosen": "a", "rejected": "b"}, {}, ["'chosen' is no conversation, and there is no column of prompts"]),
        ({"prompt": [{"role": "user", "content": "q"}], "completion": [], "label": True}, {}, ["no 'completion'"]),
        ({"prompt": "q", "response": "", "label": "True"}, {}, ["the row has no 'response'"]),
    ],
)  # fmt: skip
def test_unclear_columns_are_asked_for(tmp_path, row, options, parts):
    text = refusal(write(tmp_path / "a.jsonl", [row]), **options)
    assert text.startswith("a.jsonl")
    for part in parts:
        assert part in text


def test_a_label_of_another_kind_beside_a_completion_is_no_judgement(tmp_path):
    rows = [{"prompt": "q", "completion": "a", "label": value} for value in (True, "billing", None, [])]
    assert formats.load(write(tmp_path / "a.jsonl", rows)).unused_columns == ("label",)


def test_prompts_alone_are_enough_where_answers_are_not_required(tmp_path):
    (example,) = read(tmp_path, {"question": "q", "id": 1}, answers_required=False).examples
    assert (example.prompt, example.answers) == ("q", ())
    (example,) = read(tmp_path, {"messages": [turn("user", "q")]}, answers_required=False).examples
    assert (example.prompt, example.answers) == ("q", ())
    dataset = read(tmp_path, {"text": "t", "label": "l"}, {"text": "u"}, answers_required=False)
    assert [example.answers for example in dataset.examples] == [("l",), ()]
    assert read(tmp_path, {"a": "q"}, answers_required=False).format == "a"
    path = write(tmp_path / "a.jsonl", [{"a": "q", "b": "r"}])
    assert "no prompt column is recognised" in refusal(path, answers_required=False)


# Folders


def test_a_folder_gives_rows_and_settings(tmp_path):
    write(tmp_path / "train.jsonl", [{"text": "t", "kind": "l"}])
    write(tmp_path / "valid.jsonl", [{"text": "v", "kind": "l"}])
    (tmp_path / "test.csv").write_text("text,kind\nu,m\n")
    (tmp_path / "riyaz.toml").write_text('answer_column = "kind"\nbudget = "5m"\n')
    folder = formats.open_data(tmp_path)
    assert folder.train.format == "text,kind" and folder.test is not None
    assert folder.test.examples[0].answer == "m" and folder.unused == ("valid.jsonl",)
    assert folder.settings == {"answer_column": "kind", "budget": 300}
    other = formats.open_data(tmp_path, test=tmp_path / "valid.jsonl", answer_column="text", prompt_column="kind")
    assert other.test is not None and other.test.examples[0].prompt == "l" and other.unused == ("test.csv",)


def test_a_file_may_come_with_a_test_file(tmp_path):
    train = write(tmp_path / "rows.jsonl", [{"text": "t", "label": "l"}])
    assert formats.open_data(train).test is None
    data = formats.open_data(train, test=write(tmp_path / "other.jsonl", [{"text": "u", "label": "l"}]))
    assert data.test is not None and data.test.examples[0].prompt == "u"


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([], "put train.jsonl there"),
        (["faq.jsonl"], "name one of its files (faq.jsonl)"),
        (["train.csv", "train.jsonl"], "train.jsonl and train.csv are both in this folder"),
    ],
)
def test_a_folder_without_one_training_file_is_refused(tmp_path, files, what):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(RiyazError) as error:
        formats.open_data(tmp_path)
    assert what in str(error.value)


def test_an_unknown_setting_of_a_folder_is_refused(tmp_path):
    write(tmp_path / "train.jsonl", [{"text": "t", "label": "l"}])
    (tmp_path / "riyaz.toml").write_text("sed = 1\n")
    with pytest.raises(RiyazError, match="unknown key 'sed'"):
        formats.open_data(tmp_path)
