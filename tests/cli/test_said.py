"""What the commands say while they work, without a terminal: a line a phase, with --quiet none; and an arm by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_llama
from fake_comparison import comparison, typed
from test_cli import Recorder, fake
from test_export import make

from riyaz.cli import main as cli
from riyaz.json_files import to_document, write_json
from riyaz.results import ArmResult, Comparison

ROWS = [{"text": f"where is my order {i}?", "label": ("refund", "delivery")[i % 2]} for i in range(24)]
USES = {  # command line -> the beginning of its lines on stderr
    "run results/lora rows.jsonl --out a.jsonl": ["riyaz: answer 24 rows", "24 rows answered"],
    "evaluate results/lora --test rows.jsonl --limit 8": ["riyaz: evaluate 8 rows"],
    "export results/lora --format peft --out out": ["riyaz: export results/lora as peft"],
    "rag add c pages --lexical": [],
    "pull tiny-base": ["tiny-base: copy"],
}

FULL = (
    "models --json", "data rows.jsonl", "report results", "report results --json", "--version",
    "generate results/lora hello --max-tokens 3", "predict hello --adapter results/lora --top 2 --json",
)  # fmt: skip
WITHOUT_SPACE = "no space left on device; free some space and run the same command again"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny-base")


@pytest.fixture
def place(monkeypatch, tmp_path, model) -> Path:
    monkeypatch.setenv("RIYAZ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("riyaz.hardware.cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    make(model, Path("results/arms/lora/kept/artifact"))
    write_json(Path("results/compare.json"), Comparison([ArmResult("lora", "ok")], "lora", None, "certified", ""))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("pages").mkdir()
    Path("pages/a.txt").write_text("The card desk is on the third floor.")
    os.symlink(model, "tiny-base")
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("line", list(USES))
def test_a_command_without_a_terminal_prints_a_line_a_phase(line, capsys):
    assert cli.main(line.split()) == 0
    lines = capsys.readouterr().err.splitlines()
    for beginning in USES[line]:
        assert [one for one in lines if one.startswith(beginning)], (beginning, lines)
    assert len(lines) <= len(USES[line]) + 1, lines


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("line", list(USES))
def test_a_quiet_command_prints_its_result_and_nothing_else(line, capsys):
    assert cli.main([*line.split(), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and bool(out) == (not line.startswith("run"))
    if line.startswith("run"):
        assert len(Path("a.jsonl").read_text().splitlines()) == len(ROWS)


@pytest.mark.usefixtures("place")
def test_a_quiet_command_still_says_what_is_wrong(capsys):
    assert cli.main(["evaluate", "results/lora", "--test", "no.jsonl", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("error: no.jsonl: ")


@pytest.mark.parametrize("verb", ["compare", "adapt lora"])
def test_a_quiet_comparison_prints_its_table(verb, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(typed(comparison()))
    fake(monkeypatch, "riyaz.comparison.run", compare=recorder.compare, adapt=recorder.adapt)
    line = [*verb.split(), "rows.jsonl", "--out", "o", "--quiet"]
    assert cli.main(line) == 0
    out, err = capsys.readouterr()
    assert out.startswith("method") and err == ""
    assert cli.main([*line, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and json.loads(out) and err == ""


@pytest.mark.usefixtures("place")
def test_every_command_that_takes_an_artifact_takes_an_arm_by_name(capsys):
    lines = (
        "generate results/lora hello --max-tokens 3 --json", "predict hello --adapter results/lora --top 2 --json",
        "merge results/lora --out merged --json", "export results/lora --format hf --out whole --json",
    )  # fmt: skip
    for line in lines:
        assert cli.main(line.split()) == 0, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out)
        assert cli.main(line.replace("results/lora", "results/lorra").split()) == 2
        said = "error: results/lorra: the comparison has no arm 'lorra'; name one of its arms: results/lora\n"
        assert capsys.readouterr().err == said


def streams(line: str, redirected: str, **known: str) -> subprocess.CompletedProcess:
    """A riyaz command of a shell that closes some of its streams."""
    command = f"{sys.executable} -m riyaz.cli.main {line} {redirected}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, env={**os.environ, **known})


@pytest.mark.parametrize("line", ["models", "models --json", "data rows.jsonl"])
def test_a_closed_stdout_is_refused_in_one_line(line, place):
    told = streams(line, ">&-")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert told.stderr.startswith("error: stdout is closed")


@pytest.mark.parametrize(("redirected", "status"), [("<&-", 0), ("2>&-", 0), ("<&- 2>&-", 0), ("<&- >&- 2>&-", 2)])
def test_a_command_needs_neither_stdin_nor_stderr(redirected, status, place):
    told = streams("run results/lora rows.jsonl --out a.jsonl", redirected)
    assert told.returncode == status and "bug" not in told.stderr
    assert Path("a.jsonl").exists() == (status == 0)
    assert not status or not told.stdout
    if status == 0:
        assert all("prediction" in json.loads(row) for row in Path("a.jsonl").read_text().splitlines())


@pytest.mark.usefixtures("place")
def test_a_prompt_from_a_closed_stdin_is_refused(tmp_path):
    told = streams("generate results/lora -", "<&-")
    assert (
        told.returncode == 2 and told.stderr == "error: stdin holds no prompt; give it as an argument or pipe it in\n"
    )


def test_matplotlibs_own_setting_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_json(Path("results/compare.json"), to_document(typed(comparison())))
    told = streams("report results", "", MPLBACKEND="nope")
    assert told.returncode == 0, told.stderr
    assert Path("results/report.html").stat().st_size > 10_000


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("line", FULL)
def test_a_full_stdout_is_one_line(line):
    told = streams(line, ">/dev/full", PYTHONUNBUFFERED="")
    *before, last = told.stderr.splitlines()
    assert told.returncode == 2 and last == f"error: stdout: {WITHOUT_SPACE}", told.stderr
    assert not [one for one in before if "rror" in one or "Exception" in one], told.stderr


@pytest.mark.usefixtures("place")
def test_a_full_stderr_changes_no_exit_status_and_an_unbuffered_stdout_no_line():
    assert streams("--version", "2>/dev/full", PYTHONUNBUFFERED="").returncode == 0
    assert streams("--version", ">/dev/full", PYTHONUNBUFFERED="1").stderr == f"error: {WITHOUT_SPACE}\n"
    assert streams("--version", ">/dev/full 2>/dev/full", PYTHONUNBUFFERED="").returncode == 2
    assert streams("nothing", "2>/dev/full", PYTHONUNBUFFERED="").returncode == 2
