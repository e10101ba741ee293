"""The blocks of commands of the documents run, with a tiny model, fewer steps and less time than the pages say.

Each page has a folder of its own with the examples, a finished comparison `workshop` and the user's files that it
names. tests/helpers/command_blocks.py lists the pages. `riyaz pull` alone is not run, since it needs a network: the
store has the model already.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import command_blocks
import httpx
import pytest
import tiny_comparison
import tiny_llama
import tiny_notebook
from load_script import load_script
from tiny_store import keep
from waiting import HANG

from riyaz.config import DEFAULT_MODEL
from riyaz.sources import store
from riyaz.sources.catalogue import CATALOGUE

ROOT = command_blocks.ROOT
FEW = "--limit-train 40 --limit-test 6"
TINY = "--tokenizer bytes --layers 1 --heads 2 --width 32 --context 64 --steps 2 --validate-every 1"
SHORTER = [  # (what a page says, what is run)
    ("--steps 300 --validate-every 25", "--steps 2 --validate-every 1"),
    ("--batch 16 --steps 300", "--batch 16 --steps 2"),
    ("--steps 100", "--steps 2"),
    ("--size 1m --budget 5m", TINY),
    ("--budget 10m --out desk", f"--budget 3h --methods nearest,linear {FEW} --out desk"),
    ("--epochs 3 --learning-rate 5e-4", f"--steps 2 --learning-rate 5e-4 {FEW}"),
    ("--out my-lora --budget 10m", "--out my-lora"),
    ("adapt few_shot examples/quickstart", f"adapt few_shot examples/quickstart {FEW}"),
    ("--rows examples/quickstart --out student", f"--rows new.jsonl {FEW} --steps 2 --out student"),
    ("--earlier-test examples/quickstart/test.jsonl", "--earlier-test test.jsonl --steps 2"),
    ("smollm2-135m --suite bias --budget 2m", "smollm2-135m --suite bias --budget 2s"),
    ("--rows examples/quickstart/test.jsonl --budget 10m", "--rows test.jsonl --suite fragile --budget 5s"),
    ("smollm2-135m --budget 5m", "smollm2-135m --suite bias --budget 2s"),
    ("--suite truth --rows examples/quickstart/test.jsonl", "--suite truth --rows test.jsonl"),
]  # fmt: skip
NAMED = {  # what a page finds and another makes
    "docs/decisions.md": ("examples/tickets/questions.json", "questions.json"),
    "docs/inside.md": ("workshop/arms/lora/kept/artifact", "my-lora"),
}
TEXTS = 40  # that are gathered
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(
    in_float32: None, one_core: pytest.MonkeyPatch, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder with all that the pages name and do not make; nobody writes into it."""
    one_core.setenv("RIYAZ_HOME", str(tmp_path_factory.mktemp("home")))
    keep(model_folder, DEFAULT_MODEL)
    folder = tmp_path_factory.mktemp("prepared")
    tiny_notebook.few_examples(folder)
    rows = [json.loads(line) for line in (ROOT / "examples/quickstart/test.jsonl").read_text("utf-8").splitlines()]
    for name, kept in (("rows.jsonl", rows[:6]), ("QUESTIONS.jsonl", rows[:40]), ("test.jsonl", rows[:8]),
                       ("new.jsonl", rows[100:140])):  # fmt: skip
        tiny_comparison.write_rows(folder / name, kept)
    lines = (ROOT / "examples/tickets/tickets.csv").read_text("utf-8").splitlines()[:7]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "my-text.txt").write_text(tiny_llama.CORPUS * 4, encoding="utf-8")
    (folder / "general.txt").write_text(tiny_llama.CORPUS, encoding="utf-8")
    (folder / "my-runs").mkdir()
    one_core.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        tiny_comparison.workers_inside(patch)
        run(f"riyaz compare examples/quickstart --methods nearest,lora --steps 4 --budget 3h {FEW} "
            "--general general.txt --out workshop", folder)  # fmt: skip
    yield folder


def shortened(line: str) -> str:
    """A line of a page as it is run."""
    for long, short in SHORTER:
        line = line.replace(long, short)
    return line


def run(line: str, folder: Path) -> None:
    """Run one line of a page in a folder, which is the working folder too. Raises AssertionError where it fails."""
    words = shlex.split(line, comments=True)
    if words[:2] in (["riyaz", "serve"], ["riyaz", "ui"]):
        serve(words, folder)
    elif words[:2] == ["riyaz", "pull"]:
        assert words[2] in CATALOGUE and store.find(words[2]), f"`{line}`: there is no such model"
    elif words[0] == "riyaz":
        told = tiny_comparison.command(*words[1:])
        assert told.status == 0, f"`{line}` exits {told.status}\n{told.out[-1500:]}\n{told.err[-1500:]}"
    else:
        assert words[:2] == ["python", "examples/pretrain/gather.py"], f"`{line}` is no command that this test can run"
        script = load_script(words[1])
        texts = list(islice(script.texts(), TEXTS))
        script.texts = lambda: texts
        script.main(folder / words[2])


def serve(words: list[str], folder: Path) -> None:
    """Start a server on a free port, ask it for its page, and end it."""
    command = [sys.executable, "-m", *words, "--port", "0", *["--no-browser"] * (words[1] == "ui")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as server:
        assert server.stdout is not None
        address, status = server.stdout.readline().strip(), 0
        try:
            if address.startswith("http://127.0.0.1:"):
                status = httpx.get(address.partition("/v1")[0].partition("#")[0], timeout=HANG).status_code
        finally:
            server.terminate()
            told = server.communicate(timeout=HANG)[1]
    assert status == 200 and server.returncode == 0, f"`{shlex.join(words)}` says {address!r}\n{told[-1500:]}"


@pytest.mark.parametrize("page", command_blocks.RUN)
def test_the_commands_of_a_page_run(page: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    if page in NAMED:
        (shutil.copytree if Path(NAMED[page][0]).is_dir() else shutil.copy)(*NAMED[page])
    tiny_comparison.workers_inside(monkeypatch)
    for block in command_blocks.unmarked(page):
        for line in block.lines:
            run(shortened(line), folder)


def test_every_line_that_is_shortened_stands_on_a_page() -> None:
    lines = [line for page in command_blocks.RUN for block in command_blocks.unmarked(page) for line in block.lines]
    unused = [long for long, _ in SHORTER if not any(long in line for line in lines)]
    assert lines and unused == []


def test_a_command_that_fails_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("riyaz --version", tmp_path)
    with pytest.raises(AssertionError, match=r"exits 2"):
        run("riyaz data nothing.jsonl", tmp_path)
    with pytest.raises(AssertionError, match="no command that this test can run"):
        run("rm -r examples", tmp_path)
    assert os.getcwd() == str(tmp_path)
