"""`riyaz run` and its shards hold a few bytes of each row, however many there are, and read rows as `load` does."""

import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from test_run import lines, run, write

from riyaz import predictor
from riyaz.cli import run as verb
from riyaz.cli.partial_answers import row_key
from riyaz.data import Dataset, Example, Reading, streamed_file
from riyaz.data.formats import load
from riyaz.data.questions import Choice, Question
from riyaz.data.row_stream import HEAD, open_rows
from riyaz.errors import RiyazError
from riyaz.json_files import json_line
from riyaz.predictor import Prediction

MOST = 100  # bytes for each further row: 200 MB at two million rows
FEW, MANY = 1_200, 6_200  # of short rows; the first HEAD rows of a file are kept


class Upper:
    """Answers with the question in capitals, and remembers nothing; is stopped after so many chunks."""

    has_model = False

    def __init__(self, chunks: int = -1) -> None:
        self.chunks = chunks

    def answers(self, conversations: Any, where: Any, **_: Any) -> list[Prediction]:
        self.chunks -= 1
        if not self.chunks:
            raise KeyboardInterrupt
        return [Prediction(messages[-1]["content"].upper()) for messages in conversations]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streamed_file, "CHUNK", 2**14)
    monkeypatch.setattr(predictor, "open_target", lambda target, *rest: Upper())
    monkeypatch.setattr(verb, "answerer_of", lambda target, *rest: target)
    monkeypatch.setattr(verb, "target_hash", lambda target: target)


def write_short(count: int) -> None:
    rows = (f'{{"text": "row number {n} of the file", "n": {n}}}\n' for n in range(count))
    Path("rows.jsonl").write_text("".join(rows))


def peak(count: int, out: str, *more: object) -> int:
    """The most bytes that answering so many rows takes."""
    write_short(count)
    tracemalloc.start()
    assert run(out, "--quiet", *more).status == 0
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("more", [(), ("--shard", "1/1")])
def test_memory_does_not_grow_with_the_rows(more: tuple[str, ...]) -> None:
    assert peak(50, "warm.jsonl", *more), "what is imported is not counted below"
    each = (peak(MANY, "many.jsonl", *more) - peak(FEW, "few.jsonl", *more)) / (MANY - FEW)
    assert each < MOST, f"{each:.0f} bytes a row"


def test_memory_does_not_grow_with_the_answers_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    for count in FEW, MANY:
        write_short(count)
        with monkeypatch.context() as patch:
            patch.setattr(predictor, "open_target", lambda target, *rest, count=count: Upper(count // 64))
            assert run(f"{count}.jsonl", "--quiet").status == 130
        peaks.append(peak(count, f"{count}.jsonl"))
        assert len(lines(f"{count}.jsonl")) == count
    each = (peaks[1] - peaks[0]) / (MANY - FEW)
    assert each < MOST, f"{each:.0f} bytes a row"


TEAM = Question("team", "choice", "Who?", (Choice("a"), Choice("b")), "team")
FILES: dict[str, str] = {
    "text.jsonl": '{"text": "a", "label": "x"}\n{"text": "b"}\n',
    "late.jsonl": '{"note": "n", "text": "a"}\n' * (HEAD + 5) + '{"text": "b", "question": "q", "context": "c"}\n',
    "lists.jsonl": '{"text": "a", "label": ["x", "y"]}\n{"text": "b", "label": "x"}\n',
    "chats.jsonl": '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
    "mixed.jsonl": '{"prompt": "a"}\n{"prompt": [{"role": "user", "content": "b"}], "tools": [{"name": "f"}]}\n',
    "beside.csv": "context,question,answer\nc,q,a\n,q2,\n",
    "guessed.csv": "utterance,number\n" + "".join(f"a rather long question number {n},{n}\n" for n in range(9)),
    "empty.jsonl": '{"text": "a"}\n{"text": ""}\n{"text": " "}\n',
    "asked.jsonl": '{"text": "a", "team": "b", "system": "s"}\n{"text": "b", "team": 7}\n',
    "none.jsonl": '{"a": 1, "b": 2}\n',
}
LIKES = (
    None,
    Reading("text", "label"),
    Reading("question", "answer", ("context",)),
    Reading("text", group="note"),
    Reading("text", questions=(TEAM,)),
    Reading("messages", turns="all", called=True),
    Reading("prompt", "chosen", rejected="rejected", spellings=("x",), skip_incomplete=True, checks=("schema",)),
)


def outcome(read: Callable[..., Any], *given: Any, **options: Any) -> object:
    try:
        rows = read(*given, **options)
        examples = rows.examples if isinstance(rows, Dataset) else [example for _, example in rows]
        return [(each.messages, each.where) for each in examples]
    except RiyazError as error:
        return str(error)


@pytest.mark.parametrize("name", FILES)
def test_rows_are_read_as_they_are_whole(name: str) -> None:
    Path(name).write_text(FILES[name])
    for like in LIKES:
        for column in (None, "text"):
            whole = outcome(load, name, prompt_column=column, answers_required=False, like=like)
            streamed = outcome(open_rows, Path(name), prompt_column=column, like=like, read_answers=True)
            assert streamed == whole, (like, column)


@pytest.mark.parametrize("change", ["other", "fewer"])
def test_a_file_that_changes_while_it_is_answered_is_named(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"row {n}"} for n in range(200)]

    class Changing(Upper):
        def answers(self, conversations: Any, where: Any, **_: Any) -> list[Prediction]:
            write(rows[:150] if change == "fewer" else [*rows[:150], {"text": "new"}, *rows[151:]])
            return super().answers(conversations, where)

    monkeypatch.setattr(predictor, "open_target", lambda target, *rest: Changing())
    write(rows)
    told = run()
    where = "rows.jsonl:151" if change == "other" else "rows.jsonl"
    assert told.line == f"error: {where}: was changed while its rows were answered; run the same command again"
    monkeypatch.setattr(predictor, "open_target", lambda target, *rest: Upper())
    assert run().status == 0 and len(lines()) == (150 if change == "fewer" else 200)


def test_keys_are_of_what_is_answered() -> None:
    write([{"text": "a", "id": 1}, {"text": "a", "id": 2}, {"text": "b", "id": 1}])
    rows = open_rows(Path("rows.jsonl"), read_answers=True, key=row_key)
    first, second, third = rows.keys
    assert first == second != third and [number for number, _ in enumerate(rows.between(1, 3))] == [0, 1]


@pytest.mark.parametrize("value", ["é\u2028", "\ud800", float("nan"), [1, {"a": (None, 2**70)}], 1e300])
def test_a_key_is_the_hash_of_the_line_of_json(value: Any) -> None:
    messages = ({"role": "user", "content": "x", "tools": value},)
    assert f"{row_key(Example(messages, ())):016x}" == sha256(json_line(messages)).hexdigest()[:16]
