"""`riyaz run`: what it writes, what it leaves alone, and how it goes on after a stop. A stand-in answers."""

import csv
import errno
import json
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_llama
from test_formats import workbook
from tiny_comparison import Told, command

import riyaz
from riyaz import artifact as artifacts
from riyaz import predictor, scoring
from riyaz.artifact import Artifact, BaseModel
from riyaz.cli import partial_answers
from riyaz.cli import run as verb
from riyaz.data import many_files
from riyaz.predictor import Prediction

ANSWERER = verb.answerer_of
ROWS = [{"id": n, "text": f"question {n}", "score": float("nan")} for n in range(10)]


class Echo:
    """Answers with the question, in capitals."""

    has_model = False

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
    monkeypatch.setattr(predictor, "open_target", lambda target, *rest: made)
    monkeypatch.setattr(verb, "answerer_of", lambda target, *rest: target)
    monkeypatch.setattr(partial_answers, "CHUNK", 4)
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


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_line_ends_inside_a_field_are_read_back(end: str, suffix: str, comma: str) -> None:
    texts = [f"a{end}b", f"c{end}", f"{end}d", "plain"]
    write([{"end": end, "text": text} for text in texts])
    assert run(f"out.{suffix}", "--prompt-column", "text").status == 0
    with open(f"out.{suffix}", newline="") as file:
        read = list(csv.reader(file, delimiter=comma, strict=True))
    assert read == [["end", "text", "prediction"], *([end, text, text.upper()] for text in texts)]
    (table,) = many_files.read_tables(Path(f"out.{suffix}"))
    assert [row["text"] for _, row in table.rows] == [text.replace("\r\n", "\n") for text in texts]
    assert b"plain" + comma.encode() + b"PLAIN\n" in Path(f"out.{suffix}").read_bytes()


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
    where = Path("out.jsonl.partial").absolute()
    what = "holds answers of another model, or another version of riyaz"
    assert told.line == f"error: {where}: {what}; delete it, or choose another --out"
    limit = run("out.jsonl", "--max-new-tokens", 9)
    assert what in limit.line, "answers of another length"
    echo.asked, echo.stop_at = [], -1
    write([*ROWS[:4], *({**row, "text": "new"} for row in ROWS[4:])])
    assert run().status == 0 and echo.asked == ["new"] * 6
    assert [row["prediction"] for row in lines()] == [*(f"QUESTION {n}" for n in range(4)), *["NEW"] * 6]


@pytest.mark.parametrize(
    ("rows", "asked"),
    [
        ([{"text": "on top"}, *ROWS], ["on top", "question 8", "question 9"]),
        ([*ROWS[:2], {"text": "within"}, *ROWS[5:], ROWS[0]], ["within", "question 8", "question 9", "question 0"]),
        (ROWS[::-1], ["question 9", "question 8"]),
    ],
)
def test_answers_are_found_again_wherever_their_rows_stand(rows: list[dict], asked: list[str], echo: Echo) -> None:
    echo.stop_at = 8
    run()
    echo.asked, echo.stop_at = [], -1
    write(rows)
    told = run()
    assert told.status == 0 and echo.asked == asked
    assert f"{len(rows) - len(asked)} of {len(rows)} rows were answered before" in told.err
    assert [(row["text"], row["prediction"]) for row in lines()] == [(r["text"], r["text"].upper()) for r in rows]
    assert sorted(os.listdir()) == ["out.jsonl", "rows.jsonl"]


def test_a_second_stop_keeps_the_answers_of_both_runs(echo: Echo) -> None:
    echo.stop_at = 4
    run()
    write([{"text": f"new {n}"} for n in range(5)] + ROWS)
    echo.asked = []
    told = run()
    assert told.status == 130 and "8 of 15 answers are kept" in told.err
    echo.asked, echo.stop_at = [], -1
    assert run().status == 0 and echo.asked == ["new 4", *(f"question {n}" for n in range(4, 10))]


def test_answers_to_other_rows_are_not_lost(echo: Echo) -> None:
    echo.stop_at = 8
    run()
    before = Path("out.jsonl.partial").read_bytes()
    write([{"text": "another"}], "others.jsonl")
    echo.asked, echo.stop_at = [], -1
    told = run(rows="others.jsonl")
    assert told.status == 2 and echo.asked == [] and Path("out.jsonl.partial").read_bytes() == before
    assert told.line.endswith("out.jsonl.partial: holds answers to other rows; delete it, or choose another --out")


