"""Unknown columns: one plain pair is read and said, others are asked for; rows without answers; equal labels."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from refusals import assert_refused
from tiny_comparison import command

from riyaz.data import Reading, formats
from riyaz.data.spellings import label_twins, twins_note
from riyaz.data.split import split
from riyaz.data.task import INSTRUCTION, detect, says_how
from riyaz.errors import RiyazError

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
LONG = [f"where is order {word} of the {other}" for word in WORDS for other in WORDS[:3]]
FEW = [("billing", "delivery", "refund")[n % 3] for n in range(len(LONG))]
IDS = [f"AB {1700 + n}" for n in range(len(LONG))]
CODES = [f"{'QXKP'[n % 4]}{'LMNOPQRSTU'[n // 4]}ZC" for n in range(len(LONG))]
DATES = [f"2026-11-{n % 28 + 1:02}" for n in range(len(LONG))]
WHO = [("Ada", "Grace", "Alan")[n % 3] for n in range(len(LONG))]
OTHER = [f"it is with {word}, and {other} knows" for word in WORDS for other in WORDS[:3]]


def columns(path: Path, **values: list) -> Path:
    """A file of the columns, JSON Lines or CSV by its name."""
    rows = [dict(zip(values, row)) for row in zip(*values.values())]
    if path.suffix == ".csv":
        lines = [";".join(values), *(";".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"a": LONG, "b": FEW}, "a,b"),
        ({"b": FEW, "a": LONG}, "a,b"),
        ({"a": LONG, "b": OTHER}, "a,b"),
        ({"Nr": list(range(36)), "am": ["2026-11-26"] * 36, "a": LONG, "b": FEW}, "a,b"),
        ({"key": [f"T-{n:04}x" for n in range(36)], "a": LONG, "b": FEW}, "a,b"),
        ({"mail": [f"a{n}@b.de" for n in range(36)], "a": LONG, "b": FEW}, "a,b"),
        ({"yes": [True, False] * 18, "a": [7, 8.5, *LONG[2:]], "b": FEW}, "a,b"),
        ({"a": LONG, "b": FEW, "empty": [""] * 30 + LONG[:6]}, "a,b"),
        ({"always": ["the web form"] * 36, "a": LONG, "b": FEW}, "a,b"),
        ({"Antwort": OTHER, "Frage": LONG}, "Frage,Antwort"),
        ({"a": LONG, "class": [n % 2 for n in range(36)]}, "a,class"),
        ({"Text": LONG, "Label": FEW}, "Text,Label"),
        ({"a": ["👍", "👎", "🎉"] * 12, "b": LONG}, "b,a"),
        ({"question": LONG, "context": OTHER, "label": FEW}, "context,question,label"),
        ({"reference": IDS, "ticket": LONG, "department": FEW}, "ticket,department"),
        ({"user": WHO, "request": LONG, "bot": OTHER}, "request,bot"),
        ({"source": LONG, "target": OTHER}, "source,target"),
        ({"ticketId": FEW, "lang": FEW, "language": FEW, "source": FEW, "message": LONG, "b": FEW}, "message,b"),
        ({"reference": [f"ticket {n}" for n in range(36)], "message": LONG, "queue": FEW}, "message,queue"),
        ({"input": LONG, "label": FEW}, "input,label"),
        ({"mr": [f"name[{text}]" for text in LONG], "ref": OTHER}, "mr,ref"),
    ],
)  # fmt: skip
def test_one_plain_pair_is_read_and_said(tmp_path, values, wanted):
    dataset = formats.load(columns(tmp_path / "a.jsonl", **values))
    assert dataset.format == wanted and len(dataset.examples) == 36
    *_, prompt, answer = wanted.split(",")
    named = wanted in ("Frage,Antwort", "Text,Label", "input,label", "mr,ref", "context,question,label")
    said = f"columns guessed from {'their names' if named else 'what they hold'}: {prompt!r} is the prompt"
    assert dataset.notes == (
        f"a.jsonl: {said}, {answer!r} the answer; --prompt-column and --answer-column name others",
    )
    rows = 7 if wanted == "a,b" and "class" not in values else 0
    if rows:  # so few say nothing
        with assert_refused("no prompt and no answer column is recognised"):
            formats.load(columns(tmp_path / "b.jsonl", **{name: column[:rows] for name, column in values.items()}))


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ({"a": LONG, "b": FEW, "c": FEW[::-1]}, "pass --prompt-column a --answer-column b"),
        ({"a": LONG, "b c": OTHER, "d": LONG[::-1]}, "pass --prompt-column a --answer-column 'b c'"),
        ({"sentence1": LONG, "sentence2": OTHER, "label": FEW}, "--prompt-column sentence1 --answer-column label"),
        ({"a": FEW, "b": FEW}, "pass --prompt-column a --answer-column b"),
        ({"class": FEW, "message": LONG, "reply": OTHER}, "--prompt-column message --answer-column class"),
        ({"message": LONG, "reply": OTHER, "notes": OTHER[::-1]}, "--prompt-column message --answer-column reply"),
        (
            {"date": DATES, "author": WHO, "subject": OTHER, "body": [text * 2 for text in LONG]},
            "--prompt-column body --answer-column subject",
        ),
        (
            {"ticket": LONG, "target": ["b2b", "b2c"] * 18, "priority": FEW},
            "--prompt-column ticket --answer-column target",
        ),
        ({"text": LONG, "split": ["train", "train", "test"] * 12}, "pass --prompt-column and --answer-column"),
        (
            {"id": IDS, "country": ["de", "fr", "it"] * 12, "customer_message": LONG, "agent_reply": OTHER},
            "--prompt-column customer_message --answer-column agent_reply",
        ),
        (
            {"agentReply": [text * 2 for text in LONG], "customerMessage": OTHER, "mood": FEW},
            "--prompt-column customerMessage --answer-column agentReply",
        ),
        ({"Frage": LONG, "Antwort": list(range(36)), "Thema": FEW}, "--prompt-column Frage --answer-column Antwort"),
        ({"reply": LONG, "class": FEW}, "pass --prompt-column reply --answer-column class"),
        (
            {"agent_reply": LONG, "customer_message": OTHER},
            "--prompt-column customer_message --answer-column agent_reply",
        ),
        ({"Frage": LONG, "Antwort": CODES}, "--prompt-column Frage --answer-column Antwort"),
        ({"message": LONG, "reference": IDS}, "--prompt-column message --answer-column reference"),
    ],
)
def test_what_is_not_plain_is_asked_for_with_flags_to_paste(tmp_path, values, flags):
    with assert_refused("a.jsonl: no ", "recognised among", flags):
        formats.load(columns(tmp_path / "a.jsonl", **values))


@pytest.mark.parametrize("names", [["where is my order", "x"], ["Where is it?", "x"], ["x", "billing"]])
def test_a_first_row_is_not_taken_for_names(tmp_path, names):
    path = columns(tmp_path / "a.csv", **dict(zip(names, (LONG, FEW))))
    with assert_refused("the first line must name the columns, such as text,label; or pass --prompt-column"):
        formats.load(path)
    assert formats.load(columns(tmp_path / "b.csv", u=LONG, x=FEW)).format == "u,x"


def test_one_given_column_settles_the_other(tmp_path):
    path = columns(tmp_path / "a.jsonl", a=LONG, b=FEW, c=FEW[::-1])
    assert formats.load(path, answer_column="c").format == "a,c"
    path = columns(tmp_path / "a.jsonl", a=LONG, b=OTHER)
    assert formats.load(path, prompt_column="b").format == "b,a"


def test_columns_follow_the_file_that_was_read_before(tmp_path):
    like = Reading("a", "b", encoding="cp1252", skip_incomplete=True)
    path = columns(tmp_path / "a.jsonl", a=LONG, b=OTHER, text=LONG, label=FEW)
    assert formats.load(path).format == "text,label"
    followed = formats.load(path, like=like)
    assert followed.format == "a,b" and not followed.notes and followed.reading == replace(like, encoding=None)
    assert formats.load(path, like=like, prompt_column="text", answer_column="label").format == "text,label"
    assert formats.load(path, like=Reading("a", "gone")).format == "text,label"
    assert formats.load(path, like=Reading("a", "gone"), answers_required=False).format == "a"
    path.write_bytes('{"a": "größer", "b": "é"}\n{"a": "", "b": "x"}\n'.encode("cp1252"))
    read = formats.load(path, like=like)
    assert [(row.prompt, row.answer) for row in read.examples] == [("größer", "é")] and read.incomplete == 1
    with assert_refused("a.jsonl:2: the row has no 'a'"):  # nothing may be missing from what `run` writes
        formats.load(path, like=like, answers_required=False)
    with assert_refused("pass --encoding"):
        formats.load(path, like=Reading("a", "b"))


def test_a_missing_column_beside_the_prompt_is_said(tmp_path):
    like = Reading("question", "answer", before=("passage", "context"))
    path = columns(tmp_path / "a.jsonl", question=LONG, passage=LONG)
    (note,) = formats.load(path, like=like, answers_required=False).notes
    assert note == "a.jsonl: no column 'context', which the prompts of the training rows had"
    (note,) = formats.load(columns(tmp_path / "b.jsonl", question=LONG), like=like, answers_required=False).notes
    assert note.startswith("b.jsonl: no column 'passage' or 'context', which")
    whole = columns(tmp_path / "c.jsonl", question=LONG, passage=LONG, context=LONG)
    assert not formats.load(whole, like=like, answers_required=False).notes


def test_test_rows_are_read_as_training_rows(tmp_path):
    columns(tmp_path / "train.jsonl", a=LONG, b=FEW)
    columns(tmp_path / "test.jsonl", a=LONG[:2], b=FEW[:2])
    assert formats.open_data(tmp_path).test.format == "a,b"
    assert formats.open_data(tmp_path / "train.jsonl", test=tmp_path / "test.jsonl").test.format == "a,b"


MISSING = ['""', "null", '"  "', "NaN"]


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("column", ["text", "label"])
def test_incomplete_rows_are_refused_with_the_flag_and_left_out_with_it(tmp_path, column, missing):
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip(LONG, FEW)]
    rows[3:10] = [json.dumps({"text": "t", "label": "l"} | {column: "?"}).replace('"?"', missing)] * 7
    path.write_text("\n".join(rows))
    what = f"'{column}' is the number NaN, not text" if missing == "NaN" else f"the row has no '{column}'"
    with assert_refused(
        f"a.jsonl:4: {what} (and 6 more: lines 5, 6, ", "correct or remove the rows, or pass --skip-inc"
    ):
        formats.load(path)
    dataset = formats.load(path, skip_incomplete=True)
    assert len(dataset.examples) == 29 and dataset.incomplete == 7
    _, report = split(dataset, None, detect(dataset))
    assert report.rows["incomplete"] == 7
    assert "rows left out because they have no prompt or no answer: 7" in report.notes


def test_only_rows_without_prompt_or_answer_are_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "t", "label": ["a", "b"]}, {"text": "t"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with assert_refused("a.jsonl:1: 'label' holds several labels", "correct or remove the row"):
        formats.load(path, skip_incomplete=True)
    path.write_text('{"text": "t", "label": ""}\n')
    with assert_refused("no row is complete"):
        formats.load(path, skip_incomplete=True)
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]
    rows = [{"messages": turns}, {"messages": turns[:1]}, {"messages": None},
            {"messages": [turns[0], {"role": "assistant", "content": "a"}]}]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert formats.load(path, skip_incomplete=True).incomplete == 3
    path.write_text('{"text": "t", "label": Infinity}\n')
    with assert_refused("a.jsonl:1: 'label' is the number Infinity, not text"):
        formats.load(path)


def test_a_missing_value_in_another_column_is_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"context": NaN, "question": "q", "answer": "a", "slice": NaN, "doc_id": NaN, "system": NaN}\n')
    (example,) = formats.load(path).examples
    assert example.messages == ({"role": "user", "content": "q"},)
    assert example.slice is None and example.doc_ids == ()


def test_the_folders_toml_and_the_flag_skip_too(tmp_path):
    columns(tmp_path / "train.jsonl", text=LONG, label=["", *FEW[1:]])
    with assert_refused("--skip-incomplete"):
        formats.open_data(tmp_path)
    assert formats.open_data(tmp_path, skip_incomplete=True).train.incomplete == 1
    (tmp_path / "riyaz.toml").write_text("skip_incomplete = true\n")
    assert formats.open_data(tmp_path).train.incomplete == 1


TWINS = [
    ("billing", "Billing"), ("refund  desk", "refund desk"), ("caf\u00e9", "cafe\u0301"), ("card", "card\u200b"),
    ("ﬁre", "fire"), ("Straße", "STRASSE"), ("a\u00a0b", "a b"), ("soft\u00adware", "software"),
]  # fmt: skip


@pytest.mark.parametrize("pair", TWINS)
def test_labels_that_differ_by_what_is_not_seen_are_named(tmp_path, pair):
    assert label_twins([*pair, "other"]) == [tuple(sorted(pair))]
    note = twins_note(pair)
    assert note.startswith("labels that differ only by case") and note.isprintable()
    shown = note.split(": ", 1)[1].split("; ")[0].split(" and ")
    assert len(set(shown)) == 2 and {eval_quoted(text) for text in shown} == set(pair)
    if unicodedata.normalize("NFC", pair[0]) == unicodedata.normalize("NFC", pair[1]):
        assert any("\\" in text for text in shown)


def test_the_table_of_labels_shows_what_is_not_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    labels = ["card", "card\u200b", "caf\u00e9", "cafe\u0301", "it's", "\u202edrac"]
    columns(tmp_path / "rows.jsonl", text=[f"where is order {n}?" for n in range(60)], label=labels * 10)
    told = command("data", tmp_path / "rows.jsonl")
    assert told.status == 0, told.err
    table = told.out[told.out.index("labels ") :].splitlines()
    shown = {line[15:].partition(": train")[0] for line in table if ": train" in line}
    assert shown == {"card", "'card\\u200b'", "café", "'cafe\\u0301'", "it's", "'\\u202edrac'"}


def eval_quoted(text: str) -> str:
    """The label of a quoted text with escapes."""
    return text[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")


def test_labels_that_are_seen_to_differ_are_no_twins():
    assert twins_note(["billing", "delivery", "bill-ing", "résumé", "resume"]) == ""
    many = [f"{'Aa'[n % 2]}{n // 2}" for n in range(20)]
    assert "'A4' and 'a4' and 5 more; --merge-labels merges them" in twins_note(many)


def test_the_note_counts_labels_of_test_rows_too(tmp_path):
    train = formats.load(columns(tmp_path / "a.jsonl", text=LONG, label=FEW))
    test = formats.load(columns(tmp_path / "b.jsonl", text=["u", "v"], label=["Billing", "refund"]))
    _, report = split(train, test, detect(train))
    assert any("'Billing' and 'billing'" in note for note in report.notes)


def conversations(path: Path, systems: list[str | None]) -> Path:
    """Messages with these system turns, and a label of three."""
    rows = []
    for n, (system, label) in enumerate(zip(systems, FEW)):
        turns = [{"role": "system", "content": system}] if system else []
        turns += [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": label}]
        rows.append({"messages": turns})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


HOW = "Answer with billing, delivery or refund."


@pytest.mark.parametrize(
    ("systems", "wanted"),
    [
        ([None] * 36, INSTRUCTION["closed"]),
        ([HOW] * 36, HOW),
        ([HOW] * 33 + [None] * 3, HOW),
        ([HOW] * 20 + [None] * 16, INSTRUCTION["closed"]),
        ([f"{HOW} The customer is {n}." for n in range(36)], ""),
        ([HOW] * 35 + ["You are a helpful assistant."], ""),
        (["You are a helpful assistant."] * 36, INSTRUCTION["closed"]),
    ],
)
def test_rows_that_say_how_to_answer_get_no_default_instruction(tmp_path, systems, wanted):
    dataset = formats.load(conversations(tmp_path / "a.jsonl", systems))
    assert detect(dataset).instruction == wanted
    assert detect(dataset, instruction="Sort.").instruction == "Sort."


@pytest.mark.parametrize(
    ("system", "said"),
    [
        ("You are a helpful assistant", False),
        ("You are a helpful AI assistant named SmolLM, trained by Hugging Face", False),
        ("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", False),
        ("You are a helpful, honest assistant.", False), ("<tools>\n{}\n</tools>", False), ("  ", False),
        ("You are a helpful assistant. Answer in one word.", True), ("You sort messages of a bicycle workshop.", True),
        ("You are an assistant that names the intent.", True), ("Reply briefly.\n\n<tools>\n{}\n</tools>", True),
    ],
)  # fmt: skip
def test_a_system_turn_of_a_template_says_nothing(system, said):
    assert says_how(system) is said


def test_a_column_whose_name_is_a_text_is_in_no_command(tmp_path):
    with pytest.raises(RiyazError) as caught:
        formats.load(columns(tmp_path / "a.jsonl", **{"n" * 900: LONG[:7], "b": FEW[:7]}))
    assert "is recognised" in str(caught.value) and len(str(caught.value)) < 600 and "pass" in caught.value.hint
