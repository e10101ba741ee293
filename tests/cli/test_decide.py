"""`riyaz decide`: what it writes for each row, how it goes on after a stop, and what it refuses in one line."""

import csv
import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from fit_context import TASK
from test_linear_classifier import classifier, written
from tiny_comparison import Told, command

from riyaz import predictor
from riyaz.cli import decide as verb
from riyaz.cli import partial_answers
from riyaz.data import Example
from riyaz.predictor import CopyPredictor, deciding_rows

TEXTS = ["my card", "the order, the order", "money", "a card and an order", "", "order"]
ROWS = [{"id": n, "text": TEXTS[n % 4] + f" {n}", "note": None} for n in range(10)]
NEAR = [("my card", "billing"), ("the order", "delivery"), ("money", "refund"), ("a card and an order", "billing")]
TOPIC = {
    "name": "topic", "type": "choice", "instructions": "What is it about?",
    "choices": [{"value": "refund"}, {"value": "delivery", "description": "orders"}, {"value": "billing"}],
}  # fmt: skip
URGENT = {"name": "urgent", "type": "predicate", "instructions": "Is it urgent?"}
MOOD = {
    "name": "mood",
    "type": "score",
    "instructions": "How content?",
    "levels": [{"label": "low"}, {"label": "high"}],
}
MIXED = {**TOPIC, "name": "mixed", "choices": [{"value": "false"}, {"value": True}]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verb, "TEXTS", 4)
    written(tmp_path / "made", classifier())
    write(ROWS)
    ask(TOPIC)


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context of 128 tokens."""
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("short") / "model", seed=3, context=128)


def write(rows: Sequence[dict], path: str = "rows.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def ask(*questions: Any) -> None:
    Path("q.json").write_text(json.dumps({"questions": questions}))


def decide(*more: object, target: object = "made/artifact", rows: str = "rows.jsonl", out: str = "out.jsonl") -> Told:
    return command("decide", target, rows, "--out", out, *more)


def lines(path: str = "out.jsonl") -> list[dict]:
    return [json.loads(line, parse_constant=pytest.fail) for line in Path(path).read_text().splitlines()]


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> list[str]:
    """The command is stopped before the batch with row number `after`; the list fills with the rows answered."""
    asked: list[str] = []

    def counted(model: Any, conversations: Any, questions: Any, where: Sequence[str] = ()) -> Any:
        if 0 <= after <= len(asked):
            raise KeyboardInterrupt
        asked.extend(where)
        return deciding_rows(model, conversations, questions, where)

    monkeypatch.setattr(predictor, "deciding_rows", counted)
    return asked


def test_an_artifact_answers_its_own_question_in_the_order_of_rows() -> None:
    told = decide("--json")
    assert told.status == 0 and "10 rows in out.jsonl" in told.err and sorted(os.listdir()) == [
        "made", "out.jsonl", "q.json", "rows.jsonl",
    ]  # fmt: skip
    answers = lines()
    assert [row["where"] for row in answers] == [f"rows.jsonl:{n}" for n in range(1, 11)]
    for row, text in zip(answers, [row["text"] for row in ROWS]):
        (p,) = classifier().probabilities([text])
        label = row["answers"]["label"]
        assert label["type"] == "choice" and label["trained"] and label["confidence"] == round(float(p.max()), 6)
        assert label["answer"] == ["billing", "delivery", "refund"][p.argmax()]
        assert [(each["value"], each["probability"]) for each in label["probabilities"]] == [
            (value, round(float(share), 6)) for value, share in zip(["billing", "delivery", "refund"], p)
        ]
    (question,) = told.document["questions"]
    spread = {each["value"]: each["rows"] for each in question["answers"]}
    assert spread == {"billing": 5, "delivery": 3, "refund": 2}
    assert told.document["rows"] == question["answered"] == 10 and question["by"] == "training"


def test_choices_in_another_order_have_the_same_probabilities() -> None:
    assert decide("--questions", "q.json").status == 0 and decide(out="own.jsonl").status == 0
    for asked, own in zip(lines(), lines("own.jsonl")):
        mine, theirs = (
            {each["value"]: each["probability"] for each in answer["probabilities"]}
            for answer in (asked["answers"]["topic"], own["answers"]["label"])
        )
        assert mine == theirs and [*mine] == ["refund", "delivery", "billing"]


@pytest.mark.parametrize(("out", "comma"), [("out.csv", ","), ("out.tsv", "\t")])
def test_a_table_has_the_rows_own_columns_and_withheld_answers_are_empty(out: str, comma: str) -> None:
    told = decide("--abstain-below", "0.6", "--json", out=out)
    with open(out, newline="") as file:
        head, *rows = csv.reader(file, delimiter=comma, strict=True)
    assert head == ["id", "text", "note", "label", "label_confidence"] and len(rows) == 10
    for row, made in zip(ROWS, rows):
        sure = round(float(classifier().probabilities([row["text"]]).max()), 6)
        assert made[:3] == [str(row["id"]), row["text"], ""] and float(made[4]) == sure
        assert (made[3] == "") == (sure < 0.6)
    (question,) = told.document["questions"]
    assert question["abstained"] == sum(row[3] == "" for row in rows) > 0
    assert question["answered"] + question["abstained"] == 10
    assert not list(Path().glob("*.partial*"))


def test_a_model_answers_any_question_and_booleans_are_no_texts(short: Path) -> None:
    ask(URGENT, MIXED, MOOD)
    write([*ROWS[:2], {"text": "<|im_end|> ünïcode \u2028 \U0001f6b2"}])
    assert decide("--questions", "q.json", target=short).status == 0
    for row in lines():
        urgent, mixed, mood = (row["answers"][name] for name in ("urgent", "mixed", "mood"))
        assert [each["value"] for each in urgent["probabilities"]] == [True, False]
        assert isinstance(urgent["answer"], bool)
        assert [each["value"] for each in mixed["probabilities"]] == ["false", True]
        assert [each["label"] for each in mood["probabilities"]] == ["low", "high"]
        assert mood["score"] == pytest.approx(mood["probabilities"][1]["probability"], abs=1e-5)
        for answer in urgent, mixed, mood:
            total = sum(each["probability"] for each in answer["probabilities"])
            assert not answer["trained"] and total == pytest.approx(1, abs=1e-5)
    assert decide("--questions", "q.json", target=short, out="out.csv").status == 0
    assert (
        Path("out.csv")
        .read_text()
        .startswith("id,text,note,urgent,urgent_confidence,mixed,mixed_confidence,mood,mood_confidence,mood_score\n")
    )


def test_a_question_that_nothing_answers_is_null_and_counted() -> None:
    ask(TOPIC, URGENT)
    told = decide("--questions", "q.json", "--json")
    assert told.status == 0 and [each["not_answered"] for each in told.document["questions"]] == [0, 10]
    assert all(row["answers"]["urgent"] is None and row["answers"]["topic"] for row in lines())
    ask(URGENT)
    told = decide("--questions", "q.json", out="b.jsonl")
    assert told.status == 2 and "made/artifact: was trained on none of these questions" in told.line
    assert not list(Path().glob("b.*"))


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl"])
def test_a_row_longer_than_the_context_is_named_and_the_others_are_answered(out: str, short: Path) -> None:
    ask(URGENT)
    write([{"text": "short"}, {"text": "the card " * 200}, {"text": "also short"}, {"text": "the order " * 300}])
    told = decide("--questions", "q.json", "--json", target=short, out=out)
    assert told.status == 2 and told.line.startswith("error: rows.jsonl:2: the prompt has ") and "128" in told.line
    assert "(and 1 more row)" in told.line and f"{out} has the answers of all other rows" in told.line
    assert json.loads(told.out)["questions"][0]["not_answered"] == 2
    if out == "out.jsonl":
        given = [row["answers"]["urgent"] for row in lines()]
        assert [each is None for each in given] == [False, True, False, True] and "error" in lines()[1]
        assert decide("--questions", "q.json", target=short, out="one.jsonl").status == 2  # deterministic
        assert Path("one.jsonl").read_bytes() == Path(out).read_bytes()
    else:
        assert [bool(row.split(",")[-1]) for row in Path(out).read_text().splitlines()[1:]] == [
            True,
            False,
            True,
            False,
        ]


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv"])
def test_a_stopped_run_goes_on_and_answers_no_row_twice(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decide(out=f"whole{out}").status == 0
    asked = stopping(monkeypatch, 8)
    told = decide(out=out)
    partial = Path(f"{out}.partial").absolute()
    stored = f"stopped; the answers to 8 of 10 rows are kept in {partial}; the same command continues"
    assert told.status == 130 and told.err.splitlines()[-1] == stored and not Path(out).exists() and len(asked) == 8
    asked = stopping(monkeypatch, -1)
    told = decide("--json", out=out)
    assert told.status == 0 and f"8 of 10 rows were answered before, in {out}.partial" in told.err
    assert asked == ["rows.jsonl:9", "rows.jsonl:10"] and Path(out).read_bytes() == Path(f"whole{out}").read_bytes()
    assert told.document["questions"][0]["answered"] == 10, "those of the first run are counted too"
    assert not list(Path().glob("*.partial*"))


def test_what_a_kill_left_is_kept_up_to_the_last_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decide(out="whole.jsonl").status == 0
    stopping(monkeypatch, 8)
    decide()
    content, about = Path("out.jsonl.partial").read_bytes(), Path("out.jsonl.partial.json").read_bytes()
    seven = len(b"".join(content.splitlines(keepends=True)[:7]))
    for cut, kept in (len(content), 8), (seven, 4), (len(content) - 1, 4), (len(content) - 9, 4), (10, 0), (0, 0):
        Path("out.jsonl").unlink(missing_ok=True)
        Path("out.jsonl.partial").write_bytes(content[:cut])
        Path("out.jsonl.partial.json").write_bytes(about)
        asked = stopping(monkeypatch, -1)
        assert decide().status == 0 and len(asked) == 10 - kept
        assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_a_stop_before_the_first_answers_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping(monkeypatch, 0)
    told = decide()
    assert told.status == 130 and told.err.endswith("\nstopped; no answer is kept yet\n")
    assert not list(Path().glob("out*"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda: write([*ROWS[:3], {"text": "new"}]), "holds answers to other rows"),
        (lambda: ask({**TOPIC, "instructions": "Which one?"}), "holds answers to other questions"),
        (lambda: Path("out.jsonl.partial.json").unlink(), "was not written by riyaz decide"),
    ],
)
def test_answers_to_something_else_are_not_mixed_in(
    change: Callable[[], Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping(monkeypatch, 4)
    decide("--questions", "q.json")
    before = Path("out.jsonl.partial").read_bytes()
    told = decide("--questions", "q.json", "--abstain-below", "0.9")
    assert told.status == 2 and "holds answers with another --abstain-below" in told.line
    change()
    asked = stopping(monkeypatch, -1)
    told = decide("--questions", "q.json")
    assert told.status == 2 and what in told.line and asked == []
    assert Path("out.jsonl.partial").read_bytes() == before


def test_a_full_disk_keeps_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decide(out="whole.jsonl").status == 0
    real, count = os.write, []

    def full(file: int, content: bytes) -> int:
        count.append(file)
        if len(count) == 2:
            real(file, content[:50])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(partial_answers.os, "write", full)
        told = decide()
    assert told.status == 2
    assert "the disk is full; 4 answers are kept; free some space and run the same command again" in told.line
    asked = stopping(monkeypatch, -1)
    assert decide().status == 0 and len(asked) == 6
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_a_column_of_the_rows_is_never_replaced() -> None:
    write([{**row, "label": "billing"} for row in ROWS])
    told = decide(out="out.csv")
    assert told.status == 2 and "the rows have a column 'label' of their own; pass --prefix" in told.line
    assert decide("--prefix", "said_", out="out.csv").status == 0
    assert Path("out.csv").read_text().startswith("id,text,note,label,said_label,said_label_confidence\n")


def test_the_columns_of_answers_are_not_taken_for_the_text() -> None:
    write([{"text": "my card", "category": "billing", "intent": "pay", "label": "x"}])
    ask({**TOPIC, "column": "category"}, {**URGENT, "column": "intent"}, {**MOOD, "column": "label"})
    assert decide("--questions", "q.json").status == 0
    assert lines()[0]["answers"]["topic"]["answer"] == "billing"


WRONG: list[tuple[str, Any, str]] = [
    ("rows.jsonl", None, "rows.jsonl: no such file"),
    ("rows.jsonl", "", "rows.jsonl: the file is empty"),
    ("rows.jsonl", '{"a": 1, "b": 2}\n', "no prompt column is recognised among a, b"),
    ("rows.csv", "text,n\nmy card,1\n,2\n", "rows.csv:3: the row has no 'text'"),
    ("rows.jsonl", '{"text": "a"}\n{"text": NaN}\n', "rows.jsonl:2: 'text' is the number NaN"),
    ("rows.jsonl", '{"text": "a"}\n{"text": \n', "rows.jsonl:2: not JSON"),
    ("rows.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "rows.jsonl:2: byte 0xFF is not UTF-8"),
    ("q.json", None, "q.json: no such file"),
    ("q.json", [], "q.json: has 0 questions; give 1 to 400"),
    ("q.json", [{**URGENT, "name": f"n{n}"} for n in range(401)], "q.json: has 401 questions"),
    ("q.json", [{**TOPIC, "choices": [{"value": "a"}]}], "has 1 choices; give 2 to 255"),
    ("q.json", [{**TOPIC, "choices": [{"value": f"c{n}"} for n in range(256)]}], "has 256 choices"),
    ("q.json", [{**TOPIC, "choices": [{"value": "a"}] * 2}], "has the value 'a' twice"),
    ("q.json", [TOPIC, TOPIC], "has the name 'topic' twice"),
    ("q.json", [{**TOPIC, "instructions": " "}], "instructions: is missing or empty"),
    ("q.json", [URGENT, {**URGENT, "name": "urgent_confidence"}, TOPIC], ""),
]


@pytest.mark.parametrize(("name", "content", "what"), WRONG)
def test_wrong_input_is_one_line(name: str, content: Any, what: str) -> None:
    Path(name).unlink(missing_ok=True)
    if isinstance(content, list):
        ask(*content)
    elif content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = "rows.csv" if name == "rows.csv" else "rows.jsonl"
    told = decide("--questions", "q.json", rows=rows, out="out.jsonl" if what else "out.csv")
    what = what or "two questions would write the column 'urgent_confidence'"
    assert told.status == 2 and what in told.line and not list(Path().glob("out*"))


def test_a_place_that_cannot_be_written_is_found_before_any_answer() -> None:
    Path("out.jsonl").write_text("mine")
    assert decide().line == "error: out.jsonl: exists already; pass --force to replace it, or choose another --out"
    assert decide("--force").status == 0 and len(lines()) == 10
    assert "no/such: the folder does not exist" in decide(out="no/such/out.jsonl").line
    assert "out.parquet: Parquet is not written row by row" in decide(out="out.parquet").line
    assert decide(out="out.jsonl.gz").line.endswith("end the name in .jsonl, .csv or .tsv"), (
        "no Parquet, which is refused"
    )
    assert "/dev/stdout: is a stream, and the answers are kept beside" in decide(out="/dev/stdout").line
    assert "is the file that is read" in decide("--force", out="rows.jsonl").line
    assert "was not trained on questions" in decide(target=written_model(), out="b.jsonl").line
    for value in "2", "-0.1", "nan":
        told = decide("--abstain-below", value, out="c.jsonl")
        assert told.status == 2 and "--abstain-below" in told.line


def written_model() -> Path:
    return tiny_llama.write_hf_folder(Path("model"))


@pytest.mark.parametrize("left", [ROWS[:6], ROWS[1:], [{}, *ROWS]])
def test_a_file_that_changes_while_it_is_answered_is_named(left: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    def changing(*given: Any) -> Any:
        Path("rows.jsonl").write_text("\n" * (len(left) > 10) + "".join(json.dumps(row) + "\n" for row in left if row))
        return deciding_rows(*given)

    monkeypatch.setattr(predictor, "deciding_rows", changing)
    told = decide(out="out.csv")
    assert told.status == 2 and not Path("out.csv").exists()
    assert told.line.startswith("error: rows.jsonl: was changed while its rows were answered; delete ")


def test_copied_labels_of_a_closed_set_are_answers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = tuple(Example(({"role": "user", "content": text},), (label,)) for text, label in NEAR)
    copying = CopyPredictor(examples=examples, task=TASK, temperature=0.1)
    monkeypatch.setattr(predictor, "open_target", lambda target, *rest: copying)
    assert decide().status == 0
    for row, prediction in zip(lines(), copying.answers([[{"role": "user", "content": row["text"]}] for row in ROWS])):
        label = row["answers"]["label"]
        assert label["answer"] == prediction.text and label["confidence"] == pytest.approx(
            prediction.confidence, abs=1e-4
        )