@pytest.mark.parametrize("content", [b"mine", b"mine\nall mine\n", b'{"riyaz"', b'{"riyaz": "run", "answ'])
def test_a_partial_file_of_the_users_own_is_left_alone(content: bytes, echo: Echo) -> None:
    Path("out.jsonl.partial").write_bytes(content)
    told = run()
    if content.startswith(b"{"):  # the header that a kill left unfinished
        assert told.status == 0 and not Path("out.jsonl.partial").exists()
        return
    assert told.status == 2 and echo.asked == [] and Path("out.jsonl.partial").read_bytes() == content
    assert told.line.endswith("out.jsonl.partial: was not written by riyaz run; move it away, or choose another --out")


@pytest.mark.parametrize("name", ["", " ", "\u00a0"])
def test_the_column_of_answers_has_a_name(name: str, echo: Echo) -> None:
    told = run("out.jsonl", "--prediction-column", name)
    assert told.status == 2 and echo.asked == [] and not Path("out.jsonl").exists()
    assert (
        told.line == "error: --prediction-column: the name is blank; pass a name, such as --prediction-column answered"
    )


def test_the_target_is_looked_for_before_the_rows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "answerer_of", ANSWERER)
    write([{"utterance": f"a rather long question, number {n}", "n": n} for n in range(9)])
    for out in "out.jsonl", "/dev/null":
        told = run(out, target="no/such/model")
        assert told.status == 2 and told.line.startswith("error: no/such/model") and "guessed" not in told.err


def test_one_field_that_begins_like_a_formula_is_one() -> None:
    write([{"text": "=1+1", "n": -2}])
    told = run("out.csv", "--prediction-column", "said")
    assert "note: 2 fields begin with =, +, - or @: import those columns" in told.err
    write([{"text": "a", "n": "=2"}])
    told = run("b.csv")
    assert "note: 1 field begins with =, +, - or @: import its column into a spreadsheet as text" in told.err
    assert "or it may run as a formula" in " ".join(told.err.split())


def test_answers_are_of_the_weights_the_template_and_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama.write_hf_folder(tmp_path / "model")
    before = ANSWERER(str(model))
    tiny_llama.write_hf_folder(model)
    assert ANSWERER(str(model)) == before
    with (model / "chat_template.jinja").open("a") as file:
        file.write("\n\nAnswer in verse.")
    assert ANSWERER(str(model)) != before
    tiny_llama.write_hf_folder(model, seed=1)
    assert ANSWERER(str(model)) != before
    tiny_llama.write_hf_folder(model)
    with monkeypatch.context() as patch:
        patch.setattr(riyaz, "__version__", "0.0.9")
        assert ANSWERER(str(model)) != before
    assert ANSWERER(str(model)) == before


def test_answers_of_an_artifact_are_of_what_its_description_lists(tmp_path: Path) -> None:
    base = BaseModel("tiny", str(tmp_path / "model"), "ab" * 32, 1, "template")
    described = Artifact("zero_shot", base=base)
    files: dict[str, Path | bytes] = {"examples.jsonl": b""}
    artifacts.write(tmp_path / "made", described, files)
    before = ANSWERER(str(tmp_path / "made"))
    artifacts.write(tmp_path / "again", described, files)
    assert ANSWERER(str(tmp_path / "again")) == before
    artifacts.write(tmp_path / "made", described, {"examples.jsonl": b"{}"})
    assert ANSWERER(str(tmp_path / "made")) != before
    artifacts.write(tmp_path / "made", replace(described, base=replace(base, template="another")), files)
    assert ANSWERER(str(tmp_path / "made")) != before


@pytest.mark.parametrize("kind", ["peft", "mlx"])
def test_answers_of_an_adapter_are_of_its_weights_its_configuration_and_its_base(kind: str, tmp_path: Path) -> None:
    model, folder = tiny_llama.write_hf_folder(tmp_path / "model"), tmp_path / "adapter"
    folder.mkdir()
    named = {"peft_type": "LORA", "base_model_name_or_path": str(model), "r": 2, "lora_alpha": 4}
    config = named if kind == "peft" else {"lora_parameters": {"rank": 2, "scale": 2.0}, "model": str(model)}
    weights = folder / ("adapter_model.safetensors" if kind == "peft" else "adapters.safetensors")

    def made(more: dict, content: bytes) -> str:
        (folder / "adapter_config.json").write_text(json.dumps({**config, **more}))
        weights.write_bytes(content)
        return ANSWERER(str(folder))

    before = made({}, b"one")
    assert made({}, b"one") == before
    assert made({}, b"two") != before and made({"note": 1}, b"one") != before
    tiny_llama.write_hf_folder(model, seed=1)
    assert made({}, b"one") != before


