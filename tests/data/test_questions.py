"""Typed questions as data: what a file of them may hold, and how the rows that answer them are read."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_comparison import command

from riyaz.data import Dataset, formats, task
from riyaz.data.questions import (
    TRUE_FALSE,
    Choice,
    Question,
    answer_places,
    answers_text,
    question_of,
    questions_of,
    read_questions,
)
from riyaz.errors import RiyazError

URGENT = {"name": "urgent", "type": "predicate", "instructions": "Is it urgent?"}
TEAM = {"name": "team", "type": "choice", "instructions": "Who answers?",
        "choices": [{"value": "billing", "description": "invoices"}, {"value": "support"}]}  # fmt: skip
MOOD = {"name": "mood", "type": "score", "instructions": "How content is the writer?",
        "levels": [{"label": "1"}, {"label": "2"}, {"label": "3"}]}  # fmt: skip
ASKED = [URGENT, TEAM, MOOD]


def choice(*values: str | bool) -> dict[str, Any]:
    return TEAM | {"choices": [{"value": value} for value in values]}


def parsed(*entries: Any) -> tuple[Question, ...]:
    return questions_of(entries, "q.json")


# a file of questions


def test_a_file_of_questions_is_read_and_written_alike(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    path.write_text(json.dumps({"questions": [*ASKED[:2], MOOD | {"column": "feeling"}]}))
    urgent, team, mood = read_questions(path)
    assert urgent == Question("urgent", "predicate", "Is it urgent?", TRUE_FALSE)
    assert team.choices == (Choice("billing", "invoices"), Choice("support"))
    assert (mood.type, mood.labels, mood.column) == ("score", ("1", "2", "3"), "feeling")
    assert [question.document() for question in (urgent, team)] == ASKED[:2]
    assert questions_of([question.document() for question in (urgent, team, mood)], "again") == (urgent, team, mood)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "q.json: has 0 questions; give 1 to 400"),
        ([URGENT | {"name": f"n{n}"} for n in range(401)], "q.json: has 401 questions"),
        (["urgent"], "q.json: questions.0: is 'urgent', not an object"),
        ([URGENT, URGENT | {"instructions": "again"}], "q.json: has the name 'urgent' twice"),
        ([URGENT | {"column": "c"}, TEAM | {"column": "c"}], "q.json: has the column 'c' twice"),
        ([URGENT, TEAM | {"name": ""}], "q.json: questions.1: has no name"),
        ([URGENT | {"name": 3}], "q.json: questions.0.name: is 3, not a text"),
        ([URGENT | {"type": "rating"}], "q.json: questions.0.type: is 'rating'; choose one of predicate, choice"),
        ([URGENT | {"type": ["score"]}], "q.json: questions.0.type: is"),
        ([URGENT | {"instructions": "  "}], "q.json: questions.0.instructions: is missing or empty"),
        ([URGENT | {"instructions": "a" * 20000}], "q.json: questions.0.instructions: has 20,000 characters"),
        ([URGENT | {"choices": []}], "q.json: questions.0: has the unknown member 'choices'"),
        ([TEAM | {"levels": []}], "q.json: questions.0: has the unknown member 'levels'"),
        ([URGENT, choice("a")], "q.json: questions.1.choices: has 1 choices; give 2 to 255"),
        ([choice(*map(str, range(256)))], "q.json: questions.0.choices: has 256 choices"),
        ([choice("a", "b", "a")], "q.json: questions.0.choices: has the value 'a' twice"),
        ([choice(True, False, True)], "q.json: questions.0.choices: has the value True twice"),
        ([choice("a", " ")], "q.json: questions.0.choices.1.value: is empty"),
        ([choice("a", "b" * 1001)], "q.json: questions.0.choices.1.value: is empty or longer than 1000"),
        ([TEAM | {"choices": "ab"}], "q.json: questions.0.choices: is 'ab', not a list"),
        ([TEAM | {"choices": [{"value": 1}, {"value": "b"}]}], "q.json: questions.0.choices.0: has no value"),
        ([TEAM | {"choices": [{"value": "a", "label": "b"}, {"value": "b"}]}], "choices.0: has the unknown member"),
        ([MOOD | {"levels": [{"label": "1"}, {"label": "1"}]}], "q.json: questions.0.levels: has the label '1' twice"),
        ([MOOD | {"levels": [{"label": "1"}, {"label": True}]}], "q.json: questions.0.levels.1: has no label"),
        ([MOOD | {"levels": [{"label": "1"}, {"label": "2", "description": 2}]}], "levels.1.description: is 2, not a"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_in_one_line(entries: list[Any], said: str) -> None:
    with pytest.raises(RiyazError) as refused:
        questions_of(entries, "q.json")
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ('{"questions": [NaN]}', "NaN is no JSON"),
        ("[]", "has no list `questions`"),
        ('{"questions": {}}', "has no list `questions`"),
        ("[" * 100_000, "is not JSON"),
        (b"\xff\xfe{", "is not UTF-8"),
        (None, "no such file"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused_by_name(tmp_path: Path, text: str | bytes | None, said: str) -> None:
    path = tmp_path / "questions.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RiyazError) as refused:
        read_questions(path)
    assert str(refused.value).startswith(str(path)) and said in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(RiyazError, match=r"cannot be read|no such|is a"):
        read_questions(tmp_path)


def test_as_many_as_may_be_are_read() -> None:
    assert len(parsed(*(URGENT | {"name": f"n{n}"} for n in range(400)))) == 400
    assert len(parsed(choice(*map(str, range(255))))[0].choices) == 255


# a question and its cells


def test_a_text_and_a_boolean_are_two_choices() -> None:
    (both,) = parsed(choice("true", True, "x"))
    assert both.labels == ("true", "true", "x") and both.keys == ('"true"', "true", '"x"')
    assert (both.place("true"), both.place(True), both.place(" x ")) == (0, 1, 2)
    (boolean,) = parsed(choice(True, False))
    assert boolean.keys == ("true", "false") and boolean.place("true") == boolean.place(True) == 0
    (written,) = parsed(choice("true", "false"))
    assert written.place(False) == 1 and not written.agrees(boolean)


def test_cells_name_choices() -> None:
    urgent, team, mood = parsed(*ASKED)
    for cells, place in (((" Yes", "TRUE", "1", "1.0", True), 0), (("no\n", "False", "0", "0.0", False), 1)):
        assert [urgent.place(cell) for cell in cells] == [place] * 5
    assert urgent.place("maybe") is urgent.place("") is team.place("Billing") is mood.place("4") is None
    assert team.place("\tsupport ") == 1
    assert (mood.place("2"), mood.place("2.0"), mood.place("2.5")) == (1, 1, None)


def test_questions_agree_by_name_type_and_choices() -> None:
    (asked,) = parsed(choice("a", "b"))
    assert asked.agrees(question_of(choice("b", "a") | {"instructions": "Else?"}, "x")), "in any order"
    assert asked.agrees(question_of(choice("a", "b") | {"name": ""}, "x")), "a question without a name"
    for other in (choice("a", "b") | {"name": "other"}, choice("a", "c"), choice("a", "b", "c"), URGENT):
        assert not asked.agrees(question_of(other, "x"))
    turned = MOOD | {"levels": MOOD["levels"][::-1]}
    assert not parsed(MOOD)[0].agrees(parsed(turned)[0]), "levels have an order"


def test_the_answers_of_a_row_are_a_text_and_come_back() -> None:
    questions = parsed(URGENT, choice("true", True, "ü\n") | {"name": "team"}, MOOD)
    for places in ((0, 1, 2), (1, 0, None), (None, None, 0), (None, 2, None)):
        text = answers_text(questions, places)
        assert answer_places(questions, text) == places
    assert json.loads(answers_text(questions, (0, 1, None))) == {"urgent": True, "team": True}
    for text in ("", "7", '{"mood": "9"}', '{"urgent": "true"}', '{"mood": [1]}'):
        with pytest.raises(RiyazError, match="does not answer the questions"):
            answer_places(questions, text)


# rows


def rows_file(path: Path, *columns: str, rows: int = 12, change: dict[str, list[Any]] | None = None) -> Path:
    """JSON lines with these columns, of which `change` replaces some values."""
    values = {"urgent": ["yes", "no"], "team": ["billing", "support"], "mood": ["1", "2", "3"]} | (change or {})
    lines = [
        {"text": f"the card of customer {n}"} | {name: values[name][n % len(values[name])] for name in columns}
        for n in range(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def answers(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(example.answer) for example in dataset.examples]


def test_every_row_answers_the_questions(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "rows.jsonl", "urgent", "team", "mood")
    dataset = formats.load(path, questions=ASKED)
    assert dataset.format == "text,urgent,team,mood" and not dataset.notes and not dataset.unused_columns
    assert answers(dataset)[:2] == [{"urgent": True, "team": "billing", "mood": "1"},
                                    {"urgent": False, "team": "support", "mood": "2"}]  # fmt: skip
    found = task.detect(dataset)
    assert (found.kind, found.metric, found.labels, found.choices) == ("questions", "decisions", (), 7)
    assert found.instruction == "Is it urgent? Who answers? How content is the writer?"
    assert [question.column for question in found.questions] == ["urgent", "team", "mood"]


def test_missing_answers_are_counted_and_rows_without_any_left_out(tmp_path: Path) -> None:
    nan = math.nan
    change: dict[str, list[Any]] = {"urgent": [True, None, 0, ""], "team": ["billing", None, "support", None],
                                    "mood": [1, nan, 2.0, nan]}  # fmt: skip
    dataset = formats.load(rows_file(tmp_path / "r.jsonl", *change, change=change), questions=ASKED)
    assert len(dataset.examples) == 6 and dataset.incomplete == 6
    assert answers(dataset)[:2] == [{"urgent": True, "team": "billing", "mood": "1"},
                                    {"urgent": False, "team": "support", "mood": "2"}]  # fmt: skip
    change["urgent"] = ["no"]
    dataset = formats.load(rows_file(tmp_path / "r.jsonl", *change, change=change), questions=ASKED)
    assert [note.partition(" have")[0] for note in dataset.notes] == ["r.jsonl: 6 of 12 rows"] * 2
    with pytest.raises(RiyazError, match="only the answer 'false' to the question 'urgent'"):
        task.detect(dataset)
    change["urgent"] = [None]
    dataset = formats.load(rows_file(tmp_path / "r.jsonl", *change, change=change), questions=ASKED)
    with pytest.raises(RiyazError, match="no answer to the question 'urgent'"):
        task.detect(dataset)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"team": ["billing", "sales", "support"]}, "r.jsonl:2: 'team' holds 'sales', which is none of the choices"),
        ({"mood": ["1", ["2"]]}, "r.jsonl:2: 'mood' is an array, not text"),
        ({"team": ["a", "b"]}, "r.jsonl: the column 'team' holds none of the choices of the question 'team'"),
        ({"urgent": ["nan", "true"]}, "r.jsonl:1: 'urgent' holds 'nan'"),
    ],
)
def test_a_cell_that_is_no_choice_is_refused(tmp_path: Path, change: dict[str, list[Any]], said: str) -> None:
    path = rows_file(tmp_path / "r.jsonl", "urgent", "team", "mood", change=change)
    with pytest.raises(RiyazError) as refused:
        formats.load(path, questions=ASKED)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_what_does_not_go_with_questions_is_refused(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "r.jsonl", "urgent", "team")
    for options, said in (
        ({"questions": ASKED}, "there is no column 'mood' for the question 'mood'; name its column as `column`"),
        ({"questions": ASKED[:2], "answer_column": "team"}, "--answer-column"),
        ({"questions": ASKED[:2], "prompt_column": "team"}, "'team' is given as the prompt and holds the answers"),
    ):
        with pytest.raises(RiyazError, match=said):
            formats.load(path, **options)
    dataset = formats.load(path, questions=ASKED[:2])
    with pytest.raises(RiyazError, match="accuracy does not score typed questions"):
        task.detect(dataset, metric="accuracy")
    with pytest.raises(RiyazError, match="--task"):
        task.detect(dataset, kind="closed")
    with pytest.raises(RiyazError, match="--merge-labels"):
        task.detect(formats.load(rows_file(tmp_path / "m.jsonl", "team"), questions=[TEAM], merge_labels=True))


def test_the_answers_columns_are_no_part_of_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("text,label,intent\n" + "".join(f"card {n},{'ab'[n % 2]},{'xy'[n % 2]}\n" for n in range(12)))
    asked = [choice("a", "b") | {"name": "l", "column": "label"}, choice("x", "y") | {"name": "i", "column": "intent"}]
    assert formats.load(path, questions=asked).format == "text,label,intent", "two columns of labels"
    assert formats.load(path, questions=asked[:1]).format == "text,label"
    path.write_text("question,answer,passage,system\n" + "".join(f"what {n},z,{'ab'[n % 2]},x\n" for n in range(12)))
    dataset = formats.load(path, questions=[choice("a", "b") | {"name": "passage"}])
    assert dataset.examples[0].messages[1:] == ({"role": "user", "content": "what 0"},), "without its answer"
    dataset = formats.load(path, questions=[choice("x", "y") | {"name": "system"}])
    assert [turn["role"] for turn in dataset.examples[0].messages] == ["user"]


def test_a_conversation_is_asked_about(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
             {"role": "user", "content": "my card!"}]  # fmt: skip
    lines = [{"messages": turns, "system": "Bank.", "urgent": bool(n % 2)} for n in range(6)]
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = formats.load(path, questions=[URGENT])
    assert list(dataset.examples[0].messages) == [{"role": "system", "content": "Bank."}, *turns]
    assert answers(dataset) == [{"urgent": bool(n % 2)} for n in range(6)]


def test_other_files_are_read_like_the_training_rows(tmp_path: Path) -> None:
    train = formats.load(rows_file(tmp_path / "train.jsonl", "urgent", "team", "mood"), questions=ASKED)
    test = formats.load(rows_file(tmp_path / "test.jsonl", "mood", "urgent", "team"), like=train.reading)
    assert test.reading == train.reading and answers(test) == answers(train)
    bare = rows_file(tmp_path / "bare.jsonl", "team", change={"team": ["support", "nobody"]})
    new = formats.load(bare, like=train.reading, answers_required=False)
    assert [example.answers for example in new.examples[:2]] == [('{"team": "support"}',), ()] and not new.notes
    with pytest.raises(RiyazError, match="no column 'urgent'"):
        formats.load(bare, like=train.reading)


@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_names_its_questions(tmp_path: Path, inside: bool) -> None:
    rows_file(tmp_path / "train.jsonl", "urgent", "team")
    rows_file(tmp_path / "test.jsonl", "urgent", "team")
    (tmp_path / "questions.json").write_text(json.dumps({"questions": ASKED[:2]}))
    tables = "[[questions]]\nname = 'urgent'\ntype = 'predicate'\ninstructions = 'Is it urgent?'\n"
    (tmp_path / "riyaz.toml").write_text(tables if inside else 'questions = "questions.json"\n')
    folder = formats.load_folder(tmp_path)
    assert folder.train.format == ("text,urgent" if inside else "text,urgent,team")
    assert folder.test is not None and folder.test.reading == folder.train.reading


def test_wrong_tables_of_a_folder_are_refused(tmp_path: Path) -> None:
    rows_file(tmp_path / "train.jsonl", "urgent")
    for settings, said in (
        ("questions = 3", "questions"), ("questions = []", "riyaz.toml: has 0 questions"),
        ("[[questions]]\nname = 'urgent'", "riyaz.toml: questions.0.type"),
        ("[questions]\nname = 'urgent'", "questions"), ('questions = "gone.json"', "gone.json: no such file"),
    ):  # fmt: skip
        (tmp_path / "riyaz.toml").write_text(settings)
        with pytest.raises(RiyazError) as refused:
            formats.load_folder(tmp_path)
        assert said in str(refused.value) and "\n" not in str(refused.value)


def test_the_command_shows_how_questions_are_read(tmp_path: Path) -> None:
    path, asked = rows_file(tmp_path / "r.jsonl", "urgent", "team", rows=40), tmp_path / "q.json"
    asked.write_text(json.dumps({"questions": ASKED[:2]}))
    told = command("data", path, "--questions", asked, "--json")
    assert told.status == 0 and told.document["format"] == "text,urgent,team"
    assert (told.document["task"]["kind"], told.document["task"]["metric"]) == ("questions", "decisions")
    asked.write_text(json.dumps({"questions": []}))
    told = command("data", path, "--questions", asked)
    assert told.status == 2 and "q.json: has 0 questions" in told.err and "Traceback" not in told.err
