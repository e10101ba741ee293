"""`riyaz run`: what it writes, what it leaves alone, and how it goes on after a stop. A stand-in answers."""

import csv
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from comparing import Told, command
from test_formats import workbook

from riyaz import predictor, scoring
from riyaz.cli import kept
from riyaz.cli import run as verb
from riyaz.data import many_files
from riyaz.predictor import Prediction

ROWS = [{"id": n, "text": f"question {n}", "score": float("nan")} for n in range(10)]


class Echo:
    """Answers with the question, in capitals."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stop_at, self.cites = -1, False

    def answers(self, conversations: Any, where: Any, **_: Any) -> list[Prediction]:
        questions = [messages[-1]["content"] for messages in conversations]
        if 0 <= self.stop_at <= len(self.asked):
            raise KeyboardInterrupt
        self.asked += questions
        cited = ({"doc_id": "d", "start": 1},) if self.cites else ()
        return [Prediction(question.upper(), citations=cited) for question in questions]


@pytest.fixture(autouse=True)
def echo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Echo:
    made = Echo()
    monkeypatch.setattr(predictor, "open_target", lambda target: made)
    monkeypatch.setattr(verb, "_answerer", lambda target: target)
    monkeypatch.setattr(kept, "CHUNK", 4)
    monkeypatch.chdir(tmp_path)
    write(ROWS)
    return made


def write(rows: list[dict], path: str = "rows.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(out: str = "out.jsonl", *more: object, rows: str = "rows.jsonl", target: str = "echo") -> Told:
    return command("run", target, rows, "--out", out, *more)


def lines(path: str = "out.jsonl") -> list[dict]:
    return [json.loads(line, parse_constant=pytest.fail) for line in Path(path).read_text().splitlines()]


EXPECTED = [{"id": n, "text": f"question {n}", "score": None, "prediction": f"QUESTION {n}"} for n in range(10)]


def test_json_lines_hold_no_nan() -> None:
    told = run()
    assert told.status == 0 and "10 rows answered in out.jsonl" in told.err
    assert lines() == EXPECTED and sorted(os.listdir()) == ["out.jsonl", "rows.jsonl"]


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_tables_are_what_riyaz_reads(suffix: str, comma: str, echo: Echo) -> None:
    echo.cites = True
    write([{"text": 'say "a,b"\nand\tc', "tags": ["x", 1], "sure": True, "none": None}, {"text": "=1+1", "n": -2}])
    told = run(f"out.{suffix}")
    assert told.status == 0 and "note: 2 fields begin with =, +, - or @" in told.err
    with open(f"out.{suffix}", newline="") as file:
        read = list(csv.reader(file, delimiter=comma, strict=True))
    assert read[0] == ["text", "tags", "sure", "none", "n", "prediction", "citations"]
    assert read[1][:6] == ['say "a,b"\nand\tc', '["x", 1]', "true", "", "", 'SAY "A,B"\nAND\tC']
    assert read[2][:6] == ["=1+1", "", "", "", "-2", "=1+1"] and json.loads(read[2][6]) == [{"doc_id": "d", "start": 1}]
    (table,) = many_files.read_tables(Path(f"out.{suffix}"))
    assert [row["prediction"] for _, row in table.rows] == ['SAY "A,B"\nAND\tC', "=1+1"]


def test_csv_has_separator_and_mark_of_what_was_read() -> None:
    Path("rows.csv").write_bytes("\ufefftext;n\nä;-1\n".encode())
    assert run("out.csv", rows="rows.csv").status == 0
    assert Path("out.csv").read_bytes() == "\ufefftext;n;prediction\nä;-1;Ä\n".encode()
    workbook(Path("rows.xlsx"), [["text"], ["ö"]])
    assert run("b.csv", rows="rows.xlsx").status == 0
    assert Path("b.csv").read_bytes() == "\ufefftext,prediction\nö,Ö\n".encode()
    assert run("c.csv").status == 0 and Path("c.csv").read_bytes().startswith(b"id,text,score,prediction\n0,")


def test_parquet_has_typed_columns_and_text_for_mixed_ones() -> None:
    write([{"text": "a", "n": 1, "mixed": 1, "none": None}, {"text": "b", "n": 2, "mixed": "x", "none": None}])
    assert run("out.parquet").status == 0
    table = pq.read_table("out.parquet")
    assert table.to_pylist() == [
        {"text": "a", "n": 1, "mixed": "1", "none": None, "prediction": "A"},
        {"text": "b", "n": 2, "mixed": "x", "none": None, "prediction": "B"},
    ]
    assert not Path("out.parquet.partial").exists()


def test_nothing_is_overwritten_unasked(echo: Echo) -> None:
    Path("out.csv").write_text("mine")
    told = run("out.csv")
    assert told.line == "error: out.csv: exists already; pass --force to replace it, or choose another --out"
    assert told.status == 2 and echo.asked == [] and Path("out.csv").read_text() == "mine"
    assert run("out.csv", "--force").status == 0 and len(Path("out.csv").read_text().splitlines()) == 11
    told = run("rows.jsonl", "--force")
    assert told.line == "error: rows.jsonl: is the file that is read; choose another --out"
    told = run("rows.jsonl", "--force", rows="r*.jsonl")
    assert "is the file that is read" in told.line
    for name, what in ("out", "a name without suffix"), ("out.xlsx", ".xlsx"):
        told = run(name)
        assert (
            told.line
            == f"error: {name}: {what} is no format that is written; end the name in .jsonl, .csv, .tsv or .parquet"
        )


@pytest.mark.parametrize("column", ["prediction", "citations"])
def test_a_column_of_the_rows_is_never_replaced(column: str, echo: Echo) -> None:
    write([{"text": "a", column: "mine"}])
    told = run()
    assert told.status == 2 and echo.asked == []
    assert told.line.startswith(
        f"error: rows.jsonl: the rows have a column '{column}' of their own; pass --prediction-column"
    )
    echo.cites = True
    assert run("out.jsonl", "--prediction-column", "said").status == 0
    (row,) = lines()
    assert row == {"text": "a", column: "mine", "said": "A", "said_citations": [{"doc_id": "d", "start": 1}]}


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv", "out.parquet"])
def test_a_stopped_run_goes_on(out: str, echo: Echo) -> None:
    assert run(f"whole{out}").status == 0
    echo.asked, echo.stop_at = [], 8
    told = run(out)
    assert told.status == 130
    assert (
        told.err.splitlines()[-1]
        == f"stopped; 8 of 10 answers are kept in {Path(out).absolute()}.partial; the same command continues"
    )
    assert not Path(out).exists() and len(Path(f"{out}.partial").read_text().splitlines()) == 9
    echo.asked, echo.stop_at = [], -1
    told = run(out)
    assert told.status == 0 and f"8 of 10 rows were answered before, in {out}.partial" in told.err
    assert echo.asked == ["question 8", "question 9"]
    assert Path(out).read_bytes() == Path(f"whole{out}").read_bytes() and not Path(f"{out}.partial").exists()


def test_a_run_stopped_before_its_first_answers_leaves_nothing(echo: Echo) -> None:
    echo.stop_at = 0
    told = run()
    assert (
        told.status == 130
        and told.err.endswith("\nstopped; no answer is kept yet\n")
        and os.listdir() == ["rows.jsonl"]
    )


def test_what_a_kill_left_is_read_up_to_the_last_whole_answers(echo: Echo) -> None:
    echo.stop_at = 8
    run()
    content = Path("out.jsonl.partial").read_bytes()
    for cut in len(content) - 1, len(content) - 200, 10, 0:
        Path("out.jsonl").unlink(missing_ok=True)
        Path("out.jsonl.partial").write_bytes(content[:cut])
        echo.stop_at = -1
        assert run().status == 0 and lines() == EXPECTED


def test_rows_behind_the_answers_may_be_corrected_and_other_answers_are_not_mixed_in(echo: Echo) -> None:
    echo.stop_at = 4
    run()
    told = run(target="other")
    assert (
        told.line
        == "error: out.jsonl.partial: holds answers of another model; delete it, or choose another --out".replace(
            "out.jsonl.partial", str(Path("out.jsonl.partial").absolute())
        )
    )
    echo.asked, echo.stop_at = [], -1
    write([*ROWS[:4], *({**row, "text": "new"} for row in ROWS[4:])])
    assert run().status == 0 and echo.asked == ["new"] * 6
    assert [row["prediction"] for row in lines()] == [*(f"QUESTION {n}" for n in range(4)), *["NEW"] * 6]


def test_a_target_that_cannot_be_written_is_found_before_any_answer(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Any, *_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(kept.os, "open", denied)
        told = run()
    assert told.status == 2 and "out.jsonl.partial: cannot be written (Permission denied)" in told.line
    assert echo.asked == [] and os.listdir() == ["rows.jsonl"]
    Path("out.jsonl.partial").symlink_to("rows.jsonl")
    before = Path("rows.jsonl").read_bytes()
    assert "cannot be written" in run().line and Path("rows.jsonl").read_bytes() == before


def test_a_full_disk_keeps_what_was_answered(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = os.write, []

    def full(file: int, content: bytes) -> int:
        written.append(content)
        if len(written) == 3:
            real(file, content[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(kept.os, "write", full)
        told = run()
    assert told.status == 2
    assert "partial: the disk is full; 4 answers are kept; free some space and run the same command again" in told.line
    echo.asked = []
    assert run().status == 0 and lines() == EXPECTED and echo.asked[0] == "question 4"


def test_an_error_before_the_first_answer_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(scoring, "predict", broken)
    assert run().status == 2 and os.listdir() == ["rows.jsonl"]


def test_two_runs_do_not_write_the_same_answers(echo: Echo) -> None:
    with kept.Kept(Path("out.jsonl").absolute(), "echo", ()):
        assert "partial: another riyaz is writing these answers; wait for it" in run().line


def test_devices_and_pipes_are_streams_and_links_lead_to_their_file(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("/dev/null").status == 0 and Path("/dev/null").is_char_device()
    assert run("/dev/stdout").status == 0
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == EXPECTED
    os.mkfifo("pipe.csv")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(Path("pipe.csv").read_bytes()))
    reader.start()
    assert run("pipe.csv").status == 0
    reader.join()
    assert len(heard[0].splitlines()) == 11 and heard[0].startswith(b"id,text,score,prediction\n")
    os.mkfifo("pipe.parquet")
    assert "Parquet cannot be written as a stream; name a file" in run("pipe.parquet").line
    Path("data").mkdir()
    Path("link.jsonl").symlink_to("data/real.jsonl")
    assert run("link.jsonl").status == 0
    assert Path("link.jsonl").is_symlink() and lines("data/real.jsonl") == EXPECTED