def test_answers_under_another_chat_template_are_not_mixed_in(
    echo: Echo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "answerer_of", ANSWERER)
    model = tiny_llama.write_hf_folder(tmp_path / "model")
    echo.stop_at = 8
    assert run(target=str(model)).status == 130
    (model / "chat_template.jinja").write_text(tiny_llama.CHAT_TEMPLATE + "{# verse #}")
    told = run(target=str(model))
    assert told.status == 2 and "holds answers of another model, or another version of riyaz" in told.line
    (model / "chat_template.jinja").write_text(tiny_llama.CHAT_TEMPLATE)
    echo.asked, echo.stop_at = [], -1
    assert run(target=str(model)).status == 0 and echo.asked == ["question 8", "question 9"] and lines() == EXPECTED


def test_a_target_that_cannot_be_written_is_found_before_any_answer(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Any, *_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr(partial_answers.os, "open", denied)
        told = run()
    assert told.status == 2 and "out.jsonl.partial: cannot be written (Permission denied)" in told.line
    assert echo.asked == [] and os.listdir() == ["rows.jsonl"]
    Path("out.jsonl.partial").symlink_to("rows.jsonl")
    before = Path("rows.jsonl").read_bytes()
    assert "cannot be written" in run().line and Path("rows.jsonl").read_bytes() == before


def test_a_socket_is_found_before_any_answer(echo: Echo) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("out.jsonl")
        told = run("out.jsonl", "--force")
    assert told.status == 2 and "out.jsonl: is a socket, not a file" in told.line
    assert echo.asked == [] and sorted(os.listdir()) == ["out.jsonl", "rows.jsonl"]


def test_a_full_disk_keeps_what_was_answered(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = os.write, []

    def full(file: int, content: bytes) -> int:
        written.append(content)
        if len(written) == 3:
            real(file, content[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(partial_answers.os, "write", full)
        told = run()
    assert told.status == 2
    assert "partial: the disk is full; 4 answers are kept; free some space and run the same command again" in told.line
    echo.asked = []
    assert run().status == 0 and lines() == EXPECTED and echo.asked[0] == "question 4"


@pytest.mark.parametrize(("error", "why"), [
    (OSError(errno.EIO, "Input/output error"), "cannot be written: Input/output error"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
])  # fmt: skip
def test_partial_answers_that_cannot_be_cut_are_named(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, error: OSError, why: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(partial_answers.os, "ftruncate", fails)
        told = run()
    assert told.status == 2 and f".partial: {why}" in told.line
    assert run().status == 0 and lines() == EXPECTED


def test_an_error_before_the_first_answer_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(scoring, "predict", broken)
    assert run().status == 2 and os.listdir() == ["rows.jsonl"]


def test_two_runs_do_not_write_the_same_answers(echo: Echo) -> None:
    with partial_answers.PartialAnswers(Path("out.jsonl").absolute(), "echo", ()):
        assert "partial: another riyaz is writing these answers; wait for it" in run().line


def test_devices_and_pipes_are_streams(capfd: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_a_link_is_neither_followed_nor_replaced(there: bool, force: bool) -> None:
    victim = Path("data/real.jsonl")
    victim.parent.mkdir()
    if there:
        victim.write_text("mine\n")
    Path("link.jsonl").symlink_to(victim)
    told = run("link.jsonl", *["--force"] * force)
    assert told.status == 2 and "link.jsonl: is a link to data/real.jsonl, which is neither followed" in told.line
    assert (
        Path("link.jsonl").is_symlink() and victim.exists() is there and (not there or victim.read_text() == "mine\n")
    )
    assert sorted(file.name for file in Path().glob("*.partial")) == []


def test_a_link_in_the_path_of_the_folder_is_followed() -> None:
    Path("data").mkdir()
    Path("short").symlink_to("data")
    assert run("short/out.jsonl").status == 0 and lines("data/out.jsonl") == EXPECTED
